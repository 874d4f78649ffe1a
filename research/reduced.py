"""A page at reduced size: its own blocks and data, with all that makes them slow made small."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.build import parameters
from research.data import DATA
from research.experiment import Page
from research.models import ALL_MODELS, HEADS, IMAGE_MODELS
from research.objectives import OBJECTIVES
from research.trained import open_trained

ROWS, LENGTH, SIDE, VOCABULARY, SECONDS, NUM_STEPS = 16, 32, 32, 512, 0.25, 40
HEADS_AT_MOST, HEAD_DIM = 4, 8

# At most this much of each key, wherever a block of the model or of the head takes it.
MOST = {
    "depth": 2,  # layers
    "width": 16,  # where there are no heads
    "mlp_dim": 32,
    "stem_width": 16,
    "growth": 16,  # as wide as the stem: halved, every stage of a dense net has 32 channels again
    "num_groups": 4,
    "embed_dim": 16,
    "hidden": 32,
    "unroll": 1,
}
# What the data and the number types decide is asked for again.
_OFFERED = ("vocab_size", "length", "image_size", "num_channels", "sample_rate", "audio_length", "num_frames")
_OFFERED += ("dtype", "param_dtype", "matmul_dtype")


def reduce(page: Mapping[str, Any]) -> dict[str, Any]:
    """The page as it is verified: 2 layers, heads of 8, convolutions of 32 channels, rows of 32 tokens, images of 32
    pixels, a quarter of a second, 16 rows; float32, without dropout, remat, accumulation and a mesh.

    Of a page that starts from a finished run the architecture is taken, and new weights. Data are read from where the
    page says, with a tokenizer of 512 tokens where one is trained.

    Raises:
      ValueError: the page names no data.
    """
    full = Page(**page)
    if "path" in parameters(DATA[full.data["name"]]) and not full.data.get("path"):
        raise ValueError(
            "data.path is empty, and verify reads a few rows of the page's own data; give --config.data.path=FILE"
        )
    small = {**page, "batch_size": max(8, min(ROWS, full.batch_size // 8 * 8)), "num_steps": NUM_STEPS}
    for key in ("accumulate", "evidence", "log", "checkpoint", "evaluation", "then"):
        small.pop(key, None)
    small |= {"dtype": "float32", "param_dtype": "float32", "matmul_dtype": ""}
    small["mesh"] = {"rules": full.mesh["rules"]} if "rules" in full.mesh else {}
    model = full.model
    if full.init_from:
        small["weights"] = "scratch"
        model = model or open_trained(Path(full.init_from)).about["model"]
    if model:
        small["model"] = reduce_model(model)
    small["data"] = _data(full.data, small.get("model", {}), full.objective["name"])
    small["head"] = _block(full.head, HEADS[full.head["name"]]) if full.head else {}
    small["objective"] = _objective(full.objective, small["batch_size"])
    small["optimizer"] = _optimizer(full.optimizer)
    small["tuning"] = _tuning(full.tuning, small.get("model", {}))
    return {key: value for key, value in small.items() if value != {}}


def with_key(model: Mapping[str, Any], key: str, value: Any) -> tuple[dict[str, Any], bool]:
    """A model's block with a key set in it, and in those of its towers that take it; and whether any does."""
    found, changed = dict(model), key in parameters(ALL_MODELS[model["name"]])
    if changed:
        found[key] = value
    for name, tower in model.items():
        if isinstance(tower, Mapping):
            found[name], inner = with_key(tower, key, value)
            changed |= inner
    return found, changed


def reduce_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's block, and those of its towers."""
    return _block({key: value for key, value in model.items() if key not in _OFFERED}, ALL_MODELS[model["name"]])


def _block(block: Mapping[str, Any], constructor: Any) -> dict[str, Any]:
    small = {key: reduce_model(value) if isinstance(value, Mapping) else value for key, value in block.items()}
    default = {key: value for key, (_, value) in parameters(constructor).items()}
    known = {key: small.get(key, default[key]) for key in default}

    def cap(key: str, most: int) -> None:
        if isinstance(known.get(key), int) and known[key] > most:
            small[key] = most

    for key, most in MOST.items():
        if key != "width" or "num_heads" not in known:
            cap(key, most)
    if "num_heads" in known:
        _heads(small, known, "width" if "width" in known else "decoder_width")
    if known.get("depths"):
        small["depths"] = (1,) * len(known["depths"])
    if known.get("widths"):  # a bottleneck has a quarter of them
        small["widths"] = tuple(min(width, 32) for width in known["widths"])
    for key in ("dropout", "patch_dropout"):
        if known.get(key):
            small[key] = 0.0
    if known.get("remat", "none") != "none":
        small["remat"] = "none"
    return small


def _heads(small: dict[str, Any], known: Mapping[str, Any], width: str) -> None:
    """1, 2 or 4 heads, so that they divide over devices; shared keys and values stay shared."""
    count = next(most for most in (HEADS_AT_MOST, 2, 1) if known["num_heads"] >= most)
    small["num_heads"] = count
    if width in known:
        small[width] = count * min(HEAD_DIM, known[width] // known["num_heads"])
    if known.get("num_kv_heads"):
        shared = known["num_kv_heads"] < known["num_heads"]
        small["num_kv_heads"] = max(count // 2, 1) if shared else count


def _data(data: Mapping[str, Any], model: Mapping[str, Any], objective: str) -> dict[str, Any]:
    small, takes = dict(data), parameters(DATA[data["name"]])
    if "length" in small:
        small["length"] = max(8, min(LENGTH, small["length"]) // 4 * 4)
        for key, share in (("max_question", 4), ("stride", 8)):
            if data["name"] == "question_answering" and key in takes:
                default = takes[key][1]
                small[key] = min(small.get(key, default), small["length"] // share)
    if "size" in takes:
        towers = [model, *(value for value in model.values() if isinstance(value, Mapping))]
        patch = max((_patch_size(tower) for tower in towers if tower), default=1)
        halved = max((_halvings(tower) for tower in towers if tower), default=0)
        side = min(max(SIDE, 2**halved), small.get("size", SIDE))
        small["size"] = max(side // patch, 2) * patch
    if "seconds" in small:
        small["seconds"] = min(SECONDS, small["seconds"])
    tokenizer = small.get("tokenizer")
    if isinstance(tokenizer, Mapping) and tokenizer.get("vocab_size", 0) > VOCABULARY:
        small["tokenizer"] = {**tokenizer, "vocab_size": VOCABULARY}
    return small


def _patch_size(tower: Mapping[str, Any]) -> int:
    menu = IMAGE_MODELS
    if tower.get("name") not in menu:
        return 1
    return tower.get("patch_size") or parameters(menu[tower["name"]]).get("patch_size", (None, 1))[1]


def _halvings(tower: Mapping[str, Any]) -> int:
    """How often a convolutional tower halves its images: twice in its stem, and once a stage."""
    if tower.get("name") not in IMAGE_MODELS or "stem" not in parameters(IMAGE_MODELS[tower["name"]]):
        return 0
    known = {key: tower.get(key, value) for key, (_, value) in parameters(IMAGE_MODELS[tower["name"]]).items()}
    return 2 * (known["stem"] == "imagenet") + len(known["depths"])


def _objective(objective: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    takes = parameters(OBJECTIVES[objective["name"]])
    small = dict(objective)
    if small.get("token_dropout"):
        small["token_dropout"] = 0.0
    if objective["name"] == "simcse":  # both views would be equal without; it is drawn by the example's id
        small["token_dropout"] = objective.get("token_dropout") or 0.1
    if "queue_size" in takes:
        small["queue_size"] = 2 * batch_size
    return small


def _optimizer(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    small = dict(optimizer)
    schedule = small.get("schedule")
    if schedule and schedule.get("warmup_steps", 0) > 4:
        small["schedule"] = {**schedule, "warmup_steps": 4}
    return small


def _tuning(tuning: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    small = {key: value for key, value in tuning.items() if key != "linear_probe"}
    for key, most in (("freeze_layers", model.get("depth", 2)), ("lora_rank", 4)):
        if small.get(key, 0) > most:
            small[key] = most
    return small
