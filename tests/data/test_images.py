"""Pictures as rows: splits, conditions, budgets of labels, the cache, and what is refused."""

import importlib
import json

import numpy as np
import pytest

from research.build import build
from research.data import DATA
from research.data.media_sources import open_media
from research.data.stream import TrainStream, eval_batches
from tests.media_files import CLASSES, encoded, flat, pictures, write_folder

COUNT = 31
PIXELS = pictures(COUNT)
LABELS = [CLASSES[index % 3] for index in range(COUNT)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def write(place, *, first=0, count=COUNT, name="a.npz", **arrays):
    rows = slice(first, first + count)
    data, offsets = flat([encoded(picture) for picture in PIXELS[rows]])
    told = {
        "labels": LABELS,
        "side": ["left", "right"] * 16,
        "number": np.arange(32),
        "odd": np.arange(32) % 2 > 0,
    }
    held = {key: values[rows] for key, values in told.items()} | arrays
    np.savez(place / name, data=data, offsets=offsets, **held)
    return str(place / name)


def load(path, name="image_classification", **arguments):
    return build({"name": name, "path": path, "size": 5} | arguments, DATA, kind="data")


def shown(dataset, split):
    """The number of the picture of each row."""
    known = {picture.tobytes(): index for index, picture in enumerate(PIXELS)}
    examples = dataset.splits[split].examples
    return [known[picture.tobytes()] for picture in examples.rows(np.arange(len(examples)))["image"]]


def test_rows_are_pictures_and_labels(tmp_path):
    data = load(write(tmp_path), slice_fields=("side",))
    split = data.splits["train"]
    for row, index in enumerate(shown(data, "train")):
        assert CLASSES[split.labels[row]] == LABELS[index] and split.fields["side"][row] == ("left", "right")[index % 2]
        assert split.texts[row] == f"row {index + 1}"
    row = split.examples[3]
    assert row["image"].shape == (5, 5, 3) and row["label"].dtype == np.int32 and row["label"] == split.labels[3]
    assert len(set(split.hashes)) == len(split.hashes) == len(split.examples)
    assert data.spec.label_counts == tuple(split.labels.count(label) for label in range(3))
    assert data.facts["train"]["rows"] == len(split.examples) and data.facts["train"]["labels"]["ant"] > 0
    json.dumps(data.facts)
    grey = load(write(tmp_path), channels=1, label_names=("x", "y", "z"))
    assert grey.splits["train"].examples[0]["image"].shape == (5, 5, 1)
    assert grey.spec.label_names == ("x", "y", "z") and grey.spec.num_channels == 1
    assert grey.facts["fingerprint"] != data.facts["fingerprint"]


def test_rows_make_the_batches_of_the_stream(tmp_path):
    data = load(write(tmp_path))
    batch = next(TrainStream(data.splits["train"].examples, seed=0, batch_size=7).batches())
    assert batch["image"].shape == (7, 5, 5, 3) and batch["label"].shape == batch["example_id"].shape == (7,)
    last = list(eval_batches(data.splits["val"].examples, batch_size=2))[-1]
    assert last["image"].dtype == np.uint8 and last["example_mask"].tolist() == [True, False]


def test_validation_is_a_seeded_choice_and_folds_are_test_splits(tmp_path):
    path = write(tmp_path)
    first, again, other = (load(path, valid_fraction=0.2, seed=seed) for seed in (0, 0, 1))
    assert shown(first, "val") == shown(again, "val") != shown(other, "val") and len(shown(first, "val")) == 6
    assert sorted(shown(first, "train") + shown(first, "val")) == list(range(COUNT))
    assert first.facts["fingerprint"] == again.facts["fingerprint"] != other.facts["fingerprint"]
    tests = [shown(load(path, folds=3, fold=fold), "test") for fold in range(3)]
    assert sorted(sum(tests, [])) == list(range(COUNT))


def test_conditions_choose_the_rows_of_splits(tmp_path):
    path = write(tmp_path)
    data = load(
        path, select=("side=left", "number!=0|2"), valid_select=("side=right", "odd=true"), test_select=("number=2",)
    )
    assert shown(data, "train") == list(range(4, COUNT, 2))
    assert shown(data, "val") == list(range(1, COUNT, 2)) and shown(data, "test") == [2]
    held = load(path, select=("label=ant|bee",), valid_fraction=0.2)
    assert held.spec.label_names == ("ant", "bee") and len(shown(held, "train")) + len(shown(held, "val")) == 21
    elsewhere = load(path, shift_path=write(tmp_path, first=3, count=9, name="b.npz"), shift_select=("label=cow",))
    assert shown(elsewhere, "shift") == [5, 8, 11]


def test_a_budget_of_labels_is_stratified(tmp_path):
    path = write(tmp_path)
    data = load(path, num_labels=6)
    assert data.facts["train"]["labels"] == {"ant": 2, "bee": 2, "cow": 2}
    assert shown(data, "train") != shown(load(path, num_labels=6, labels_seed=1), "train")


def test_shared_rows_are_counted_by_what_they_show(tmp_path):
    data = load(
        write(tmp_path),
        test_path=write(tmp_path, first=28, count=3, name="b.npz"),
        valid_select=("number=28",),
        select=("number!=28",),
    )
    assert data.facts["shared_rows"] == {"train-val": 0, "train-test": 2, "val-test": 1}
    assert data.facts["duplicates_in_train"] == 0


def test_pictures_without_labels(tmp_path):
    data = load(write(tmp_path), name="images")
    assert set(data.splits["train"].examples[0]) == {"image"} and data.splits["train"].labels == []
    assert "labels" not in data.facts["train"] and data.spec.num_classes == 0


def test_what_was_decoded_is_not_decoded_again(tmp_path, monkeypatch):
    path = write(tmp_path)
    first = load(path)
    module = importlib.import_module("research.data.images")  # the package has the function under that name
    monkeypatch.setattr(module, "decode_image", lambda *a, **k: pytest.fail("decoded again"))
    assert shown(load(path, select=("label!=cow",), seed=3), "train")
    assert load(path).facts == first.facts
    monkeypatch.undo()
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))
    assert load(path, size=3).splits["train"].examples[0]["image"].shape == (3, 3, 3)
    write(tmp_path, first=1, count=COUNT - 1)
    assert load(path).facts["fingerprint"] != first.facts["fingerprint"]
    for values in (tmp_path / "cache" / "decoded").glob("*/values.npy"):
        values.write_bytes(values.read_bytes()[:-7])
    with pytest.raises(ValueError, match="is damaged; delete that folder and start again"):
        load(path)


def test_a_cache_without_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match="the decoded pictures take 0.0 GB, and .* has 0.0 GB free"):
        load(write(tmp_path))


def test_undecodable_pictures_are_named_or_skipped_and_counted(tmp_path):
    contents = [encoded(picture) for picture in PIXELS[:9]]
    contents[2], contents[5] = contents[2][:50], b"no picture"
    path = write_folder(tmp_path / "folder", contents, [f"{LABELS[row]}/{row}.png" for row in range(9)])
    with pytest.raises(ValueError, match="folder, cow/2.png cannot be decoded: .* \\(1 more cannot either\\); mend or"):
        load(path)
    for _ in range(2):  # decoded, then from the cache
        data = load(path, skip_undecodable=True, valid_fraction=0.3)
        assert sorted(shown(data, "train") + shown(data, "val")) == [0, 1, 3, 4, 6, 7, 8]
        assert data.facts["skipped"] == {"train": 2}
    write_folder(tmp_path / "bad", [b"x", b"y"], ["a/0.png", "b/1.png"])
    with pytest.raises(ValueError, match="none of the 2 rows can be decoded"):
        load(str(tmp_path / "bad"), skip_undecodable=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0; wanted the side of the stored pictures"),
        ({"channels": 4}, "channels=4; wanted 1 \\(grey\\) or 3"),
        ({"select": ("side",)}, "select: 'side' is no condition; write field=value or field!=value"),
        ({"select": ("style=noto",)}, "no field 'style'; the fields present are: label, number, odd, side"),
        ({"select": ("side=lift",)}, "no row of .* has the value 'lift'; did you mean left\\?"),
        ({"select": ("side=left", "odd=true")}, "leaves no row of .*a.npz; drop a condition"),
        ({"test_select": ("side=left",)}, "row 1 is chosen by both select and test_select \\(16 rows are\\)"),
        ({"test_path": "a.npz"}, "a.npz is given for test and is in the training data a.npz too"),
        ({"valid_path": "copy.npz"}, "copy.npz is given for val and is in the training data"),
        ({"valid_path": "b.npz", "valid_split": "val"}, "both say what to validate on; give one"),
        ({"valid_split": "val"}, "a.npz has no named splits \\(asked for 'val'\\)"),
        ({"test_path": "unseen.npz"}, "label 'dog' of the test split is never seen in training"),
        ({"path": "floats.npz"}, "row 1: label=0.5 is no class"),
        ({"path": "holes.jsonl"}, "1.png: label=None is no class"),
        ({"path": "mixed.jsonl"}, "1.png: label='1' is str, the labels before it int"),
        (
            {"path": "floats.npz", "label_field": "one", "valid_fraction": 0.5},
            "every training label is 1; there is nothing to tell apart",
        ),
        ({"path": "four.npz"}, "row 1 cannot be decoded: its shape is \\(5, 5, 4\\)"),
        ({"label_names": ("x", "y")}, "wanted a name of its own for each of the labels"),
        ({"slice_fields": ("label",)}, "leave 'label' out"),
        ({"valid_fraction": 0.001}, "valid_fraction=0.001 of the 31 records"),
        ({"num_labels": 2}, "num_labels=2: a.npz has 28 training rows of 3 classes"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.npz").write_bytes((tmp_path / write(tmp_path)).read_bytes())
    write(tmp_path, first=3, count=9, name="b.npz")
    write(tmp_path, first=3, count=3, name="unseen.npz", labels=["ant", "dog", "cow"])
    write(tmp_path, first=3, count=3, name="floats.npz", labels=[0.5, 1.0, 1.5], one=[1, 1, 1])
    np.savez("four.npz", images=np.zeros((4, 5, 5, 4), np.uint8), labels=[0, 1, 0, 1])
    write_folder(tmp_path, [encoded(picture) for picture in PIXELS[:4]], [f"{row}.png" for row in range(4)])
    for name, labels in (("holes", (1, None, 2, 1)), ("mixed", (1, "1", 2, 2))):
        rows = [json.dumps({"file": f"{row}.png", "label": label}) for row, label in enumerate(labels)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=message):
        load(**({"path": "a.npz"} | arguments))


@pytest.mark.real_data
def test_cifar10_opens_with_its_classes(real_data):
    train = open_media(str(real_data / "cifar10" / "train.npz"), "image", field="image")
    classes, counts = np.unique(train.columns["label"], return_counts=True)
    assert len(train) == 50_000 and counts.tolist() == [5000] * 10
    data = load(str(real_data / "cifar10" / "test.npz"), size=32, valid_fraction=0.2)
    assert data.spec.label_names == tuple(classes) and classes[0] == "airplane" and classes[9] == "truck"
    assert (len(data.splits["train"].examples), len(data.splits["val"].examples)) == (8000, 2000)
    assert data.splits["train"].examples[0]["image"].shape == (32, 32, 3)
    assert data.facts["skipped"] == {"train": 0}
