"""Every format gives the same rows, and every mistake in a file is named with its place."""

import gzip
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from research.data import sources
from research.data.sources import open_records, same_source

REAL = Path(__file__).parents[3] / "shared" / "data"
ROWS = [
    {"text": 'one, "two"\nthree', "label": "a"},
    {"text": "café 中文 \u2028 x", "label": "b"},
    {"text": "", "label": "a"},
]


def plain_bytes(form, rows, folder):
    if form == ".txt":
        return rows[0]["text"].encode()
    if form == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if form == ".csv":
        quoted = ['"' + row["text"].replace('"', '""') + '",' + row["label"] for row in rows]
        return "\r\n".join(["text,label", *quoted]).encode()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "table")
    return (folder / "table").read_bytes()


def packed(data, compression):
    return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[compression](data)


def write(place, data):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(place)


def refused(path, *parts, fields=("text",)):
    with pytest.raises(ValueError) as raised:
        open_records(str(path), fields=fields)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("form", [".txt", ".jsonl", ".csv", ".parquet"])
def test_every_format_gives_its_rows(tmp_path, form, compression):
    path = write(tmp_path / f"data{form}{compression}", packed(plain_bytes(form, ROWS, tmp_path), compression))
    records = open_records(path, fields=("text",))
    assert list(records) == ([{"text": ROWS[0]["text"]}] if form == ".txt" else ROWS)
    assert records.files == [path] and records[-1] == records[len(records) - 1]
    assert records[1:] == list(records)[1:]


def test_rows_are_in_the_order_of_file_names(tmp_path):
    for name in ("b", "a", "sub/c"):
        write(tmp_path / f"{name}.jsonl", f'{{"text": "{name}1"}}\n\n{{"text": "{name}2"}}')
    write(tmp_path / "README.md", "not data")
    write(tmp_path / ".hidden.txt", "not data")
    folder = open_records(str(tmp_path), fields=("text",))
    assert [row["text"] for row in folder] == ["a1", "a2", "b1", "b2", "sub/c1", "sub/c2"]
    assert [folder[i]["text"] for i in (5, 0, 3, -1)] == ["sub/c2", "a1", "b2", "sub/c2"]
    assert [row["text"] for row in open_records(str(tmp_path / "[ab].jsonl"), fields=())] == ["a1", "a2", "b1", "b2"]
    with pytest.raises(IndexError):
        folder[6]


def test_fingerprint_is_of_the_contents_alone(tmp_path):
    one = open_records(write(tmp_path / "one.txt", "same"), fields=())
    two = open_records(write(tmp_path / "deeper" / "two.txt", "same"), fields=())
    other = open_records(write(tmp_path / "other.txt", "else"), fields=())
    assert one.fingerprint == two.fingerprint != other.fingerprint
    rows = open_records(write(tmp_path / "one.csv", "text\nx"), fields=())
    assert len({one.fingerprint, other.fingerprint, rows.fingerprint}) == 3


def test_more_data_than_is_held_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_HELD_BYTES", 7)
    for name in "abc":
        write(tmp_path / f"{name}.txt", name * 5)
    records = open_records(str(tmp_path), fields=("text",))
    assert [records[i]["text"] for i in (2, 0, 1, 0)] == ["ccccc", "aaaaa", "bbbbb", "aaaaa"]
    assert len(records._held) == 1


def test_long_csv_values_and_byte_order_marks_are_read(tmp_path):
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbftext\n" + b"x" * 200_003)
    assert open_records(path, fields=("text",))[0] == {"text": "x" * 200_003}


def test_several_zstd_frames_are_all_read(tmp_path):
    path = write(tmp_path / "a.txt.zst", packed(b"one ", ".zst") + packed(b"two", ".zst"))
    assert open_records(path, fields=("text",))[0]["text"] == "one two"


def test_missing_paths_are_refused(tmp_path):
    refused(tmp_path / "none.txt", "none.txt does not exist")
    refused(tmp_path / "*.txt", "matches no file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "folder without data files", ".jsonl")


def test_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    refused(write(tmp_path / "a.docx", "x"), "a.docx", ".txt, .jsonl, .csv, .parquet", ".gz or .zst")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("data", [b"", b" \n\t\n", b"\xef\xbb\xbf\n"])
def test_empty_files_are_refused(tmp_path, name, data):
    suffix = name[name.rfind(".") :]
    refused(write(tmp_path / name, packed(data, suffix if suffix in (".gz", ".zst") else "")), name, "is empty")


def test_rows_without_any_text_are_refused(tmp_path):
    refused(write(tmp_path / "a.jsonl", '{"text": " "}\n{"text": ""}'), "is empty", "'text'")
    refused(write(tmp_path / "a.csv", "text,label\n"), "is empty")
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "is empty")


def test_broken_jsonl_is_named_with_file_and_line(tmp_path):
    refused(write(tmp_path / "a.jsonl", '{"text": "x"}\n\n{"text": '), "a.jsonl, line 3", "not JSON")
    refused(write(tmp_path / "b.jsonl", '{"text": "x"}\n[1]'), "b.jsonl, line 2", "list")
    refused(write(tmp_path / "c.jsonl", '{"text": "x"}\n{"text": "\\ud800"}'), "c.jsonl, line 2", "lone surrogate")


def test_broken_csv_is_named_with_file_and_line(tmp_path):
    refused(write(tmp_path / "a.csv", 'text,label\n"x\ny",b\nx,y,z\n'), "a.csv, line 4", "more values")
    refused(write(tmp_path / "b.csv", 'text\n"x" y\n'), "b.csv, line 2", "not CSV")
    refused(write(tmp_path / "c.csv", "label,text\na,x\nb\n"), "c.csv, line 3", "no field 'text'", "label")


def test_missing_field_lists_those_present(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "body": "y"}\n{"body": "z", "label": 1, "text": null}')
    refused(path, "a.jsonl, line 2", "no field 'text'", "present are: body, label")
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "a.parquet, row 1", "no field 'text'", "present are: body")
    refused(write(tmp_path / "a.txt", "x"), "no field 'label'", "text", fields=("text", "label"))


def test_invalid_utf8_is_named_with_line_and_byte(tmp_path):
    refused(write(tmp_path / "a.txt", b"one\ntwo \xff"), "a.txt, line 2, byte offset 8", "0xff", "UTF-8")
    refused(write(tmp_path / "b.txt", b"\xef\xbb\xbf\xe4\xb8"), "b.txt, line 1, byte offset 3")
    refused(write(tmp_path / "c.jsonl.gz", gzip.compress(b'{"text": "x"}\n{"text": "\xe9"}')), "c.jsonl.gz, line 2")
    pyarrow.parquet.write_table(pyarrow.table({"text": [b"ok", b"\xff"]}), tmp_path / "d.parquet")
    refused(tmp_path / "d.parquet", "d.parquet, row 2, field 'text'", "byte offset 0")
    invalid = pyarrow.array([b"ok", b"\xff"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": invalid}), tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "e.parquet", "not UTF-8")


@pytest.mark.parametrize("suffix", [".txt.gz", ".txt.zst", ".parquet"])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_damaged_files_are_refused(tmp_path, suffix, damage):
    if suffix == ".parquet":
        data = plain_bytes(suffix, ROWS, tmp_path)
    else:
        data = packed(bytes(range(97)) * 17, suffix.removeprefix(".txt"))
    path = write(tmp_path / f"a{suffix}", data[:-5] if damage == "cut" else b"something else")
    refused(path, f"a{suffix}", "again")


def test_same_files_are_the_same_source(tmp_path):
    train, valid = write(tmp_path / "train.txt", "train text"), write(tmp_path / "valid.txt", "valid text")
    (tmp_path / "link.txt").symlink_to(train)
    copy = write(tmp_path / "elsewhere" / "copy.txt", "train text")
    assert same_source(train, str(tmp_path / "elsewhere" / ".." / "train.txt"))
    assert same_source(train, str(tmp_path / "link.txt")) and same_source(train, copy)
    assert same_source(str(tmp_path), valid) and same_source(str(tmp_path / "v*.txt"), valid)
    assert not same_source(train, valid) and not same_source(valid, str(tmp_path / "elsewhere"))


@pytest.fixture
def embedded(monkeypatch):
    kept = {split: [{"text": f"{split} {i}"} for i in range(3)] for split in ("train", "val")}
    module = types.SimpleNamespace(splits=lambda name: tuple(kept), records=lambda name, split: kept[split])
    monkeypatch.setitem(sys.modules, "research.data.embedded", module)
    monkeypatch.setattr("research.data.embedded", module, raising=False)


def test_embedded_data_have_named_splits(embedded):
    records = open_records("embedded:corpus", fields=("text",))
    assert records[0]["text"] == "train 0" and records.splits == ("train", "val")
    assert open_records("embedded", fields=())[0] == records[0]
    valid = records.split("val")
    assert [row["text"] for row in valid] == ["val 0", "val 1", "val 2"]
    assert valid.fingerprint != records.fingerprint
    refused("embedded:corpus[test]", "no split 'test'", "train, val")
    assert same_source("embedded", "embedded:corpus[train]")
    assert not same_source("embedded:corpus[val]", "embedded:corpus")
    assert not same_source("embedded:corpus", "embedded:pairs")


def test_files_have_no_named_splits(tmp_path):
    records = open_records(write(tmp_path / "a.txt", "x"), fields=())
    assert records.splits == ()
    with pytest.raises(ValueError, match="no named splits"):
        records.split("val")
    assert not same_source(str(tmp_path), "embedded:corpus")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a data set prepared by tfds, without TensorFlow."""
    pytest.importorskip("array_record")
    import tensorflow_datasets as tfds

    class TinyNews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path_factory.mktemp("package")

        def _info(self):
            features = {
                "text": tfds.features.Text(),
                "size": np.int64,
                "label": tfds.features.ClassLabel(names=["no", "yes"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(11), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"text": f"café {count} {i}", "size": i, "label": -1 if i == 2 else i % 2}

    builder = TinyNews(data_dir=tmp_path_factory.mktemp("data"), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_prepared_tfds_folder_is_read_as_text(prepared):
    records = open_records(str(prepared), fields=("text", "label"))
    assert len(records) == 11 and records.splits == ("test", "train")
    assert {row["text"] for row in records} == {f"café 11 {i}" for i in range(11)}
    for row in records:
        assert row["label"] == (-1 if row["size"] == 2 else ["no", "yes"][row["size"] % 2])
        assert type(row["size"]) is int
    assert len(records.split("test")) == 3
    assert len(open_records(f"{prepared}[train[:5]]", fields=())) == 5
    assert len(open_records(str(prepared.parent) + "[test]", fields=())) == 3
    assert "tensorflow" not in sys.modules
    refused(f"{prepared}[valid]", "no split 'valid'", "test, train")
    refused(str(prepared), "row 1", "no field 'body'", "label, size, text", fields=("body",))


def test_tfds_splits_that_share_rows_are_the_same_source(prepared):
    assert same_source(str(prepared), f"{prepared}[train[5:7]]")
    assert same_source(f"{prepared}[train[:6]]", f"{prepared}[train[5:]]")
    assert not same_source(f"{prepared}[train[:5]]", f"{prepared}[train[5:]]")
    assert not same_source(str(prepared), f"{prepared}[test]")


def test_tfds_that_cannot_be_had_is_a_clear_error(tmp_path, monkeypatch):
    refused("tfds:no_such_data_set", "knows no data set 'no_such_data_set'")
    import tensorflow_datasets as tfds

    class Unprepared:
        def is_prepared(self):
            return False

        def download_and_prepare(self):
            raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds, "builder", lambda *arguments, **keywords: Unprepared())
    refused("tfds:ag_news_subset", "cannot be prepared here (ConnectionError: no route to host)", "path of its folder")


@pytest.mark.real_data
def test_real_data_open():
    records = open_records(str(REAL / "docs_en" / "train.jsonl.zst"), fields=("text",))
    assert len(records) == 981 and re.fullmatch("[0-9a-f]{64}", records.fingerprint)
