"""Text for language modelling: documents tokenised once, then packed into rows or read as windows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Source, Spec, Split
from research.build import Block, build
from research.data.cache import cache_directory, write_whole
from research.data.packed_rows import PackedRows
from research.data.packing import PLAN, RowTable, alone, plan
from research.data.rows import Joined, Mixture
from research.data.shards import TokenShards
from research.data.sources import Records
from research.data.splits import (
    Documents,
    all_documents,
    cut_documents,
    fingerprint,
    hash_text,
    open_splits,
    repeats,
)
from research.data.tokenise import tokenise
from research.data.tokenizers import TOKENIZERS, facts, from_json
from research.data.windows import Windows

TokenizerBlock = Annotated[Mapping, Block("tokenizer", TOKENIZERS)]
Packing = Literal["documents", "windows", "alone"]


@dataclass(frozen=True)
class _Part:
    """One source of one split, ready to read, and what is counted of it."""

    examples: PackedRows | Windows
    shards: TokenShards
    hashes: Sequence[str]
    num_dropped: int


def text(
    path: str | tuple[str, ...],
    *,
    length: int,
    tokenizer: TokenizerBlock,
    text_field: str = "text",
    weights: tuple[float, ...] = (),
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.05,
    test_path: str = "",
    packing: Packing = "documents",
    stride: int = 0,
    seed: int = 0,
) -> Dataset:
    """Rows of `length` tokens from whole documents (`packing="documents"`), from all documents joined ("windows"), or
    from one document each, of which is cut off what does not fit ("alone").

    Validation data are `valid_path`, else the named split `valid_split` of `path`, else the last `valid_fraction` of
    the documents; of a single document, of its characters. Several paths are a mixture: training draws from them by
    `weights` (equal where none are given), and the validation data of all of them are read one after the other.
    `stride` is the distance of training windows (0: length - 1); evaluation predicts every token once.

    Raises:
      ValueError: bad data, or the same data given for training and for evaluation.
    """
    paths = (path,) if isinstance(path, str) else tuple(path)
    weights = weights or (1.0,) * len(paths)
    if not paths or len(weights) != len(paths):
        raise ValueError(f"weights={tuple(weights)} for the paths {paths}; give a path or more, and each one weight")
    if stride and packing != "windows":
        raise ValueError(f"stride={stride} is the distance of windows; leave it out, or set packing to windows")
    records = open_splits(
        paths, fields=(text_field,), valid_path=valid_path, valid_split=valid_split, test_path=test_path
    )
    documents = _documents(records, text_field, valid_fraction)
    trained = train_tokenizer(tokenizer, documents["train"])
    splits, counts = {}, {}
    for name, sources in documents.items():
        train = name == "train"
        parts = []
        for source in sources:
            step = stride if train else 0
            part = _part(source, trained, length=length, packing=packing, stride=step, seed=seed)
            if not len(part.examples):
                raise ValueError(
                    f"the {name} split has no rows: nothing in the {len(source)} documents from {source.where} can be "
                    "predicted; give more text, or another valid_fraction"
                )
            parts.append(part)
        splits[name] = _split(parts, weights if train else (), packing)
        counts[name] = _counts(parts, length)
    contents = trained.to_str()
    keys = [f"{name} {source.key}" for name, sources in documents.items() for source in sources]
    return Dataset(
        splits=splits,
        spec=Spec(length=length, packed=packing != "alone", **facts(trained)),
        tokenizer=contents,
        facts={
            **counts,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, *keys),
        },
    )


def train_tokenizer(block: Mapping[str, Any], documents: Sequence[Documents]) -> Tokenizer:
    """The tokenizer of a block, trained on `documents` or taken from the cache where the same was trained before."""
    trainer = build(block, TOKENIZERS, kind="tokenizer")
    name = fingerprint(trainer.key(), *(part.key for part in documents))
    cached = cache_directory() / "tokenizers" / f"{name}.json"
    if not cached.exists():
        write_whole(cached, trainer.train(_joined(documents)).to_str())
    return from_json(cached.read_text(encoding="utf-8"))


def _documents(
    records: Mapping[str, Sequence[Records]], text_field: str, valid_fraction: float
) -> dict[str, list[Documents]]:
    """The documents of each split: one `Documents` for each of its sources."""
    documents = {name: [all_documents(part, text_field) for part in parts] for name, parts in records.items()}
    if "val" not in records:
        cuts = [cut_documents(part, text_field, fraction=valid_fraction) for part in records["train"]]
        documents |= {"train": [train for train, _ in cuts], "val": [valid for _, valid in cuts]}
    return {name: documents[name] for name in ("train", "val", "test") if name in documents}


def _split(parts: Sequence[_Part], weights: Sequence[float], packing: Packing) -> Split:
    """`weights` makes a mixture of the parts; without, they are read one after the other."""
    sources = [part.examples for part in parts]
    examples: Source = sources[0]
    if len(parts) > 1:
        examples = Mixture(sources, weights) if weights else Joined(sources)
    return Split(
        examples=examples,
        documents=_joined([part.shards for part in parts]),
        # Of documents that are cut, the bytes behind the predicted tokens are not known.
        num_bytes=0 if packing == "alone" else sum(part.shards.num_bytes for part in parts),
        hashes=_joined([part.hashes for part in parts]),
    )


def _counts(parts: Sequence[_Part], length: int) -> dict[str, float]:
    num_rows = sum(len(part.examples) for part in parts)
    num_filled = sum(part.examples.num_filled for part in parts)
    return {
        "documents": sum(len(part.shards) for part in parts),
        "dropped_documents": sum(part.num_dropped for part in parts),
        "tokens": sum(part.shards.num_tokens for part in parts),
        "bytes": sum(part.shards.num_bytes for part in parts),
        "rows": num_rows,
        "fill": num_filled / (num_rows * length),
    }


def _part(
    documents: Documents, tokenizer: Tokenizer, *, length: int, packing: Packing, stride: int, seed: int
) -> _Part:
    """Tokenises documents and plans their rows, or takes both from the cache."""
    shards = tokenise(documents, tokenizer, key=documents.key, directory=cache_directory() / "tokens")
    hashes = _hashes(documents, shards.directory / "hashes.json")
    if packing == "windows":
        return _Part(Windows(shards, length=length, stride=stride), shards, hashes, num_dropped=0)
    if packing == "alone":
        table = alone(np.diff(shards.offsets), length=length)
        kept = [hashes[document] for document in table.piece_document]
        return _Part(PackedRows(shards, table), shards, kept, num_dropped=table.num_dropped)
    table = _table(shards, shards.directory / f"rows-{PLAN}-{length}-{seed}.npz", length=length, seed=seed)
    return _Part(PackedRows(shards, table), shards, hashes, num_dropped=table.num_dropped)


def _table(shards: TokenShards, cached: Path, *, length: int, seed: int) -> RowTable:
    if not cached.exists():
        plan(np.diff(shards.offsets), length=length, seed=seed).save(cached)
    return RowTable.load(cached)


def _hashes(documents: Documents, cached: Path) -> list[str]:
    if not cached.exists():
        write_whole(cached, json.dumps([hash_text(document) for document in documents]))
    return json.loads(cached.read_text())


def _joined(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else Joined(parts)
