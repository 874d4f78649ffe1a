"""What a run will really see, in numbers and in words: splits, tokens, lengths, repeats, and a batch read back."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Spec, Split
from research.data import embedded, embedded_images
from research.data.files import find_files
from research.data.media import SUFFIXES
from research.data.rows import read_rows

_CHUNK = 1 << 22  # tokens counted at a time
_ROWS = 1024  # rows read at a time
_SAMPLED_ROWS = 4096  # rows whose fill is looked at, evenly spread
_NO_FILES = ("embedded", "tfds:")
_MEDIA = {suffix for kind in SUFFIXES.values() for suffix in kind}


def describe_files(path: str | Sequence[str]) -> list[dict[str, Any]]:
    """What each path of a data block names: its files with their bytes, or the counts of embedded data."""
    found = []
    for each in (path,) if isinstance(path, str) else tuple(path):
        about: dict[str, Any] = {"path": each}
        if each.startswith("embedded"):
            name, _, split = each.removesuffix("]").partition("[")
            name = name.partition(":")[2] or "corpus"
            pictures = name in embedded_images.EMBEDDED
            counts = embedded_images.describe(name) if pictures else embedded.describe(name)
            about["counts"] = (
                counts
                if pictures
                else {key: count for key, count in counts.items() if key.startswith(f"{split or 'train'}/")}
            )
        elif not each.startswith(_NO_FILES) and not (Path(each.partition("[")[0]) / "dataset_info.json").exists():
            about["files"] = {str(file): file.stat().st_size for file in _files_of(each)}
        found.append(about)
    return found


def _files_of(path: str) -> list[Path]:
    """Those that `find_files` would read as text; of a folder of pictures or recordings, all of them."""
    if Path(path).suffix in (".npz", ".tar"):
        return sorted(map(Path, glob.glob(path)))
    if Path(path).is_dir() and any(file.suffix.lower() in _MEDIA for file in Path(path).rglob("*")):
        return sorted(file for file in Path(path).rglob("*") if file.is_file())
    return find_files(path)


def describe_split(split: Split, spec: Spec) -> dict[str, Any]:
    """Counts of one split.

    "lengths" are the tokens of each document (or labelled row) in bins [from, to, count] that double; "unknown" is the
    share of <unk>; "fill" the share of a row that holds tokens, over a sample of rows, "fill_tenths" how many rows of
    the sample are in each tenth of it.
    """
    counts = count_tokens(split, spec)
    num_tokens = int(counts.sum())
    lengths = document_lengths(split)
    fill, segments = _sample_rows(split)
    about: dict[str, Any] = {
        "rows": len(split.examples),
        "documents": len(lengths),
        "tokens": num_tokens,
        "bytes": split.num_bytes,
        "bytes_per_token": split.num_bytes / max(num_tokens, 1),
        "unknown": float(counts[spec.unk_id] / max(num_tokens, 1)) if spec.unk_id >= 0 else 0.0,
        "lengths": histogram(lengths),
        "longest": int(lengths.max(initial=0)),
        "fill": float(fill.mean()),
        "fill_tenths": np.histogram(fill, bins=10, range=(0.0, 1.0))[0].tolist(),
        "segments_per_row": float(segments.mean()),
    }
    labels = np.asarray(split.labels)
    if labels.size and np.issubdtype(labels.dtype, np.integer):  # of numbers nothing is counted
        counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=spec.num_classes)
        about["labels"] = dict(zip(spec.label_names, counts.tolist(), strict=True))
    return about


def describe_tokens(dataset: Dataset, tokenizer: Tokenizer, *, most: int = 20) -> dict[str, Any]:
    """The most frequent tokens of the training split, and how many of the vocabulary it never uses."""
    counts = count_tokens(dataset.splits["train"], dataset.spec)
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")[:most]
    frequent = [
        {"id": int(i), "token": spell(tokenizer, [int(i)]), "count": int(counts[i]), "share": float(counts[i] / total)}
        for i in order
        if counts[i]
    ]
    return {"vocab_size": dataset.spec.vocab_size, "never_used": int((counts == 0).sum()), "most_frequent": frequent}


def describe_repeats(dataset: Dataset, tokenizer: Tokenizer, *, most: int = 5) -> dict[str, Any]:
    """Rows that splits share, texts that training holds more than once, and the most repeated of these."""
    train = dataset.splits["train"]
    first = {}
    for index, hashed in enumerate(train.hashes):
        first.setdefault(hashed, index)
    times = Counter(hashed for hashed in train.hashes if hashed)
    repeated = [
        {"times": count, "text": _text_of(train, first[hashed], tokenizer)}
        for hashed, count in times.most_common(most)
        if count > 1
    ]
    return {
        "shared_rows": dict(dataset.facts.get("shared_rows", {})),
        "duplicates_in_train": sum(count - 1 for count in times.values()),
        "most_repeated": repeated,
    }


def describe_rows(
    batch: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    spec: Spec,
    *,
    rows: Sequence[int],
    seen: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Rows of a batch, read back: for each segment the positions that it takes, its text, and its targets; and the
    label, or the answer to a question ("": not here).

    `seen` [B L] are the tokens that the model is shown in place of the batch's own, `chosen` [B L] says which of them
    it must tell: {"target", "seen"} for each. Without them no targets are listed.
    """
    found = []
    for row in rows:
        segments = batch["segment_ids"][row]
        shown = batch["tokens"][row] if seen is None else seen[row]
        about: dict[str, Any] = {"row": int(row), "segments": [], "padding": int((segments == 0).sum())}
        if "label" in batch:
            about["label"] = spec.label_names[int(batch["label"][row])]
        if "labels" in batch:
            about["label"] = ", ".join(spec.label_names[index] for index in np.flatnonzero(batch["labels"][row]))
        if "value" in batch:
            about["label"] = float(batch["value"][row])
        if "start" in batch:
            first, last = int(batch["start"][row]), int(batch["end"][row])
            about["answer"] = spell(tokenizer, batch["tokens"][row][first : last + 1].tolist()) if first else ""
        for segment in range(1, int(segments.max(initial=0)) + 1):
            at = np.flatnonzero(segments == segment)
            part: dict[str, Any] = {
                "first": int(at[0]),
                "last": int(at[-1]),
                "text": spell(tokenizer, shown[at].tolist()),
            }
            if "loss_mask" in batch:
                part["answer"] = spell(tokenizer, batch["tokens"][row][at][batch["loss_mask"][row][at]].tolist())
            if chosen is not None:
                told = [(batch["tokens"][row][i], shown[i]) for i in at if chosen[row][i]]
                part["targets"] = [
                    {"target": spell(tokenizer, [int(target)]), "seen": spell(tokenizer, [int(instead)])}
                    for target, instead in told
                ]
            about["segments"].append(part)
        found.append(about)
    return found


def count_tokens(split: Split, spec: Spec) -> np.ndarray:
    """How often each token occurs in the documents (in the rows, where there are none): int64 [V]."""
    counts = np.zeros(spec.vocab_size, np.int64)
    for tokens in _token_chunks(split):
        counts += np.bincount(tokens, minlength=spec.vocab_size)
    return counts


def document_lengths(split: Split) -> np.ndarray:
    """Tokens of each document with its <bos>, or of each labelled row: int64 [N]."""
    if len(split.documents):
        parts = [
            np.diff(part.offsets) if hasattr(part, "offsets") else [len(document) for document in part]
            for part in _parts(split)
        ]
    else:
        batches = _row_batches(split, np.arange(len(split.examples)))
        parts = [(batch["segment_ids"] > 0).sum(axis=1) for batch in batches]
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


def histogram(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """[from, to, count] with bins 1-1, 2-3, 4-7, … (0-0 where something is empty)."""
    bins = np.frexp(lengths.astype(np.float64))[1]  # 0 for 0, else 1 + floor(log2)
    counts = np.bincount(bins) if len(bins) else np.zeros(0, np.int64)
    edges = [(0, 0)] + [(1 << (power - 1), (1 << power) - 1) for power in range(1, len(counts))]
    first = int(np.argmax(counts > 0)) if counts.any() else 0
    return [(*edge, int(count)) for edge, count in zip(edges[first:], counts[first:], strict=False)]


def spell(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Tokens as text, special ones written out."""
    return tokenizer.decode(list(tokens), skip_special_tokens=False)


def _token_chunks(split: Split) -> Iterator[np.ndarray]:
    if not len(split.documents):
        for batch in _row_batches(split, np.arange(len(split.examples))):
            yield batch["tokens"][batch["segment_ids"] > 0]
        return
    for part in _parts(split):
        if hasattr(part, "tokens"):  # all documents end to end: no loop over them
            for start in range(0, len(part.tokens), _CHUNK):
                yield np.asarray(part.tokens[start : start + _CHUNK])
        else:
            yield from part


def _parts(split: Split) -> Sequence[Any]:
    """The sequences that `documents` joins."""
    return getattr(split.documents, "parts", (split.documents,))


def _row_batches(split: Split, indices: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(indices), _ROWS):
        yield read_rows(split.examples, indices[start : start + _ROWS])


def _sample_rows(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The share of each sampled row that holds tokens, and its number of segments."""
    num_rows = len(split.examples)
    indices = np.unique(np.linspace(0, num_rows - 1, min(num_rows, _SAMPLED_ROWS)).astype(np.int64))
    found = [batch["segment_ids"] for batch in _row_batches(split, indices)]
    segments = np.concatenate(found)
    return (segments > 0).mean(axis=1), segments.max(axis=1)


def _text_of(split: Split, index: int, tokenizer: Tokenizer, most: int = 32) -> str:
    if len(split.texts):
        return split.texts[index]
    return spell(tokenizer, split.documents[index][:most].tolist())
