"""Pictures with captions: every layout, groups of equal captions, and what is refused."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from research.build import build
from research.data import DATA
from research.data.tokenizers import from_json
from tests.media_files import encoded, flat, pictures, write_folder, write_tar

PIXELS = pictures(11)
BYTES = [encoded(picture) for picture in PIXELS]
TEXTS = [f"picture {row // 2}" for row in range(11)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def load(path, **arguments):
    block = {"name": "image_text", "path": path, "size": 5, "length": 13, "tokenizer": {"name": "byte"}}
    return build(block | {"valid_fraction": 0.2} | arguments, DATA, kind="data")


def jsonl(place, rows=None, name="captions.jsonl"):
    write_folder(place, BYTES, [f"pictures/{row}.png" for row in range(11)])
    rows = rows or [{"file": f"pictures/{row}.png", "text": text} for row, text in enumerate(TEXTS)]
    (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place / name)


def table_of_files(place):
    jsonl(place)
    (place / "captions.csv").write_text(
        "\n".join(["file,text", *(f"pictures/{r}.png,{t}" for r, t in enumerate(TEXTS))])
    )
    return str(place / "captions.csv")


def npz(place):
    data, offsets = flat(BYTES)
    np.savez(place / "images.npz", data=data, offsets=offsets)
    (place / "meta.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return str(place / "images.npz")


def tar(place):
    members = [(f"{row}.{form}", held[row]) for row in range(11) for form, held in (("png", BYTES), ("txt", TEXTS))]
    return write_tar(place / "a.tar", members)


def parquet(place):
    column = [{"bytes": content, "path": None} for content in BYTES]
    pyarrow.parquet.write_table(pyarrow.table({"image": column, "text": TEXTS}), place / "a.parquet")
    return str(place / "a.parquet")


@pytest.mark.parametrize("layout", [jsonl, table_of_files, npz, tar, parquet], ids=lambda layout: layout.__name__)
def test_every_layout_gives_pictures_with_their_captions(tmp_path, layout):
    data = load(layout(tmp_path))
    tokenizer = from_json(data.tokenizer)
    found = {}
    for split in data.splits.values():
        rows = split.examples.rows(np.arange(len(split.examples)))
        for row, text in enumerate(split.texts):
            found[rows["image"][row].tobytes()] = text
            ids = [data.spec.bos_id, *tokenizer.encode(text, add_special_tokens=False).ids, data.spec.eos_id]
            real = rows["segment_ids"][row] > 0
            assert rows["tokens"][row][real].tolist() == ids and not rows["tokens"][row][~real].any()
            assert rows["positions"][row].tolist() == [*range(len(ids)), *[0] * (13 - len(ids))]
        assert rows["group"].dtype == np.int32 and rows["tokens"].dtype == np.int32
    assert found == {picture.tobytes(): text for picture, text in zip(PIXELS, TEXTS, strict=True)}
    assert (data.spec.image_size, data.spec.num_channels, data.spec.length) == (5, 3, 13)
    assert data.facts["train"]["rows"] == data.facts["train"]["pictures"] == 9
    json.dumps(data.facts)


def test_equal_captions_are_of_one_group(tmp_path):
    split = load(jsonl(tmp_path)).splits["train"]
    groups = split.examples.rows(np.arange(len(split.texts)))["group"]
    for one, first in zip(groups, split.texts, strict=True):
        assert [one == other for other in groups] == [first == second for second in split.texts]


def test_captions_of_several_fields_are_joined_and_cut(tmp_path):
    rows = [
        {
            "file": f"pictures/{row}.png",
            "name": f"n{row}",
            "words": ["a", "", "b"],
            "note": None if row else "long " * 9,
        }
        for row in range(11)
    ]
    data = load(
        jsonl(tmp_path, rows), text_fields=("name", "words", "note"), valid_select=("name=n1",), select=("name!=n1",)
    )
    assert data.splits["val"].texts == ["n1, a, b"]
    assert data.splits["train"].texts[0] == "n0, a, b, " + ("long " * 9).strip()
    assert data.facts["train"]["cut_texts"] == 1
    assert data.facts["train"]["bytes"] == sum(map(len, data.splits["train"].texts))


def test_a_picture_with_several_captions_stays_on_one_side(tmp_path):
    rows = [{"file": f"pictures/{row % 11}.png", "text": f"caption {row}"} for row in range(33)]
    path = jsonl(tmp_path, rows)
    for seed in range(3):
        data = load(path, valid_fraction=0.4, seed=seed)
        assert data.facts["shared_rows"] == {"train-val": 0}
        assert data.facts["val"]["pictures"] == 4 and data.facts["val"]["rows"] == 12
        assert data.facts["duplicates_in_train"] == 14
    assert data.splits["train"].examples.pictures.values.shape == (11, 5, 5, 3)


def test_a_budget_is_of_pairs(tmp_path):
    path = jsonl(tmp_path)
    chosen = [load(path, num_labels=4, labels_seed=seed).splits["train"].texts for seed in range(3)]
    assert all(len(texts) == 4 for texts in chosen) and len({tuple(texts) for texts in chosen}) > 1


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"file": "pictures/99.png", "text": "x"}], {}, "record 1: file='pictures/99.png' is no file in"),
        (
            [{"file": "pictures/0.png", "text": " "}, {"file": "pictures/1.png", "text": "x"}],
            {},
            "0.png has no caption",
        ),
        (
            [{"file": "pictures/0.png"}, {"file": "pictures/1.png", "text": "x"}],
            {"valid_fraction": 0.5},
            "0.png has no c",
        ),
        (
            [{"file": "pictures/0.png", "text": 3}, {"file": "pictures/1.png", "text": 4}],
            {},
            "png: field 'text' holds [34], wanted text",
        ),
        (None, {"text_fields": ("alt",)}, "no field 'alt'; the fields present are: file, text"),
        (None, {"text_fields": ()}, "text_fields is empty; name the field"),
        (None, {"length": 2}, "length=2 leaves no room"),
        (None, {"valid_fraction": 0.01}, "valid_fraction=0.01 of the 11 pictures"),
        (None, {"test_select": ("text=picture 0",)}, "pictures/0.png is chosen by both select and test_select"),
        (None, {"num_labels": 10}, "num_labels=10: .* has 9 training rows"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, rows, arguments, message):
    path = jsonl(tmp_path, rows)
    with pytest.raises(ValueError, match=message):
        load(path, **({"valid_fraction": 0.5} if rows else {}) | arguments)


def test_a_picture_without_a_caption_and_a_caption_without_a_picture_are_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.png", BYTES[0]), ("1.txt", "one"), ("2.png", BYTES[1])])
    with pytest.raises(ValueError, match="a.tar, 2.png has no caption"):
        load(path, valid_fraction=0.5)
    path = write_tar(tmp_path / "b.tar", [("1.png", BYTES[0]), ("1.txt", "one"), ("2.txt", "two")])
    with pytest.raises(ValueError, match="b.tar, 2: no pictures beside txt"):
        load(path, valid_fraction=0.5)


@pytest.mark.real_data
def test_emoji_are_split_by_concept_or_by_style(real_data):
    path = str(real_data / "emoji_pairs")
    by_concept = {"select": ("split=train",), "valid_select": ("split=valid",), "test_select": ("split=test",)}
    data = load(path, size=64, text_fields=("name",), **by_concept)
    assert [len(data.splits[name].examples) for name in ("train", "val", "test")] == [3803, 374, 819]
    assert data.splits["train"].texts[0] == "locked with pen"
    assert data.splits["train"].examples[0]["image"].shape == (64, 64, 3)
    data = load(
        path, size=64, text_fields=("name", "keywords"), select=("style=noto|emojione",), test_select=("style=twemoji",)
    )
    assert len(data.splits["test"].examples) == 845
    assert len(data.splits["train"].examples) + len(data.splits["val"].examples) == 2383 + 1768


@pytest.mark.real_data
def test_openstax_figures_have_captions(real_data):
    by_module = {"select": ("split=train",), "valid_select": ("split=valid",), "test_select": ("split=test",)}
    data = load(str(real_data / "openstax_figures" / "images.npz"), size=32, text_fields=("alt",), **by_module)
    assert [len(data.splits[name].examples) for name in ("train", "val", "test")] == [885, 68, 120]
    assert data.splits["train"].texts[1] == "An image of Tarana Burke."
