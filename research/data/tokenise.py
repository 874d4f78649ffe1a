"""Documents tokenised once, into a flat file in a cache that is keyed by their contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from research.data.cache import make_folder, progress
from research.data.shards import TokenShards
from research.data.tokenizers import literal, special_ids

_FORMAT = "1"  # part of every key: another layout or another way to encode is another cache
_BATCH = 1 << 22  # characters encoded at a time
_PIECE = 1 << 20  # characters; a document of more than two pieces is encoded in pieces


def tokenise(texts: Sequence[str], tokenizer: Tokenizer, *, key: str, directory: Path, bos: bool = True) -> TokenShards:
    """The tokens of `texts`, from the cache in `directory` where they have been made before.

    `key` stands for the texts (their fingerprint, field and selection); the tokenizer, `bos` and the format enter by
    themselves. Documents start with <bos> (`bos`); what looks like a special token in a text is text.

    Raises:
      ValueError: the tokenizer has no <bos>, the cache cannot be written, or what it holds is damaged.
    """
    bos_id = _bos_id(tokenizer) if bos else -1
    contents = "\n".join((_FORMAT, key, tokenizer.to_str(), str(bos_id)))
    final = Path(directory) / hashlib.sha256(contents.encode()).hexdigest()[:32]
    if not final.exists():
        try:
            make_folder(final, lambda folder: _write(texts, tokenizer, bos_id=bos_id, folder=folder))
        except OSError as error:
            raise ValueError(
                f"the token cache {directory} cannot be written ({error.strerror or error}); free space there or set "
                "GROUNDWORK_CACHE to another folder"
            ) from error
    return _checked(TokenShards(final))


def _bos_id(tokenizer: Tokenizer) -> int:
    bos_id = special_ids(tokenizer)["bos_id"]
    if bos_id < 0:
        raise ValueError(
            "the tokenizer has no token that begins a document (<bos>, <s>, [CLS], …); add one to its file"
        )
    return bos_id


def _write(texts: Sequence[str], tokenizer: Tokenizer, *, bos_id: int, folder: Path) -> None:
    dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values(), default=0) < 1 << 16 else np.uint32)
    lengths, sizes = [], []
    with (folder / "tokens.bin").open("wb") as stream:
        for tokens, num_bytes, first in _encode(texts, tokenizer, bos_id=bos_id):
            stream.write(np.array(tokens, dtype=dtype).tobytes())
            if first:
                lengths.append(0)
                sizes.append(0)
            lengths[-1] += len(tokens)
            sizes[-1] += num_bytes
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "bytes.npy", np.array(sizes, dtype=np.int64))
    meta = {"dtype": dtype.name, "num_documents": len(lengths), "num_tokens": int(offsets[-1])}
    (folder / "meta.json").write_text(json.dumps(meta) + "\n")


def _encode(texts: Sequence[str], tokenizer: Tokenizer, *, bos_id: int) -> Iterator[tuple[list[int], int, bool]]:
    """The tokens of each piece of text, its UTF-8 bytes, and whether a document begins with it."""
    tokenizer = literal(tokenizer)
    start = [bos_id] if bos_id >= 0 else []
    with progress("tokenising", len(texts), "documents") as advance:
        for batch in _batches(_pieces(texts, cut=_cuttable(tokenizer))):
            encodings = tokenizer.encode_batch_fast([piece for piece, _ in batch], add_special_tokens=False)
            for (piece, first), encoding in zip(batch, encodings, strict=True):
                yield start * first + encoding.ids, len(piece.encode()), first
            advance(sum(first for _, first in batch))


def _pieces(texts: Sequence[str], *, cut: bool) -> Iterator[tuple[str, bool]]:
    for text in texts:
        for number, piece in enumerate(_cut(text) if cut else (text,)):
            yield piece, number == 0


def _batches(pieces: Iterator[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[0]) + 64  # of many empty texts, too, not all at once
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cut(text: str) -> Iterator[str]:
    """A long text in pieces that encode as the whole does: cut behind a newline that stands between two letters.

    The library needs about a hundred times the memory of the text it encodes, and encodes one text on one core.
    """
    start = 0
    while len(text) - start > 2 * _PIECE:
        end = text.find("\n", start + _PIECE)
        while end != -1 and not (text[end - 1].isalnum() and text[end + 1 : end + 2].isalnum()):
            end = text.find("\n", end + 1)
        if end == -1:
            break
        yield text[start : end + 1]
        start = end + 1
    yield text[start:]


def _cuttable(tokenizer: Tokenizer) -> bool:
    """Whether a text may be cut behind a newline: not where a tokenizer marks the beginning of a text."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    return ids("one\ntwo") == ids("one\n") + ids("two")


def _checked(shards: TokenShards) -> TokenShards:
    try:
        meta = json.loads((shards.directory / "meta.json").read_text())
        complete = (
            len(shards) == len(shards.document_bytes) == meta["num_documents"]
            and shards.num_tokens == meta["num_tokens"]
            and (shards.directory / "tokens.bin").stat().st_size
            == meta["num_tokens"] * np.dtype(meta["dtype"]).itemsize
        )
    except (OSError, ValueError, KeyError, EOFError):
        complete = False
    if not complete:
        raise ValueError(f"the token cache {shards.directory} is damaged; delete that folder and start again")
    return shards
