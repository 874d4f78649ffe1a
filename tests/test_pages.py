"""Every page of configs/, in every variant, names only blocks, keys and values that exist."""

import importlib.util
from pathlib import Path

import pytest

from research.experiment import load_page
from research.objectives import OBJECTIVES
from tests.pages import ROOT

PAGES = sorted((ROOT / "configs").rglob("*.py"))


def variants(path: Path) -> tuple[str, ...]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "VARIANTS", ("", "tiny"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_variant_of_a_page_can_be_read(path):
    for variant in variants(path):
        page = load_page(f"{path}:{variant}" if variant else str(path), [])
        assert page["num_steps"] >= 1
        assert page.get("head", {}).get("name", "") == OBJECTIVES[page["objective"]["name"]].head
    assert "tiny" in variants(path)
