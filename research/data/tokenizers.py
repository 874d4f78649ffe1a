"""Tokenizers trained here, the same from run to run, and what models and masks must know of any tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>")  # ids 0 to 4 in every tokenizer trained here

# What other people's files call them; the first that a file has is the one.
_NAMES = {
    "pad_id": ("<pad>", "[PAD]", "<|pad|>"),
    "unk_id": ("<unk>", "[UNK]"),
    "bos_id": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos_id": ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "mask_id": ("<mask>", "[MASK]"),
}

# Scripts without spaces, in which a character counts as a word: Han, Hiragana and Katakana with their marks.
_UNSPACED = (
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_UNSPACED_PATTERN = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED) + "]"
_UNSPACED_CHARACTER = re.compile(_UNSPACED_PATTERN)


class Trainer(Protocol):
    """Makes a tokenizer from the texts of the training split: equal texts and arguments, equal tokenizer.json."""

    def train(self, texts: Iterable[str]) -> Tokenizer: ...

    def key(self) -> str:
        """What, beside the texts, decides the tokenizer: part of the cache's key."""
        ...


@dataclass(frozen=True)
class Byte:
    """One token per UTF-8 byte: nothing is learned, nothing is unknown, decoding is exact."""

    def train(self, texts: Iterable[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE(vocab=_numbered(_byte_alphabet()), merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        return _with_special_tokens(tokenizer)

    def key(self) -> str:
        return _key(self)


@dataclass(frozen=True)
class Character:
    """One token per character seen in training; the most frequent, where `vocab_size` has no room for all."""

    vocab_size: int = 65_535

    def train(self, texts: Iterable[str]) -> Tokenizer:
        _room(self.vocab_size, len(SPECIAL_TOKENS) + 1, "character")
        counts = _count_characters(_texts(texts))
        kept = _most_frequent(counts, self.vocab_size - len(SPECIAL_TOKENS))
        # A BPE without merges keeps the document whole; a Split at every character is ten times slower.
        tokenizer = Tokenizer(models.BPE(vocab=_numbered(kept), merges=[], unk_token="<unk>"))
        tokenizer.decoder = decoders.Fuse()
        return _with_special_tokens(tokenizer)

    def key(self) -> str:
        return _key(self)


@dataclass(frozen=True)
class BytePair:
    """Byte-level BPE (GPT-2's pre-tokenisation); no token spans two characters of Chinese or Japanese."""

    vocab_size: int = 8192

    def train(self, texts: Iterable[str]) -> Tokenizer:
        alphabet = _byte_alphabet()
        _room(self.vocab_size, len(SPECIAL_TOKENS) + len(alphabet), "bpe")
        texts = _texts(texts)
        tokenizer = Tokenizer(models.BPE())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = byte_level
        # Without such text no merge crosses its characters anyway, and encoding is a third faster.
        if any(not text.isascii() and _UNSPACED_CHARACTER.search(text) for text in texts):
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_isolate_unspaced(), byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer, length=len(texts))
        # A word's token holds the space before it, so a mask that stands for it takes the space too (as RoBERTa's).
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        return tokenizer

    def key(self) -> str:
        return _key(self)


@dataclass(frozen=True)
class WordPiece:
    """BERT's tokenizer: words split off at spaces and punctuation, cut by longest match, continuations marked `##`.

    The vocabulary comes from BPE, since WordPiece training differs from run to run. Accents stay, with `lowercase` too:
    to strip them takes the voicing marks off Japanese.
    """

    vocab_size: int = 8192
    lowercase: bool = False

    def train(self, texts: Iterable[str]) -> Tokenizer:
        texts = _texts(texts)
        normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=self.lowercase
        )
        pre_tokenizer = pre_tokenizers.Sequence([_isolate_unspaced(), pre_tokenizers.BertPreTokenizer()])
        alphabet, continuations = self._alphabet(texts, normalizer, pre_tokenizer)
        _room(self.vocab_size, len(SPECIAL_TOKENS) + 1, "wordpiece")

        pairs = Tokenizer(models.BPE(continuing_subword_prefix="##"))
        pairs.normalizer, pairs.pre_tokenizer = normalizer, pre_tokenizer
        # Given as special tokens the continuing characters have fixed ids; left to the trainer, they (and the merges)
        # follow the order of a hash map.
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=[*SPECIAL_TOKENS, *continuations],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            continuing_subword_prefix="##",
            show_progress=False,
        )
        pairs.train_from_iterator(texts, trainer, length=len(texts))

        tokenizer = Tokenizer(
            models.WordPiece(vocab=pairs.get_vocab(), unk_token="<unk>", continuing_subword_prefix="##")
        )
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        return _with_special_tokens(tokenizer)

    def key(self) -> str:
        return _key(self)

    def _alphabet(self, texts: Sequence[str], normalizer: Any, pre_tokenizer: Any) -> tuple[list[str], list[str]]:
        """The characters of the normalised texts, and with `##` those within words: up to 4/5 of the vocabulary."""
        counts: Counter[str] = Counter()
        for character, count in _count_characters(texts).items():  # the normaliser works character by character
            for piece in normalizer.normalize_str(character):
                counts[piece] += count
        room = (self.vocab_size - len(SPECIAL_TOKENS)) * 4 // 5
        alphabet, continuations = [], []
        for character in _most_frequent(counts, room):
            pieces = pre_tokenizer.pre_tokenize_str("a" + character)
            if len(pieces) == 1 and pieces[0][0] == "a":  # white space
                continue
            alphabet.append(character)
            if len(pieces) == 1:
                continuations.append("##" + character)
            if len(alphabet) + len(continuations) >= room:
                break
        return sorted(alphabet), sorted(continuations)


@dataclass(frozen=True)
class File:
    """A given `tokenizer.json`, or the folder that holds one; nothing is trained."""

    path: str

    def train(self, texts: Iterable[str]) -> Tokenizer:
        try:
            return from_json(self._contents())
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def key(self) -> str:
        return "file " + hashlib.sha256(self._contents().encode()).hexdigest()

    def _contents(self) -> str:
        place = Path(self.path).expanduser()
        place = place / "tokenizer.json" if place.is_dir() else place
        if not place.is_file():
            raise ValueError(
                f"tokenizer.path={self.path}: there is no file {place}; give a tokenizer.json or its folder"
            )
        try:
            return place.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: not UTF-8 at byte offset {error.start}; give a tokenizer.json") from error


TOKENIZERS = {"byte": Byte, "character": Character, "bpe": BytePair, "wordpiece": WordPiece, "file": File}


def from_json(contents: str) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, which neither cuts nor pads: files of sentence encoders say so, and that
    would lose the rest of every document, and let padding be read as text.

    Raises:
      ValueError: the contents are not such a file.
    """
    wanted = "wanted the tokenizer.json that the tokenizers package writes"
    try:
        parsed = json.loads(contents)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON (line {error.lineno}: {error.msg}); {wanted}") from error
    if not isinstance(parsed, dict) or "model" not in parsed:
        raise ValueError(f"JSON without a tokenizer model; {wanted}")
    try:
        tokenizer = Tokenizer.from_str(contents)
    except Exception as error:  # the library raises nothing more particular
        raise ValueError(f"not a tokenizer ({error}); {wanted}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a Spec holds of a tokenizer: `vocab_size`, `word_starts` and `word_ends` (bool [V]), and the special ids.

    A word starts at token i where `word_starts[token_i]` or `word_ends[token_(i-1)]`. Letters, digits and combining
    marks continue a word; anything else, and each Chinese or Japanese character, is a word of its own.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    vocab_size = max(vocabulary.values(), default=-1) + 1  # a given file may leave ids out
    special = {added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special}
    special.update(SPECIAL_TOKENS)
    spell = _speller(json.loads(tokenizer.to_str()))
    starts, ends = np.ones(vocab_size, dtype=bool), np.ones(vocab_size, dtype=bool)
    for token, index in vocabulary.items():
        if token not in special:
            starts[index], ends[index] = spell(token)
    return {"vocab_size": vocab_size, "word_starts": starts, "word_ends": ends, **special_ids(tokenizer)}


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """`pad_id`, `unk_id`, `bos_id`, `eos_id` and `mask_id`; -1 for one that a given file lacks."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ids = {}
    for name, spellings in _NAMES.items():
        ids[name] = next((vocabulary[spelling] for spelling in spellings if spelling in vocabulary), -1)
    return ids


Frame = tuple[list[int], list[int], list[int]]  # before a row's text, between the two of a pair, after the last


def frame(tokenizer: Tokenizer, *, pair: bool = False) -> Frame:
    """The special ids of the rows that are trained on: `<bos> text <eos>`, and `<bos> text <eos> pair <eos>` with as
    many <eos> between as a given file's post-processor writes (RoBERTa was trained with two), less what the tokenizer
    lacks.
    """
    ids = special_ids(tokenizer)
    bos, eos = ([ids[name]] if ids[name] >= 0 else [] for name in ("bos_id", "eos_id"))
    if not pair:
        return bos, [], eos
    between = [] if tokenizer.post_processor is None else own_frame(tokenizer, pair=True)[1]
    return bos, between if set(between) == set(eos) else eos, eos


def own_frame(tokenizer: Tokenizer, *, pair: bool = False) -> Frame:
    """The special ids that a given file's post-processor writes, which published weights were trained with (GPT-2's
    writes none); as `frame` where it has no post-processor."""
    if tokenizer.post_processor is None:
        return frame(tokenizer, pair=pair)
    text = next(token for token in tokenizer.get_vocab() if tokenizer.encode(token, add_special_tokens=False).ids)
    encoding = tokenizer.encode(text, text) if pair else tokenizer.encode(text)
    real = [index for index, of_text in enumerate(encoding.sequence_ids) if of_text is not None]
    inner = [encoding.ids[index] for index in range(real[0], real[-1]) if index not in real]
    return encoding.ids[: real[0]], inner, encoding.ids[real[-1] + 1 :]


def literal(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that cuts and fills nothing, and for which what looks like a special token in a text is text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    copy.no_truncation()
    copy.no_padding()
    return copy


# Where words begin and end.

# The leads of UTF-8 characters, cut short, that can be no letter of a spaced script: U+0080 (punctuation), U+2000 to
# U+9FFF, private use and wide forms, and all beyond U+FFFF.
_STARTING_LEADS = frozenset({0xC2, *range(0xE2, 0xEA), 0xEE, 0xEF, *range(0xF0, 0xF5)})


def _speller(settings: Mapping[str, Any]) -> Callable[[str], tuple[bool, bool]]:
    """A function from a token to (starts a word, ends its word), for the kind of tokenizer that `settings` says."""
    model, parts = settings["model"], json.dumps([settings.get("pre_tokenizer"), settings.get("decoder")])
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    to_byte = {character: byte for byte, character in _byte_characters().items()}
    byte_level, metaspace = '"ByteLevel"' in parts, '"Metaspace"' in parts or "\u2581" in parts

    def spell(token: str) -> tuple[bool, bool]:
        if prefix and token.startswith(prefix):
            return False, _ends(token.removeprefix(prefix).encode())
        if suffix and token.endswith(suffix):
            return _begins(token.removesuffix(suffix).encode()), True
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            data = bytes([int(token[3:5], 16)])
        elif byte_level and all(character in to_byte for character in token):
            data = bytes(to_byte[character] for character in token)
        else:
            data = (token.replace("\u2581", " ") if metaspace else token).encode()
        return bool(prefix) or _begins(data), _ends(data)

    return spell


def _begins(data: bytes) -> bool:
    """Whether a word begins with these bytes, which may begin or end within a character."""
    if not data or 0x80 <= data[0] < 0xC0:
        return False
    first = data[: _width(data[0])]
    if len(first) < _width(data[0]):
        return data[0] in _STARTING_LEADS
    return not _continues(first.decode("utf-8", errors="replace"))


def _ends(data: bytes) -> bool:
    lead = len(data) - 1
    while lead >= 0 and 0x80 <= data[lead] < 0xC0:
        lead -= 1
    if lead < 0 or len(data) - lead < _width(data[lead]):
        return False
    return not _continues(data[lead:].decode("utf-8", errors="replace"))


def _width(lead: int) -> int:
    """How many bytes the UTF-8 character takes that begins with `lead`."""
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _continues(character: str) -> bool:
    if _UNSPACED_CHARACTER.match(character):
        return False
    return character.isalnum() or unicodedata.category(character[:1] or " ").startswith("M")


# Building.


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate((*SPECIAL_TOKENS, *tokens))}


def _isolate_unspaced() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_UNSPACED_PATTERN), behavior="isolated")


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _byte_alphabet() -> list[str]:
    characters = _byte_characters()
    return [characters[byte] for byte in range(256)]


def _texts(texts: Iterable[str]) -> Sequence[str]:
    """The texts as something that can be read twice, and holds some text."""
    texts = texts if isinstance(texts, Sequence) and not isinstance(texts, str) else list(texts)
    if not any(text.strip() for text in texts):
        raise ValueError("the tokenizer was given no text to train on; check data.path and data.text_field")
    return texts


def _count_characters(texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


def _most_frequent(counts: Mapping[str, int], room: int) -> list[str]:
    """The `room` most frequent characters in code point order; between equals the lower code point stays."""
    return sorted(sorted(counts, key=lambda character: (-counts[character], character))[:room])


def _room(vocab_size: int, least: int, kind: str) -> None:
    if vocab_size < least:
        raise ValueError(f"tokenizer.vocab_size={vocab_size} is too small for {kind}; use {least} or more")


def _key(trainer: Any) -> str:
    return f"{type(trainer).__name__} {json.dumps(asdict(trainer), sort_keys=True)} 1"
