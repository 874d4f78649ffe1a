"""Pictures of characters with their Unicode names, drawn from the typefaces that matplotlib brings along.

One image is one character in one face: dark on white, antialiased, 32 x 32. All glyphs of a face are drawn by one rule,
so that size and height tell a comma from an apostrophe and `c` from `C`: a capital H is 18 pixels high and stands on
row 24, a glyph is centred from left to right, and one that would leave the frame is made smaller until it fits.

A character is left out in a face that has no glyph for it or a blank one, and where Python's `unicodedata` has no name.

Splits. A hash of the character gives 80 % to training, 5 % to validation and 15 % to the test; STIX is the typeface
that no training image is of:

  train                 characters of training in DejaVu
  val                   characters of validation in DejaVu
  test                  unseen characters in the unseen typeface: characters of the test in STIX
  test_seen_face        characters of the test in DejaVu
  test_seen_characters  characters of training in STIX; those that DejaVu has too

Characters that any face draws alike (Latin, Greek and Cyrillic A) are hashed as one, so that no character of val or
test is seen in training under another name. Outside train, an image that equals one of train, or that of another
character of its split, is left out: its name would be known, or could not be told. Within train such images stay (they
are two names of one picture); images that agree in character and in every pixel stand once in a split.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import unicodedata
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.data.cache import cache_directory

SIZE = 32
SPLITS = ("train", "val", "test", "test_seen_face", "test_seen_characters")
HELD_BACK = "STIX"

_CAPITAL = 18  # height of a capital H, in pixels
_BASELINE = 24  # the row that it stands on
_MARGIN = 1


class Face(NamedTuple):
    """One font file; `style` is serif, sans or mono, then its weight and slant."""

    file: str
    typeface: str
    style: str

    @property
    def name(self) -> str:
        return " ".join([self.typeface, *(word for word in self.style.split()[1:] if word != "regular")])


FACES = (
    Face("DejaVuSans.ttf", "DejaVu Sans", "sans regular"),
    Face("DejaVuSans-Bold.ttf", "DejaVu Sans", "sans bold"),
    Face("DejaVuSans-Oblique.ttf", "DejaVu Sans", "sans oblique"),
    Face("DejaVuSans-BoldOblique.ttf", "DejaVu Sans", "sans bold oblique"),
    Face("DejaVuSansMono.ttf", "DejaVu Sans Mono", "mono regular"),
    Face("DejaVuSansMono-Bold.ttf", "DejaVu Sans Mono", "mono bold"),
    Face("DejaVuSansMono-Oblique.ttf", "DejaVu Sans Mono", "mono oblique"),
    Face("DejaVuSansMono-BoldOblique.ttf", "DejaVu Sans Mono", "mono bold oblique"),
    Face("DejaVuSerif.ttf", "DejaVu Serif", "serif regular"),
    Face("DejaVuSerif-Bold.ttf", "DejaVu Serif", "serif bold"),
    Face("DejaVuSerif-Italic.ttf", "DejaVu Serif", "serif italic"),
    Face("DejaVuSerif-BoldItalic.ttf", "DejaVu Serif", "serif bold italic"),
    Face("STIXGeneral.ttf", "STIX", "serif regular"),
    Face("STIXGeneralBol.ttf", "STIX", "serif bold"),
    Face("STIXGeneralItalic.ttf", "STIX", "serif italic"),
    Face("STIXGeneralBolIta.ttf", "STIX", "serif bold italic"),
)

# Names that begin with one of these belong to a script or a set of signs called so.
_FIRST_WORDS = frozenset(
    ("apl", "arabic", "armenian", "box", "braille", "canadian", "combining", "coptic", "cyrillic", "domino", "georgian")
    + ("greek", "hebrew", "hexagram", "lao", "latin", "lisu", "mathematical", "modifier", "nko", "ogham", "old")
    + ("playing", "tetragram", "tifinagh")
)
_CATEGORIES = {"L": "letter", "M": "mark", "N": "number", "P": "punctuation", "Sc": "currency", "Sm": "mathematical"}


@dataclass(frozen=True)
class Glyphs(Sequence[dict[str, Any]]):
    """The records of one split, made when asked for; the images are mapped from the cache's file.

    A record: {"image" uint8 [Y X 1], "name" in lower case, "character", "codepoint", "face", "typeface", "style",
    "script"}.
    """

    images: np.ndarray  # uint8 [N Y X 1]
    codepoints: np.ndarray  # int32 [N]
    faces: np.ndarray  # uint8 [N], places in FACES

    def __len__(self) -> int:
        return len(self.codepoints)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        codepoint, face = int(self.codepoints[index]), FACES[self.faces[index]]
        character = chr(codepoint)
        name = unicodedata.name(character).lower()
        return {
            "image": np.array(self.images[index]),
            "name": name,
            "character": character,
            "codepoint": codepoint,
            "face": face.name,
            "typeface": face.typeface,
            "style": face.style,
            "script": script(character),
        }


def glyphs(split: str) -> Glyphs:
    """One of `SPLITS`, drawn the first time that any is asked for and kept in the cache directory."""
    images, codepoints, faces, meta = _opened(_kept())
    first, last = meta["bounds"][split]
    return Glyphs(images[first:last], codepoints[first:last], faces[first:last])


def counts() -> dict[str, int]:
    """Of each split its images, characters and faces, and the images left out because others look the same."""
    _, _, _, meta = _opened(_kept())
    return meta["counts"]


def script(character: str) -> str:
    """The script or the kind of sign, by the first word of the name, by "arrow" in it, or by the Unicode category."""
    words, category = unicodedata.name(character).lower().split(), unicodedata.category(character)
    if words[0] in _FIRST_WORDS:
        return words[0]
    if any(word.startswith(("arrow", "harpoon")) for word in words):
        return "arrow"
    return _CATEGORIES.get(category) or _CATEGORIES.get(category[0], "symbol")


def role_of(character: str) -> str:
    """What a character is for: "train", "val" (about 5 in 100) or "test" (15), by a hash of it."""
    share = int.from_bytes(hashlib.sha256(f"groundwork {character}".encode()).digest()[:8], "big") % 100
    return "test" if share < 15 else "val" if share < 20 else "train"


def draw(file: str) -> tuple[np.ndarray, np.ndarray]:
    """The images uint8 [N Y X 1] of a font file's named characters that are not blank, and their code points [N]."""
    from matplotlib.ft2font import FT2Font  # half a second to import: only where glyphs are drawn

    font = FT2Font(file)
    font.set_size(1024, 72)
    size = 1024 * _CAPITAL * 64 / _load(font, font.get_char_index(ord("H"))).bbox[3]
    missing = _picture(font, 0, size)
    images, codepoints = [], []
    for codepoint, glyph in sorted(font.get_charmap().items()):
        if glyph and unicodedata.name(chr(codepoint), ""):
            image = _picture(font, glyph, size)
            if image.any() and not np.array_equal(image, missing):
                images.append(image)
                codepoints.append(codepoint)
    return 255 - np.stack(images)[..., None], np.array(codepoints, np.int32)


def _picture(font: Any, glyph: int, size: float) -> np.ndarray:
    """A glyph's coverage, uint8 [Y X], at `size` pixels to the em or as much less as it needs to fit."""
    room = SIZE - 2 * _MARGIN
    font.set_size(size, 72)
    loaded = _load(font, glyph)
    left, bottom, right, top = _pixels(loaded)
    if max(right - left, top - bottom) > room:
        # One pixel less than there is room for: wherever it falls on the grid, it covers at most one pixel more.
        font.set_size(size * (room - 1) / max(right - left, top - bottom), 72)
        loaded = _load(font, glyph)
        left, bottom, right, top = _pixels(loaded)
    row = min(max(_BASELINE - top, _MARGIN), SIZE - _MARGIN - (top - bottom))
    image = np.zeros((SIZE, SIZE), np.uint8)
    # The column is that of the glyph's origin, the row that of its highest ink.
    font.draw_glyph_to_bitmap(image, (SIZE - (right - left)) // 2 - left, row, loaded)
    return image


def _load(font: Any, glyph: int) -> Any:
    from matplotlib.ft2font import LoadFlags

    return font.load_glyph(glyph, LoadFlags.NO_HINTING | LoadFlags.NO_BITMAP)


def _pixels(glyph: Any) -> tuple[int, int, int, int]:
    """The whole pixels that a glyph touches: left, bottom, right, top, from its origin; y grows upwards."""
    left, bottom, right, top = glyph.bbox  # in 64ths of a pixel
    return left // 64, bottom // 64, -(-right // 64), -(-top // 64)


def _kept() -> Path:
    """The cache's folder of these versions of matplotlib (fonts and FreeType), of Unicode's names and of this file."""
    rules = (version("matplotlib"), unicodedata.unidata_version, Path(__file__).read_bytes())
    return cache_directory() / "embedded" / f"glyphs-{hashlib.sha256(repr(rules).encode()).hexdigest()[:32]}"


@cache
def _opened(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Images (mapped), code points and faces of all splits, one after the other, and where each begins and ends."""
    if not folder.exists():
        _make(folder)
    images = np.load(folder / "images.npy", mmap_mode="r")
    codepoints, faces = np.load(folder / "codepoints.npy"), np.load(folder / "faces.npy")
    return images, codepoints, faces, json.loads((folder / "meta.json").read_text())


def _make(folder: Path) -> None:
    """Writes beside `folder` and renames: it exists complete or not at all. Of racing processes the first wins."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        images, codepoints, faces = _draw_all()
        chosen, numbers = choose(images, codepoints, np.array([FACES[face].typeface == HELD_BACK for face in faces]))
        order = np.concatenate([chosen[split] for split in SPLITS])
        ends = np.cumsum([len(chosen[split]) for split in SPLITS]).tolist()
        for split, members in chosen.items():
            numbers[f"{split}/images"] = len(members)
            numbers[f"{split}/characters"] = len(np.unique(codepoints[members]))
            numbers[f"{split}/faces"] = len(np.unique(faces[members]))
        meta = {"bounds": dict(zip(SPLITS, zip([0, *ends], ends, strict=False), strict=True)), "counts": numbers}
        for name, values in (("images", images), ("codepoints", codepoints), ("faces", faces)):
            np.save(temporary / f"{name}.npy", values[order])
        (temporary / "meta.json").write_text(json.dumps(meta) + "\n")
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
    except OSError as error:
        raise ValueError(
            f"the cache {folder.parent} cannot be written ({error.strerror or error}); free space there or set "
            "GROUNDWORK_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after the rename nothing is there


def _draw_all() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    drawn = [draw(str(folder / face.file)) for face in FACES]
    faces = np.repeat(np.arange(len(FACES), dtype=np.uint8), [len(found) for _, found in drawn])
    images, codepoints = (np.concatenate(values) for values in zip(*drawn, strict=True))
    return images, codepoints, faces


def choose(
    images: np.ndarray, codepoints: np.ndarray, held_back: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The places of each split's images [N Y X 1], and how many were left out of each because others look the same.

    `codepoints` int [N], `held_back` bool [N]: whether the image is of the typeface kept for the test.
    """
    pictures = _numbers([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    roles = np.array([role_of(chr(codepoint)) for codepoint in _first_of_alike(codepoints, pictures)])
    wanted = {
        "train": (roles == "train") & ~held_back,
        "val": (roles == "val") & ~held_back,
        "test": (roles == "test") & held_back,
        "test_seen_face": (roles == "test") & ~held_back,
        "test_seen_characters": (roles == "train") & held_back,
    }
    wanted["test_seen_characters"] &= np.isin(codepoints, codepoints[wanted["train"]])
    in_train = set(pictures[wanted["train"]].tolist())
    chosen, numbers = {}, {}
    for split in SPLITS:
        members = np.flatnonzero(wanted[split])
        pairs = list(zip(codepoints[members].tolist(), pictures[members].tolist(), strict=True))
        names = Counter(picture for _, picture in set(pairs))  # of how many characters each picture is
        kept, seen = [], set()
        for member, pair in zip(members.tolist(), pairs, strict=True):
            told = split == "train" or (names[pair[1]] == 1 and pair[1] not in in_train)
            numbers[f"{split}/left_out_repeated"] = numbers.get(f"{split}/left_out_repeated", 0) + (pair in seen)
            numbers[f"{split}/left_out_alike"] = numbers.get(f"{split}/left_out_alike", 0) + (not told)
            if told and pair not in seen:
                kept.append(member)
            seen.add(pair)
        chosen[split] = np.array(kept, np.int64)
    return chosen, numbers


def _first_of_alike(codepoints: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """For each image the least code point among the characters that share pictures with its own, over any chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    characters, own = np.unique(codepoints, return_inverse=True)
    size = len(characters) + int(pictures.max()) + 1
    edges = coo_array((np.ones(len(own), np.int8), (own, len(characters) + pictures)), shape=(size, size))
    groups = connected_components(edges, directed=False)[1][: len(characters)]
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return characters[first[group]][own]


def _numbers(values: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(values), return_inverse=True)[1]
