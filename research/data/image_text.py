"""Pictures with captions: one row each of pixels and of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from research.batch import Dataset, Example, Spec
from research.data.image_decoding import check_picture
from research.data.images import decode_pictures
from research.data.labelled import encode_rows
from research.data.media_sources import open_media
from research.data.media_splits import MediaPart, MediaRows, Selections
from research.data.rows import row_at, text_columns
from research.data.splits import Documents, fingerprint, hash_text, random_choice, random_cut, repeats
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import facts


@dataclass(frozen=True)
class ImageTextRows:
    """Rows of `image` and `group`, and of the caption's `tokens`, `segment_ids` (1 where real), `positions`."""

    pictures: MediaRows
    tokens: np.ndarray  # int32 [N L], 0 behind each caption
    lengths: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        return self.pictures.rows(indices) | text_columns(self.tokens[indices], self.lengths[indices])


def image_text(
    path: str,
    *,
    size: int,
    length: int,
    tokenizer: TokenizerBlock,
    channels: int = 3,
    text_fields: tuple[str, ...] = ("text",),
    image_field: str = "image",
    file_field: str = "file",
    select: tuple[str, ...] = (),
    valid_path: str = "",
    valid_split: str = "",
    valid_select: tuple[str, ...] = (),
    valid_fraction: float = 0.1,
    test_path: str = "",
    test_select: tuple[str, ...] = (),
    shift_path: str = "",
    shift_select: tuple[str, ...] = (),
    slice_fields: tuple[str, ...] = (),
    skip_undecodable: bool = False,
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """Rows of `image` uint8 [size size channels], of a caption `<bos> text <eos>`, and of `group`, equal where captions
    are.

    The caption is the texts of `text_fields` with ", " between them, lists likewise; what does not fit into `length`
    tokens is cut off, and counted. Pictures, `select` and paths as for `image_classification`; a random
    `valid_fraction` is of the pictures, so that one with several captions stays on one side. `num_labels` are pairs.

    Raises:
      ValueError: bad data, a picture that cannot be decoded or has no caption, a caption whose picture is not there, or
        the same data given for training and for evaluation.
    """
    check_picture(size, channels)
    if length < 3:
        raise ValueError(f"length={length} leaves no room for text between special tokens; use 3 or more")
    if not text_fields:
        raise ValueError("text_fields is empty; name the field that holds the captions, or several")
    selections = Selections(
        path=path,
        select=select,
        valid_path=valid_path,
        valid_split=valid_split,
        valid_select=valid_select,
        test_path=test_path,
        test_select=test_select,
        shift_path=shift_path,
        shift_select=shift_select,
    )
    opened = selections.open(
        partial(open_media, kind="image", field=image_field, file_field=file_field),
        partial(decode_pictures, size=size, channels=channels),
        skip_undecodable=skip_undecodable,
    )
    parts = _divide(opened, valid_fraction, seed)
    if num_labels:
        chosen = random_choice(len(parts["train"]), num_labels, labels_seed, parts["train"].where)
        parts["train"] = parts["train"].take(chosen, f"{num_labels} by {labels_seed}")
    captions = {name: _captions(part, text_fields) for name, part in parts.items()}
    train = parts["train"]
    documents = Documents(train.where, captions["train"], fingerprint(train.key, *text_fields))
    trained = train_tokenizer(tokenizer, [documents])
    splits, counts = {}, {}
    for name, part in parts.items():
        tokens, lengths, _, num_cut = encode_rows([(text,) for text in captions[name]], trained, length=length)
        groups = np.unique([hash_text(text) for text in captions[name]], return_inverse=True)[1].astype(np.int32)
        pictures = MediaRows("image", part.decoded.values, part.contents, {"group": groups})
        splits[name] = part.split(
            ImageTextRows(pictures, tokens, lengths),
            texts=captions[name],
            num_bytes=sum(len(text.encode()) for text in captions[name]),
            fields=part.fields(slice_fields),
        )
        counts[name] = {
            "rows": len(part),
            "pictures": len(np.unique(part.contents)),
            "distinct_captions": int(groups.max()) + 1,
            "cut_texts": num_cut,
            "tokens": int(lengths.sum()),
            "bytes": splits[name].num_bytes,
            "fill": float(lengths.mean() / length),
        }
    contents = trained.to_str()
    keys = [f"{name} {part.key}" for name, part in parts.items()]
    return Dataset(
        splits=splits,
        spec=Spec(length=length, image_size=size, num_channels=channels, **facts(trained)),
        tokenizer=contents,
        facts={
            **counts,
            "skipped": {name: part.num_skipped for name, part in opened.items()},
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, f"{size} {channels}", *text_fields, *keys),
        },
    )


def _divide(opened: dict[str, MediaPart], fraction: float, seed: int) -> dict[str, MediaPart]:
    """The parts, with a random `fraction` of the training pictures as "val" where there is none."""
    parts = dict(opened)
    if "val" not in parts:
        train = parts["train"]
        pictures, picture = np.unique(train.contents, return_inverse=True)
        _, valid = random_cut(len(pictures), fraction, seed, train.where, unit="pictures")
        chosen = np.isin(picture, valid)
        parts["train"] = train.take(np.flatnonzero(~chosen).tolist(), f"train of {fraction} by {seed}")
        parts["val"] = train.take(np.flatnonzero(chosen).tolist(), f"val of {fraction} by {seed}")
    return {name: parts[name] for name in ("train", "val", "test", "shift") if name in parts}


def _captions(part: MediaPart, text_fields: Sequence[str]) -> list[str]:
    columns = [(field, part.media.column(field)) for field in text_fields]
    captions = []
    for row in part.rows:
        pieces = []
        for field, column in columns:
            value = [] if column[row] is None else column[row]
            for piece in value if isinstance(value, list) else [value]:
                if not isinstance(piece, str):
                    raise ValueError(
                        f"{part.media.place(row)}: field {field!r} holds {piece!r}, wanted text or a list of texts; "
                        "name other text_fields"
                    )
                pieces.append(piece.strip())
        captions.append(", ".join(piece for piece in pieces if piece))
        if not captions[-1]:
            raise ValueError(
                f"{part.media.place(row)} has no caption: {' and '.join(text_fields)} hold no text; remove it, leave "
                "it out by select, or name other text_fields"
            )
    return captions
