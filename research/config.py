"""Pages: reading one with its overrides, and comparing it with the page of an earlier run."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.build import Menu, check, override

# What may differ between a run and its continuation; `num_steps` may grow besides.
FREE = ("mesh", "accumulate", "model.remat", "model.unroll", "log", "checkpoint", "evaluation", "then")


def load_page(
    argument: str, overrides: Iterable[tuple[str, str]], root: Menu, *, prepare: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The page that `FILE[:variant]` names, as nested dicts, with overrides applied and every key and type checked.

    `prepare` fills in what follows from the page before overrides are read.

    Raises:
      ValueError: no such file or variant, or an error on the page or in an override.
    """
    page = _read(argument)
    overrides = list(overrides)
    for key, text in overrides:
        if key.endswith(".name"):  # a choice comes before the arguments of what is chosen
            override(page, root, key=key, text=text)
    prepare(page)
    for key, text in overrides:
        if not key.endswith(".name") or key == "head.name":
            override(page, root, key=key, text=text)
    check(page, root, kind="", offered=OFFERED)
    return page


# Arguments that the hall gives to constructors, so that a page need not.
OFFERED = (
    "model",
    "vocab_size",
    "length",
    "causal",
    "mask_id",
    "num_classes",
    "width",
    "num_steps",
    "tokenizer",
    "size",
    "image_size",
    "num_channels",
    "sample_rate",
    "seconds",
    "audio_length",
)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, each as `key: before, now`, those of FREE left out."""
    first, second = flatten(before), flatten(now)
    found = []
    for key in sorted(first.keys() | second.keys()):
        if any(key == free or key.startswith(f"{free}.") for free in FREE):
            continue
        if first.get(key) != second.get(key):
            found.append(f"{key}: {first.get(key, 'not set')!r} before, {second.get(key, 'not set')!r} now")
    return found


def flatten(page: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values, as JSON holds them."""
    flat: dict[str, Any] = {}
    for key, value in page.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return flat


def _read(argument: str) -> dict[str, Any]:
    name, _, variant = argument.partition(":")
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"--config={argument}: there is no file {name}; configs lie in configs/")
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--config={argument}: {name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"--config={argument}: {name} defines no get_config(variant)")
    variants = getattr(module, "VARIANTS", ("", "tiny"))
    if variant not in variants:
        known = ", ".join(f"{name}:{each}" if each else name for each in variants)
        raise ValueError(f"--config={argument}: no such variant; there are: {known}")
    takes_variant = bool(inspect.signature(module.get_config).parameters)
    page = module.get_config(variant) if takes_variant else module.get_config()
    return page.to_dict() if isinstance(page, ConfigDict) else dict(page)
