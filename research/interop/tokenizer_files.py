"""The tokenizer that lies beside published weights: read, and written so that transformers opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.interop.tensor_files import write_json


def read_tokenizer(folder: Path) -> str:
    """The contents of tokenizer.json. Raises ValueError where there is none."""
    place = folder / "tokenizer.json"
    if not place.is_file():
        raise ValueError(
            f"{folder} has no tokenizer.json; write one with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    return place.read_text(encoding="utf-8")


def write_tokenizer(
    folder: Path,
    contents: str,
    *,
    end: bool,
    ids: Mapping[str, int],
    tokens: Mapping[str, str],
    length: int,
    several_types: bool = False,
    keep_frame: bool = True,
) -> None:
    """tokenizer.json, with the special tokens around a text that the model was trained with (the last where `end`), and
    what transformers wants to know beside it: at most `length` tokens, and whether they have types.

    A given file's own post-processor stays, unless rows `end` and it is not `keep_frame`: then they were trained with
    other tokens around them than it writes (GPT-2's and Llama's write no <eos>).
    """
    found = json.loads(contents)
    template, own = _template(tokens, ids, end=end), found.get("post_processor")
    if own is None:
        found["post_processor"] = template
    elif end and not keep_frame and template is not None:
        offsets = [own] if own["type"] == "ByteLevel" else []  # it sees to them
        found["post_processor"] = {"type": "Sequence", "processors": [*offsets, template]}
    write_json(folder / "tokenizer.json", found)
    kept = {name: token for name, token in tokens.items() if name != "bos_token" or "cls_token" not in tokens}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            # Left out, the second text of a pair would be of the first type.
            "model_input_names": ["input_ids", *["token_type_ids"] * several_types, "attention_mask"],
            **kept,
        },
    )


def _template(tokens: Mapping[str, str], ids: Mapping[str, int], *, end: bool) -> dict[str, Any] | None:
    """`<bos> text`, or `<bos> text <eos>` and `<bos> text <eos> pair <eos>`, as a post-processor."""
    begin = [tokens["bos_token"]] if "bos_token" in tokens else []
    final = [tokens["eos_token"]] if end and "eos_token" in tokens else []
    if not begin and not final:
        return None

    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    first = [{"Sequence": {"id": "A", "type_id": 0}}, *(special(token, 0) for token in final)]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, *(special(token, 1) for token in final)]
    number = {tokens[name]: ids[f"{name}_id"] for name in ("bos_token", "eos_token") if name in tokens}
    return {
        "type": "TemplateProcessing",
        "single": [*(special(token, 0) for token in begin), *first],
        "pair": [*(special(token, 0) for token in begin), *first, *second],
        "special_tokens": {
            token: {"id": token, "ids": [number[token]], "tokens": [token]} for token in (*begin, *final)
        },
    }
