"""What a data block will give, known before anything of the data is read: the facts of a Spec, and shapes of rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from research.batch import Spec
from research.build import build, parameters
from research.data import DATA
from research.data.tokenizers import SPECIAL_TOKENS, TOKENIZERS, facts

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Expected:
    """`rows` holds one row, of zeros, by its key: shapes and types of what a batch will hold."""

    spec: Spec
    rows: Rows


def expect(data: Mapping[str, Any], *, num_classes: int = 0) -> Expected:
    """What the data function of a block will give. `num_classes` is needed where the block does not name its labels.

    Raises:
      ValueError: a fact that stands neither on the page nor in a flag (which one to give is said).
    """
    known = {key: default for key, (_, default) in parameters(DATA[data["name"]]).items()}
    block = {key: value for key, value in known.items() if value is not inspect.Parameter.empty} | dict(data)
    spec, rows = _KINDS[data["name"]](block, num_classes)
    return Expected(spec, {key: np.zeros((1, *shape), dtype) for key, (shape, dtype) in rows.items()})


Shapes = dict[str, tuple[tuple[int, ...], str]]
Kind = Callable[[Mapping[str, Any], int], tuple[Spec, Shapes]]


def _text(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    spec = Spec(length=_given(data, "length"), packed=data["packing"] != "alone", **_vocabulary(data))
    return spec, _tokens(data) | _IDS


def _one_text(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    rows = _tokens(data) | _IDS
    if data.get("pair_field"):
        rows["token_types"] = rows["tokens"]
    return Spec(length=_given(data, "length"), **_vocabulary(data)), rows


def _text_classification(data: Mapping[str, Any], num_classes: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    return _with_classes(spec, data, num_classes), rows | {"label": ((), "int32")}


def _text_multi_label(data: Mapping[str, Any], num_classes: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    spec = _with_classes(spec, {**data, "label_names": data["label_fields"]}, num_classes)
    return replace(spec, num_rows=2), rows | {"labels": ((spec.num_classes,), "float32")}


def _text_regression(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    return replace(spec, label_names=(data["label_field"],), label_counts=(1,)), rows | {"value": ((), "float32")}


def _tagging(data: Mapping[str, Any], num_classes: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    return _with_classes(spec, data, num_classes), rows | {"tags": rows["tokens"]}


def _text_pairs(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    columns = _tokens(data)
    rows = columns | {f"pair_{key}": value for key, value in columns.items()} | {"group": ((), "int32")}
    return Spec(length=data["length"], **_vocabulary(data)), rows | _IDS


def _prompt_answer(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    return spec, rows | {"loss_mask": ((spec.length,), "bool")}


def _question_answering(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    spec, rows = _one_text(data, 0)
    rows |= {"token_types": rows["tokens"], "answer_mask": ((spec.length,), "bool")}
    return replace(spec, packed=True), rows | {"start": ((), "int32"), "end": ((), "int32")}


def _images(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    size, channels = _given(data, "size"), data["channels"]
    return Spec(image_size=size, num_channels=channels), {"image": ((size, size, channels), "uint8")} | _IDS


def _image_classification(data: Mapping[str, Any], num_classes: int) -> tuple[Spec, Shapes]:
    spec, rows = _images(data, 0)
    return _with_classes(spec, data, num_classes), rows | {"label": ((), "int32")}


def _image_text(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    spec, rows = _images(data, 0)
    rows |= _tokens(data) | {"group": ((), "int32")}
    return replace(spec, length=data["length"], **_vocabulary(data)), rows


def _audio(data: Mapping[str, Any], _: int) -> tuple[Spec, Shapes]:
    rate = _given(data, "sample_rate")
    samples = round(_given(data, "seconds") * rate)
    rows: Shapes = {"audio": ((samples,), "int16"), "audio_length": ((), "int32")}
    return Spec(sample_rate=rate, audio_length=samples), rows | _IDS


def _audio_classification(data: Mapping[str, Any], num_classes: int) -> tuple[Spec, Shapes]:
    spec, rows = _audio(data, 0)
    return _with_classes(spec, data, num_classes), rows | {"label": ((), "int32")}


_IDS: Shapes = {"example_id": ((), "uint32")}
_KINDS: dict[str, Kind] = {
    "text": _text,
    "text_classification": _text_classification,
    "text_multi_label": _text_multi_label,
    "text_regression": _text_regression,
    "tagging": _tagging,
    "text_pairs": _text_pairs,
    "prompt_answer": _prompt_answer,
    "question_answering": _question_answering,
    "images": _images,
    "image_classification": _image_classification,
    "image_text": _image_text,
    "audio": _audio,
    "audio_classification": _audio_classification,
}


def _tokens(data: Mapping[str, Any]) -> Shapes:
    return {key: ((_given(data, "length"),), "int32") for key in ("tokens", "segment_ids", "positions")}


def _given(data: Mapping[str, Any], key: str) -> Any:
    if key not in data:
        raise ValueError(f"data.{key} is not on the page, and shapes follow from it; give --config.data.{key}=…")
    return data[key]


def _with_classes(spec: Spec, data: Mapping[str, Any], num_classes: int) -> Spec:
    """The spec with its classes, by name or by number; without either none, which objectives without labels allow."""
    names = tuple(data.get("label_names", ())) or tuple(f"class {index}" for index in range(num_classes))
    return replace(spec, label_names=names, label_counts=(1,) * len(names))


def _vocabulary(data: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a tokenizer that is yet to be trained; those of a file as they are."""
    block = dict(_given(data, "tokenizer"))
    name = block["name"]
    if name == "file":
        given = build(block, TOKENIZERS, kind="tokenizer")
        return facts(given.train(()))
    if name == "character" and "vocab_size" not in block:
        raise ValueError(
            "how many characters there are is known once the text is read; give their number by "
            "--config.data.tokenizer.vocab_size=…"
        )
    size = len(SPECIAL_TOKENS) + 256 if name == "byte" else build(block, TOKENIZERS, kind="tokenizer").vocab_size
    return {"vocab_size": size, "word_starts": np.ones(size, bool), "word_ends": np.ones(size, bool)}
