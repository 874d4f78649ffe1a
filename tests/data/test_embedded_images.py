"""What the embedded images promise: pictures that are what they are called, splits that share nothing they should."""

import os
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest

from research.data import embedded_images, glyphs


def pictures(split: str) -> list[bytes]:
    return [image.tobytes() for image in embedded_images.arrays("glyphs", split)["images"]]


def find(split: str, character: str, face: str) -> np.ndarray:
    rows = [row for row in embedded_images.records("glyphs", split) if row["character"] == character]
    return next(row["image"] for row in rows if row["face"] == face)


def ink(image: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last row, and the first and last column, that are not white."""
    rows, columns = np.nonzero(image[..., 0] < 255)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.slow
def test_the_glyphs_are_many_and_in_many_faces():
    counts = embedded_images.describe("glyphs")
    assert sum(counts[f"{split}/images"] for split in embedded_images.splits("glyphs")) > 40_000
    assert counts["train/images"] > 28_000 and counts["train/faces"] == 12
    assert counts["test/images"] > 700 and counts["test/characters"] > 350 and counts["test/faces"] == 4
    assert counts["val/images"] > 1_000
    for split in embedded_images.splits("glyphs"):
        found = embedded_images.arrays("glyphs", split)
        assert len(found["images"]) == len(found["codepoints"]) == counts[f"{split}/images"]
        assert len(embedded_images.records("glyphs", split)) == counts[f"{split}/images"]


def test_characters_of_validation_and_test_are_unseen_and_so_is_the_typeface_of_the_test():
    characters, typefaces = {}, {}
    for split in embedded_images.splits("glyphs"):
        rows = glyphs.glyphs(split)
        characters[split] = {chr(codepoint) for codepoint in rows.codepoints}
        typefaces[split] = {glyphs.FACES[face].typeface for face in rows.faces}
    for split in ("val", "test", "test_seen_face"):
        assert not characters[split] & characters["train"]
    assert not characters["test"] & characters["val"] and not characters["test_seen_face"] & characters["val"]
    assert characters["test_seen_characters"] <= characters["train"]
    assert typefaces["test"] == typefaces["test_seen_characters"] == {"STIX"}
    assert not any("STIX" in typefaces[split] for split in ("train", "val", "test_seen_face"))


def test_no_picture_outside_train_is_one_of_train_or_has_two_names():
    train = set(pictures("train"))
    for split in ("val", "test", "test_seen_face", "test_seen_characters"):
        found = pictures(split)
        assert not train & set(found)
        names = {}
        for picture, codepoint in zip(found, embedded_images.arrays("glyphs", split)["codepoints"], strict=True):
            assert names.setdefault(picture, codepoint) == codepoint


def test_no_picture_of_one_character_stands_twice_in_a_split():
    for split in embedded_images.splits("glyphs"):
        codepoints = embedded_images.arrays("glyphs", split)["codepoints"].tolist()
        assert len(set(zip(codepoints, pictures(split), strict=True))) == len(codepoints)


def test_a_record_says_what_the_picture_is_of():
    rows = embedded_images.records("glyphs", "train")
    row = next(row for row in rows if row["face"] == "DejaVu Sans Mono bold oblique")
    assert row["name"] == unicodedata.name(row["character"]).lower() and row["codepoint"] == ord(row["character"])
    assert row["style"] == "mono bold oblique" and row["typeface"] == "DejaVu Sans Mono"
    assert row["image"].shape == (32, 32, 1) and row["image"].dtype == np.uint8
    assert {row["face"] for row in rows[:6000]} >= {"DejaVu Sans", "DejaVu Sans bold"}


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("é", "latin"), ("Ω", "greek"), ("ж", "cyrillic"), ("ب", "arabic"), ("→", "arrow"), ("⇌", "arrow"),
        ("𝔸", "mathematical"), ("∑", "mathematical"), ("⠿", "braille"), ("½", "number"), ("€", "currency"),
        (";", "punctuation"), ("☃", "symbol"),
    ],
)  # fmt: skip
def test_scripts(character, name):
    assert glyphs.script(character) == name


def test_images_are_dark_on_white_antialiased_centred_and_whole():
    for split in embedded_images.splits("glyphs"):
        images = embedded_images.arrays("glyphs", split)["images"][..., 0]
        edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
        assert edges.min() == 255  # nothing is cut off
        assert images.min(axis=(1, 2)).max() < 255  # nothing is blank
        assert images.mean() > 200
    grey = embedded_images.arrays("glyphs", "train")["images"]
    assert 0.02 < ((grey > 0) & (grey < 255)).mean() < 0.3
    columns = np.array([ink(image)[2:] for image in grey[::97]])
    # As far from the left as from the right, to a pixel, and one more where a column is too lightly touched to be grey.
    assert np.abs(columns.sum(axis=1) - 31).max() <= 2


def test_glyphs_of_a_face_keep_their_size_and_height(tmp_path):
    import matplotlib

    for file in ("DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf"):
        images, codepoints = glyphs.draw(f"{matplotlib.get_data_path()}/fonts/ttf/{file}")
        found = {chr(codepoint): ink(image) for image, codepoint in zip(images, codepoints, strict=True)}
        assert found["H"][:2] == (6, 23)  # 18 rows, standing on row 24
        assert found["x"][1] == 23 and 9 < found["x"][0] < 14
        assert found[","][0] > 18 and found["'"][1] < 16
        assert found["C"][0] < found["c"][0] and found["g"][1] > 26


def test_blank_missing_and_nameless_characters_are_left_out():
    import matplotlib

    _, codepoints = glyphs.draw(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf")
    assert not {0x20, 0xA0, 0x200B, 0xE000} & set(codepoints.tolist())  # spaces, private use
    assert 0x4E00 not in codepoints  # DejaVu has no Chinese


def test_characters_that_look_alike_are_chosen_as_one_and_the_rest_is_counted():
    """Made-up pictures: 0 to 2 are of characters for training, 3 of both a training and a test character."""
    roles = {"train": [], "val": [], "test": []}
    for codepoint in range(0x400, 0x500):
        roles[glyphs.role_of(chr(codepoint))].append(codepoint)
    low, high, other = min(roles["test"]), max(roles["train"]), roles["train"][0]
    unseen, third = roles["test"][1:3]
    assert low < high
    # low (test) and high (train) share a picture in training's typeface: high goes with low, the lesser code point.
    rows = [
        (low, 3, False), (high, 3, False), (high, 4, True), (other, 0, False), (other, 0, False), (other, 0, True),
        (other, 5, True), (unseen, 6, True), (third, 6, True), (low, 7, True), (low, 7, True),
    ]  # fmt: skip
    images = np.array([np.full((2, 2, 1), picture, np.uint8) for _, picture, _ in rows])
    codepoints, held_back = np.array([row[0] for row in rows]), np.array([row[2] for row in rows])
    if len({glyphs.role_of(chr(codepoint)) for codepoint in (unseen, third)}) != 1:
        pytest.fail("the example needs two test characters")
    chosen, counts = glyphs.choose(images, codepoints, held_back)
    assert chosen["train"].tolist() == [3]  # and not 4, the same picture of the same character
    assert chosen["test"].tolist() == [2, 9]  # not 7 and 8, one picture of two characters; not 10, a repeat
    assert chosen["test_seen_face"].tolist() == []  # 0 and 1 are one picture of two characters
    assert chosen["test_seen_characters"].tolist() == [6]  # not 5, which is a picture of train
    assert counts["train/left_out_repeated"] == 1 and counts["test/left_out_alike"] == 2
    assert counts["test/left_out_repeated"] == 1 and counts["test_seen_characters/left_out_alike"] == 1


def test_roles_are_shared_out_as_told():
    roles = [glyphs.role_of(chr(codepoint)) for codepoint in range(0x20000, 0x24000)]
    shares = {role: roles.count(role) / len(roles) for role in ("train", "val", "test")}
    # Three standard deviations of a share of 16,384 fair draws are below 0.01.
    assert shares == pytest.approx({"train": 0.8, "val": 0.05, "test": 0.15}, abs=0.01)


@pytest.mark.slow
def test_glyphs_are_drawn_once_the_same_and_opened_fast(tmp_path, monkeypatch):
    before = embedded_images.arrays("glyphs", "test")
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path))
    again = embedded_images.arrays("glyphs", "test")
    np.testing.assert_array_equal(before["images"], again["images"])
    assert len(list((tmp_path / "embedded").iterdir())) == 1
    monkeypatch.setattr(glyphs, "_draw_all", lambda: pytest.fail("drawn again"))
    glyphs._opened.cache_clear()
    start = time.perf_counter()
    assert len(embedded_images.records("glyphs", "train")) and time.perf_counter() - start < 1.0
    monkeypatch.setattr(glyphs, "version", lambda package: "another")
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        embedded_images.records("glyphs", "test")
    assert len(list((tmp_path / "embedded").iterdir())) == 1  # nothing half made is left


def test_glyphs_are_read_without_jax_and_pillow():
    code = (
        "import sys; from research.data import embedded_images as e; e.records('glyphs', 'test')[0];"
        "e.records('digits', 'val'); assert not {'jax', 'PIL.ImageFont'} & set(sys.modules), 'imported'"
    )
    embedded_images.records("glyphs", "test")  # drawn now, if not before
    environment = os.environ | {"JAX_PLATFORMS": "nonesuch"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be written .* set GROUNDWORK_CACHE"):
        embedded_images.records("glyphs", "test")


def test_indices_outside_a_split_and_slices():
    rows = embedded_images.records("glyphs", "test")
    assert rows[-1]["codepoint"] == rows[len(rows) - 1]["codepoint"]
    assert [row["codepoint"] for row in rows[2:5]] == [rows[place]["codepoint"] for place in (2, 3, 4)]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_digits_are_all_there_once_in_splits_of_60_15_and_25_in_100():
    found = {split: embedded_images.records("digits", split) for split in embedded_images.splits("digits")}
    assert sum(map(len, found.values())) == 1797 == sum(embedded_images.describe("digits").values())
    for split, share in (("train", 0.6), ("val", 0.15), ("test", 0.25)):
        labels = np.bincount([row["label"] for row in found[split]], minlength=10)
        assert np.abs(labels - share * np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])).max() <= 1
        assert all(row["image"].shape == (8, 8, 1) and row["image"].dtype == np.uint8 for row in found[split])
        assert len({row["image"].tobytes() for row in found[split]}) == len(found[split])
    whole = np.concatenate([embedded_images.arrays("digits", split)["images"] for split in found])
    assert whole.min() == 0 and whole.max() == 255 and len(np.unique(whole)) == 17


def test_digits_can_be_read():
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (embedded_images.arrays("digits", split) for split in ("train", "test"))
    model = KNeighborsClassifier(3).fit(train["images"].reshape(-1, 64).astype(float), train["labels"])
    assert model.score(test["images"].reshape(-1, 64).astype(float), test["labels"]) > 0.95


def test_records_may_be_changed_without_changing_those_of_the_next_caller():
    for name in ("digits", "glyphs"):
        row = embedded_images.records(name, "val")[0]
        before = row["image"].copy()
        row["image"][:] = 7
        np.testing.assert_array_equal(embedded_images.records(name, "val")[0]["image"], before)
        with pytest.raises(ValueError, match="read-only"):
            embedded_images.arrays(name, "val")["images"][0] = 7


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("glyph", "train", "no such set of images; there are: digits, glyphs"),
        ("digits", "test_seen_face", "there are: train, val, test"),
    ],
)
def test_unknown_sets_and_splits_are_refused(name, split, message):
    with pytest.raises(ValueError, match=message):
        embedded_images.records(name, split)
