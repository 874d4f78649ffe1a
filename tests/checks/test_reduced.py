"""Every page of configs/ can be reduced: its blocks stay, and its model is small and still one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from research.build import build, check
from research.experiment import OBJECTIVES, PAGE, config, load_page
from research.models import ALL_MODELS, HEADS
from research.reduced import reduce, reduce_model, with_key
from tests.test_pages import PAGES, ROOT, variants

OFFERS = dict(vocab_size=300, length=32, image_size=32, num_channels=3, sample_rate=8000, audio_length=2000)


def dropouts(block: Mapping) -> list[float]:
    own = [value for key, value in block.items() if key in ("dropout", "patch_dropout")]
    return own + [rate for value in block.values() if isinstance(value, Mapping) for rate in dropouts(value)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_page_is_reduced_to_a_small_one_of_the_same_blocks(path):
    for variant in variants(path):
        page = load_page(f"{path}:{variant}" if variant else str(path), [("data.path", "somewhere")])
        small = reduce(page)
        check(small, PAGE, kind="", offered=config.OFFERED)
        assert small["batch_size"] in (8, 16)
        for block in ("data", "model", "head", "objective", "optimizer"):
            assert small.get(block, {}).get("name") == page.get(block, {}).get("name")
        for block in ("model", "head", "objective"):
            assert not any(dropouts(small.get(block, {})))
        if "model" in small:
            offers = OFFERS | {"causal": OBJECTIVES[small["objective"]["name"]].causal}
            if "size" in small["data"]:
                offers["image_size"] = small["data"]["size"]
            if "text" in small["model"]:  # the towers are resolved by the hall, with what the data offer
                continue
            backbone = build(small["model"], ALL_MODELS, kind="model", **offers)
            assert backbone.width <= 32
            if small.get("head"):
                build(small["head"], HEADS, kind="head", width=backbone.width, vocab_size=300, num_classes=3)


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "modern", "vit", "lstm", "mlp", "cnn", "resnet50", "densenet"]
)
def test_a_preset_is_as_small_as_a_block_that_says_its_sizes(name):
    extra = dict(patch_size=8) if name == "vit" else {}
    small = build(reduce_model(dict(name=name, **extra)), ALL_MODELS, kind="model", **OFFERS)
    assert small.width <= 32
    assert small.depth <= 4
    heads = getattr(small, "num_heads", 2)
    assert heads in (2, 4) and small.width % heads == 0


def test_grouped_heads_stay_grouped():
    assert reduce_model(dict(name="llama", num_heads=32, num_kv_heads=8, width=4096)) == dict(
        name="llama", num_heads=4, num_kv_heads=2, width=32, depth=2
    )


def test_a_key_is_set_in_every_tower_that_takes_it():
    model = dict(name="dual_encoder", image=dict(name="mlp"), text=dict(name="modern"))
    found, changed = with_key(model, "remat", "full")
    assert changed and found["text"]["remat"] == "full" and "remat" not in found["image"]
    assert with_key(dict(name="lstm"), "remat", "full") == (dict(name="lstm"), False)


@pytest.mark.parametrize(("variant", "size"), [("emoji", 64), ("glyphs", 32)])
def test_images_stay_as_large_as_their_tower_halves_them(variant, size):
    page = load_page(f"{ROOT}/configs/pretrain/image_text_clip.py:{variant}", [("data.path", "somewhere")])
    assert reduce(page)["data"]["size"] == size
