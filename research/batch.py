"""What a batch holds: its keys, their logical axes, and the facts about a data set that constructors ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

# A key's logical axes; the sharding table (training/sharding.py) maps them to mesh axes.
AXES: dict[str, tuple[str | None, ...]] = {
    "tokens": ("batch", "length"),  # int32 [B L], 0 is padding
    "segment_ids": ("batch", "length"),  # int32 [B L], 0 where padding, 1, 2, … one per document in the row
    "positions": ("batch", "length"),  # int32 [B L], from 0 in each segment
    "token_types": ("batch", "length"),  # int32 [B L], pairs of texts only: 0 in the first, 1 in the second
    "tags": ("batch", "length"),  # int32 [B L], a word's tag at its first token, -1 elsewhere
    "pair_tokens": ("batch", "length"),  # int32 [B L]: of the second of two texts that have a row each,
    "pair_segment_ids": ("batch", "length"),  # and likewise
    "pair_positions": ("batch", "length"),
    "negative_tokens": ("batch", "length"),  # int32 [B L]: of a text that is no counterpart and looks like one,
    "negative_segment_ids": ("batch", "length"),  # and likewise
    "negative_positions": ("batch", "length"),
    "negative_group": ("batch",),  # int32 [B], equal to a `group` where the texts are equal, -1: no such text
    "group": ("batch",),  # int32 [B], equal where the second texts are, or the captions of images
    "image": ("batch", None, None, None),  # uint8 [B Y X C]
    "audio": ("batch", None),  # int16 [B T], 0 behind each clip
    "audio_length": ("batch",),  # int32 [B], samples of each clip
    "answer_mask": ("batch", "length"),  # bool [B L], where an answer may begin or end: column 0 (none) and the context
    "start": ("batch",),  # int32 [B], column of the answer's first token, 0: the row holds no answer
    "end": ("batch",),  # int32 [B], of its last
    "label": ("batch",),  # int32 [B]
    "soft_labels": ("batch", None),  # float32 [B C], a teacher's log-probabilities; training only
    "labels": ("batch", None),  # float32 [B C], several labels a row: 1 where the row has the class, else 0
    "value": ("batch",),  # float32 [B], the number to tell, in its own units
    "loss_mask": ("batch", "length"),  # bool [B L], the tokens to predict, where not all are: those of answers
    "example_id": ("batch",),  # uint32 [B], index of the example in the stream (train) or the split (evaluation)
    "example_mask": ("batch",),  # bool [B], false where the last evaluation batch is padded
}

Example = dict[str, np.ndarray]


class Source(Protocol):
    """Random access to examples: grain's protocol, which `tfds.data_source` satisfies too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Spec:
    """Facts about a data set, offered by field name to the constructors of models and objectives.

    `word_starts[token]` says that the token begins a word, `word_ends[token]` that no token may continue its word.
    """

    length: int = 0
    packed: bool = False  # rows are pieces of running text, not a text each
    vocab_size: int = 0
    pad_id: int = 0
    unk_id: int = 1
    bos_id: int = 2
    eos_id: int = 3
    mask_id: int = 4
    word_starts: np.ndarray | None = None  # bool [V]
    word_ends: np.ndarray | None = None  # bool [V]
    label_names: tuple[str, ...] = ()
    label_counts: tuple[int, ...] = ()  # training rows (or tagged words) of each class, in the order of label_names
    num_rows: int = 0  # training rows, where rows have several labels
    image_size: int = 0  # side of the square images, in pixels
    num_channels: int = 0  # of images: 1 grey, 3 red, green and blue
    sample_rate: int = 0  # of audio, in Hz
    audio_length: int = 0  # samples in a row
    target_mean: float = 0.0  # of the training split's numbers, in their own units,
    target_scale: float = 1.0  # and their standard deviation

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    def offers(self) -> dict[str, Any]:
        """The facts by name, as `build` offers them."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return named | {"num_classes": self.num_classes}


@dataclass(frozen=True)
class Question:
    """A question about a text, and the answers that are accepted; none where the text does not say."""

    id: str
    text: str
    context: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """What a row of question answering shows: part of the context of `question`, from the column `border` on."""

    question: int  # index in the split's questions
    border: int
    characters: np.ndarray  # int32 [T 2], the characters first … last - 1 of the context under each of its T tokens


@dataclass(frozen=True)
class Split:
    """One split of a data set: its rows, and the documents that they came from."""

    examples: Source  # rows, each a dict of the per-example arrays of AXES without the batch axis
    documents: Sequence[np.ndarray] = ()  # token ids of each document, <bos> first; for floors and duplicates
    texts: Sequence[str] = ()  # labelled data only: the raw text of each example, in order; of images and audio names
    pieces: Sequence[tuple[str, ...]] = ()  # labelled data only: the same, the two texts of a pair apart
    seconds: Sequence[str] = ()  # pairs of texts with a row each only: the second texts
    labels: Sequence[Any] = ()  # labelled data only: of each row a class (int), 0 or 1 for each class, or a number
    answers: Sequence[Sequence[int]] = ()  # prompts only: the token ids of each answer, uncut, <eos> last
    num_bytes: int = 0  # UTF-8 bytes of the raw text, for bits per byte
    words: Sequence[Sequence[str]] = ()  # tagged data only: the words of each example,
    tags: Sequence[Sequence[int]] = ()  # their tags,
    places: Sequence[Sequence[int]] = ()  # and where in the row each has its first token, -1: nowhere
    questions: Sequence[Question] = ()  # question answering only,
    windows: Sequence[Window] = ()  # and the window of each row
    max_answer: int = 0  # tokens of the longest answer that is looked for
    hashes: Sequence[str] = ()  # one per document, labelled row or question, to count rows shared between splits
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # of each example's record, for slices


@dataclass(frozen=True)
class Dataset:
    """What a data function returns."""

    splits: Mapping[str, Split]  # "train", "val" and, where there are any, "test" and "shift"
    spec: Spec
    tokenizer: str = ""  # contents of tokenizer.json
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # counts to print and to keep in run.json; a "fingerprint" among them
