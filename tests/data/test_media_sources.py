"""Every layout gives the same pictures and labels, and every mistake in one is named with its place."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from research.data import embedded_images
from research.data.images import image_classification, images
from research.data.media_sources import open_media
from tests.media_files import CLASSES, encoded, flat, pictures, recordings, wav, write_folder, write_tar

COUNT = 7
PIXELS = pictures(COUNT)
LABELS = [CLASSES[index % 3] for index in range(COUNT)]
NUMBERS = [index % 3 for index in range(COUNT)]
NAMES = [f"{label}/{index}.png" for index, label in enumerate(LABELS)]
BYTES = [encoded(picture) for picture in PIXELS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def folder(place):
    return write_folder(place / "folder", BYTES, NAMES)


def npz_encoded(place):
    data, offsets = flat(BYTES)
    names = np.array(NAMES, "S")
    np.savez(place / "a.npz", data=data, offsets=offsets, labels=np.array(NUMBERS, np.uint8), names=names)
    return str(place / "a.npz")


def npz_arrays(place):
    np.savez_compressed(place / "a.npz", images=PIXELS, labels=NUMBERS, label_names=CLASSES)
    return str(place / "a.npz")


def tars(place):
    for shard, rows in enumerate((range(4), range(4, COUNT))):
        members = []
        for row in rows:
            members += [(f"x/{row:03}.png", BYTES[row]), (f"x/{row:03}.cls", LABELS[row] + "\n")]
        write_tar(place / f"shard-{shard}.tar", members)
    return str(place / "shard-*.tar")


def parquet(place):
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    column = [{"bytes": content, "path": name} for content, name in zip(BYTES, NAMES, strict=True)]
    table = pyarrow.table({"image": column, "label": NUMBERS})
    told = json.dumps({"info": {"features": features}})
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"huggingface": told}), place / "a.parquet", row_group_size=3
    )
    return str(place / "a.parquet")


def parquet_bytes(place):
    pyarrow.parquet.write_table(pyarrow.table({"image": BYTES, "label": LABELS}), place / "a.parquet")
    return str(place / "a.parquet")


def index(place):
    write_folder(place, BYTES, NAMES)
    rows = [{"file": name, "label": label} for name, label in zip(NAMES, LABELS, strict=True)]
    (place / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place / "index.jsonl")


def table_of_files(place):
    write_folder(place, BYTES, NAMES)
    rows = [f"{name},{label}" for name, label in zip(NAMES, LABELS, strict=True)]
    (place / "index.csv").write_text("\n".join(["file,label", *rows]))
    return str(place / "index.csv")


LAYOUTS = [folder, npz_encoded, npz_arrays, tars, parquet, parquet_bytes, index, table_of_files]


def by_picture(dataset, split="train"):
    """The label's name of each picture of a split."""
    part = dataset.splits[split]
    rows = part.examples.rows(np.arange(len(part.examples)))
    assert rows["image"].dtype == np.uint8
    names = [dataset.spec.label_names[label] for label in rows["label"]]
    return {picture.tobytes(): name for picture, name in zip(rows["image"], names, strict=True)}


WANTED = {picture.tobytes(): label for picture, label in zip(PIXELS, LABELS, strict=True)}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_its_pictures_and_labels(tmp_path, layout):
    data = image_classification(layout(tmp_path), size=5, valid_fraction=0.3)
    assert by_picture(data) | by_picture(data, "val") == WANTED
    assert data.spec.label_names == CLASSES
    assert (data.spec.image_size, data.spec.num_channels) == (5, 3)
    again = open_media(layout(tmp_path), "image", field="image")
    assert again.fingerprint == open_media(layout(tmp_path), "image", field="image").fingerprint


def test_named_splits_of_an_npz_file(tmp_path):
    np.savez(
        tmp_path / "a.npz", x_train=PIXELS[:5], y_train=np.array(NUMBERS[:5])[:, None], x_test=PIXELS[5:], y_test=[1, 2]
    )
    path = str(tmp_path / "a.npz")
    for arguments in ({"valid_split": "test"}, {"valid_path": f"{path}[test]"}):
        data = image_classification(path, size=5, **arguments)
        rows = data.splits["val"].examples.rows(np.arange(2))
        np.testing.assert_array_equal(rows["image"], PIXELS[5:])
        assert rows["label"].tolist() == [1, 2] and len(data.splits["train"].examples) == 5
    with pytest.raises(ValueError, match="a.npz has no split 'val'; the splits are: train, test"):
        image_classification(path, size=5, valid_split="val")
    with pytest.raises(ValueError, match="is given for test and is in the training data"):
        image_classification(path, size=5, test_path=path)


def test_a_flat_folder_has_no_labels_and_an_index_may_show_a_picture_twice(tmp_path):
    path = write_folder(tmp_path / "flat", BYTES, [f"{row}.png" for row in range(COUNT)])
    data = images(path, size=5, valid_fraction=0.3)
    assert set(data.splits["train"].examples[0]) == {"image"} and data.spec.label_names == ()
    with pytest.raises(ValueError, match="no field 'label' \\(a folder of one folder a class .* present are: none"):
        image_classification(path, size=5)
    rows = [{"file": f"{row // 2}.png", "label": row % 2} for row in range(4)]
    (tmp_path / "flat" / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    media = open_media(f"{path}/index.jsonl", "image", field="image")
    assert media.names == ["0.png", "1.png"] and media.contents.tolist() == [0, 0, 1, 1]
    assert media.place(1) == f"{path}/index.jsonl, 0.png (row 2)"


def test_what_is_told_beside_an_npz_file_are_its_fields(tmp_path):
    data, offsets = flat(BYTES)
    np.savez(tmp_path / "images.npz", data=data, offsets=offsets)
    lines = "".join(json.dumps({"label": label, "tone": row}) + "\n" for row, label in enumerate(LABELS))
    (tmp_path / "meta.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    media = open_media(str(tmp_path), "image", field="image")
    assert media.columns == {"label": LABELS, "tone": list(range(COUNT))}
    kept = media.fingerprint
    (tmp_path / "meta.jsonl.zst").unlink()
    (tmp_path / "images.jsonl").write_text(lines.replace("ant", "fly"))
    assert open_media(str(tmp_path), "image", field="image").fingerprint != kept
    for changed, message in (
        (
            lines[: lines.rindex("{")],
            "images.jsonl has 6 rows for the 7 pictures of images.npz: nothing is told of row 7",
        ),
        (lines * 2, "images.jsonl, row 8 tells of nothing: images.npz holds 7 pictures"),
    ):
        (tmp_path / "images.jsonl").write_text(changed)
        with pytest.raises(ValueError, match=message):
            open_media(str(tmp_path), "image", field="image")


def test_embedded_pictures_have_named_splits():
    data = image_classification(
        "embedded:digits", size=8, channels=1, valid_split="val", test_path="embedded:digits[test]"
    )
    for split, part in data.splits.items():
        kept = embedded_images.arrays("digits", split)
        found = part.examples.rows(np.arange(len(part.examples)))
        np.testing.assert_array_equal(found["image"], kept["images"])
        np.testing.assert_array_equal(found["label"], kept["labels"])
    with pytest.raises(ValueError, match="embedded:shapes: no such set of images; there are: digits, glyphs"):
        images("embedded:shapes", size=5)
    with pytest.raises(ValueError, match="no recordings come with the package"):
        open_media("embedded:digits", "audio", field="audio")
    with pytest.raises(ValueError, match="is given for test and is in the training data"):
        images("embedded:digits", size=8, channels=1, test_path="embedded:digits[train]")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a set of pictures prepared by tfds, without TensorFlow."""
    pytest.importorskip("array_record")
    import tensorflow_datasets as tfds

    files = write_folder(tmp_path_factory.mktemp("files"), BYTES, [f"{row}.png" for row in range(COUNT)])

    class TinyPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path_factory.mktemp("package")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(5, 5, 3)),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
                "note": tfds.features.Text(),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(5)), "test": self._generate_examples(range(5, COUNT))}

        def _generate_examples(self, rows):
            for row in rows:
                yield row, {"image": f"{files}/{row}.png", "label": NUMBERS[row], "note": f"row {row}"}

    builder = TinyPictures(data_dir=tmp_path_factory.mktemp("data"), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_prepared_tfds_pictures_are_read(prepared):
    data = image_classification(str(prepared), size=5, valid_split="test")
    assert by_picture(data) | by_picture(data, "val") == WANTED
    assert len(data.splits["train"].examples) == 5 and "tensorflow" not in sys.modules
    with pytest.raises(ValueError, match="no picture in the field 'note'; the fields are: image, label, note"):
        images(str(prepared), size=5, image_field="note")
    with pytest.raises(ValueError, match="is given for val and is in the training data"):
        images(f"{prepared}[train[:4]]", size=5, valid_path=f"{prepared}[train[3:]]")
    with pytest.raises(ValueError, match="recordings of tensorflow-datasets are not read here"):
        open_media(str(prepared), "audio", field="audio")


def test_recordings_are_opened_likewise(tmp_path):
    clips = recordings([31, 37, 41])
    contents = [wav(clip) for clip in clips]
    write_folder(tmp_path / "folder", contents, ["b/x.wav", "a/y.wav", "a/z.WAV"])
    media = open_media(str(tmp_path / "folder"), "audio", field="audio")
    assert media.names == ["a/y.wav", "a/z.WAV", "b/x.wav"] and media.columns["label"] == ["a", "a", "b"]
    assert media.read(0) == contents[1]
    write_tar(tmp_path / "a.tar", [("1.wav", contents[0]), ("1.json", '{"speaker": "theo"}'), ("1.cls", "-7")])
    media = open_media(str(tmp_path / "a.tar"), "audio", field="audio")
    assert media.read(0) == contents[0] and media.columns == {"speaker": ["theo"], "label": [-7]}


def npz(**arrays):
    def make(place):
        np.savez(place / "a.npz", **arrays)
        return str(place / "a.npz")

    return make


def tar(*members):
    return lambda place: write_tar(place / "a.tar", members)


def table(**columns):
    def make(place):
        pyarrow.parquet.write_table(pyarrow.table(columns), place / "a.parquet")
        return str(place / "a.parquet")

    return make


def lines(*rows):
    def make(place):
        (place / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(place / "a.jsonl")

    return make


def files(**contents):
    def make(place):
        return write_folder(place / "folder", contents.values(), [name.replace("__", "/") for name in contents])

    return make


def raw(name, content):
    def make(place):
        (place / name).write_bytes(content)
        return str(place / name)

    return make


DATA, OFFSETS = flat(BYTES[:2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: str(place / "none"), "none does not exist; give a file, a glob, a folder"),
        (lambda place: str(place / "*.tar"), "matches no file; check the pattern"),
        (raw("a.docx", b"x"), "a.docx has no suffix that is read here; wanted a folder of pictures, .npz"),
        (files(**{"notes.txt": b"x"}), "folder that holds no pictures; give a file"),
        (files(**{"a.npz": b"x", "b.npz": b"x"}), "holds 2 files \\(a.npz, b.npz, …\\); give a file, a glob"),
        (
            files(train__x=b"", **{"train/a.png": BYTES[0], "test/b.png": BYTES[1]}),
            "holds splits \\(test, train\\), not",
        ),
        (raw("a.npz", b"no archive"), "a.npz is not a readable .npz file"),
        (npz(data=DATA), "holds no pictures that are found: wanted the arrays data and offsets, images, or x_train"),
        (npz(data=DATA, offsets=OFFSETS[:-1]), "offsets do not fit 'data' of shape"),
        (npz(data=DATA, offsets=OFFSETS[::-1]), "offsets do not fit"),
        (npz(data=DATA, offsets=OFFSETS, labels=[1, 2, 3]), "'labels' has the shape \\(3,\\) for 2 rows"),
        (npz(images=PIXELS[0, 0]), "'images' has the shape \\(5, 3\\); wanted \\[N Y X\\] or"),
        (npz(images=PIXELS[:0]), "is empty: it holds no pictures"),
        (
            npz(images=PIXELS[:2], labels=[0, 3], label_names=CLASSES),
            "label is 3 in a row, and label_names has 3 names",
        ),
        (npz(images=PIXELS[:2], labels=np.array(["a", None])), "'labels' cannot be read .*allow_pickle"),
        (raw("a.tar", b"no archive" * 99), "a.tar is not a readable .tar file"),
        (tar(("1.txt", "a cat")), "a.tar, 1: no pictures beside txt; wanted one of .jpg"),
        (tar(("1.png", BYTES[0]), ("1.jpg", BYTES[1])), "a.tar, 1: 2 pictures beside jpg, png"),
        (tar(("1.png", BYTES[0]), ("1.png", BYTES[1])), "holds 1.png twice"),
        (tar(("1.png", BYTES[0]), ("1.json", "{")), "1.json: not JSON"),
        (tar(("1.png", BYTES[0]), ("1.json", "[]")), "1.json: list, wanted one JSON object"),
        (tar(("1.png", BYTES[0]), ("1.txt", b"\xff")), "1.txt, line 1, byte offset 0: byte 0xff is not UTF-8"),
        (tar(), "a.tar is empty: it holds no pictures"),
        (raw("a.parquet", b"no table"), "a.parquet is not a readable parquet file"),
        (table(picture=BYTES), "no column 'image'; the columns are: picture"),
        (table(image=LABELS), "the column 'image' holds string; wanted encoded bytes"),
        (table(image=pyarrow.array([], pyarrow.binary())), "a.parquet is empty"),
        (lines({"file": "none.png"}), "a.jsonl, record 1: file='none.png' is no file in"),
        (lines({"picture": "x.png"}), "line 1: no field 'file'; the fields present are: picture"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        open_media(make(tmp_path), "image", field="image")


@pytest.mark.parametrize("size", [1100, 1536, 2048, 5000])
def test_a_shard_that_is_cut_off_is_refused(tmp_path, size):
    path = Path(tars(tmp_path).replace("*", "0"))
    assert path.stat().st_size > 5000
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="shard-0.tar (is not a readable .tar file|ends at byte|has no end)"):
        open_media(str(path), "image", field="image")


def test_samples_without_their_rate_are_refused(tmp_path):
    data, offsets = flat(recordings([31, 37]))
    np.savez(tmp_path / "a.npz", audio=data, offsets=offsets)
    with pytest.raises(ValueError, match="samples without one sample_rate"):
        open_media(str(tmp_path / "a.npz"), "audio", field="audio")
