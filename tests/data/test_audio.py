"""Recordings as clips of one length: labels, speakers left out, rates, and what is refused."""

import io
import json

import numpy as np
import pytest
import soundfile

from research.build import build
from research.data import DATA
from tests.media_files import flat, recordings, wav, write_folder, write_tar

LENGTHS = [997, 400, 1009, 1601, 733, 811, 1200, 1, 640]
CLIPS = recordings(LENGTHS)
SPEAKERS = ("ann", "bob", "cid")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def npz(place, rate=8000):
    data, offsets = flat(CLIPS)
    told = {"label": np.arange(9, dtype=np.uint8) % 2, "speaker": np.arange(9, dtype=np.uint8) // 3}
    told |= {"speaker_names": np.array(SPEAKERS), "sample_rate": np.int64(rate), "is_test": np.arange(9) > 6}
    np.savez(place / "a.npz", audio=data, offsets=offsets, **told)
    return str(place / "a.npz")


def load(path, name="audio_classification", **arguments):
    block = {"name": name, "path": path, "sample_rate": 8000, "seconds": 0.125, "valid_fraction": 0.3}
    return build(block | arguments, DATA, kind="data")


def padded(clip):
    return np.pad(clip[:1000], (0, max(0, 1000 - len(clip))))


def test_clips_are_cut_or_followed_by_zeros(tmp_path):
    data = load(npz(tmp_path), select=("is_test=false",), valid_select=("is_test=true",))
    for split, rows in (("train", range(7)), ("val", range(7, 9))):
        found = data.splits[split].examples.rows(np.arange(len(rows)))
        np.testing.assert_array_equal(found["audio"], [padded(CLIPS[row]) for row in rows])
        assert found["audio_length"].tolist() == [min(LENGTHS[row], 1000) for row in rows]
        assert found["label"].tolist() == [row % 2 for row in rows]
        assert found["audio"].dtype == np.int16 and found["audio_length"].dtype == np.int32
    assert (data.spec.sample_rate, data.spec.audio_length, data.spec.label_names) == (8000, 1000, ("0", "1"))
    facts = data.facts["train"]
    assert facts["cut_rows"] == 3 and facts["resampled_from"] == {} and facts["averaged_channels"] == 0
    assert facts["seconds"] == pytest.approx(sum(min(length, 1000) for length in LENGTHS[:7]) / 8000)
    json.dumps(data.facts)


def test_a_speaker_is_left_out(tmp_path):
    data = load(npz(tmp_path), select=("speaker!=bob",), test_select=("speaker=bob",), slice_fields=("speaker",))
    assert data.splits["test"].fields["speaker"] == ["bob"] * 3
    assert set(data.splits["train"].fields["speaker"] + data.splits["val"].fields["speaker"]) == {"ann", "cid"}


def test_layouts_give_the_same_clips(tmp_path):
    names = [f"{'xy'[row % 2]}/{row}.wav" for row in range(9)]
    contents = [wav(clip) for clip in CLIPS]
    stream = io.BytesIO()
    soundfile.write(stream, CLIPS[8], 8000, format="FLAC")
    contents[8], names[8] = stream.getvalue(), "x/8.flac"
    folder = write_folder(tmp_path / "folder", contents, names)
    members = [
        (f"{row}.{name[-3:].replace('lac', 'flac')}", content)
        for row, (name, content) in enumerate(zip(names, contents, strict=True))
    ]
    shard = write_tar(tmp_path / "a.tar", members + [(f"{row}.cls", "xy"[row % 2]) for row in range(9)])
    data, offsets = flat(contents)
    np.savez(tmp_path / "b.npz", data=data, offsets=offsets, labels=["xy"[row % 2] for row in range(9)])
    wanted = {padded(clip).tobytes(): "xy"[row % 2] for row, clip in enumerate(CLIPS)}
    for path in (folder, shard, str(tmp_path / "b.npz")):
        found = load(path)
        clips = {}
        for split in found.splits.values():
            rows = split.examples.rows(np.arange(len(split.examples)))
            clips |= {
                clip.tobytes(): found.spec.label_names[n] for clip, n in zip(rows["audio"], rows["label"], strict=True)
            }
        assert clips == wanted


def test_arrays_of_one_length_are_read(tmp_path):
    samples = np.stack([padded(clip) for clip in CLIPS])
    np.savez(tmp_path / "a.npz", audio=samples / 2**15, labels=np.arange(9) % 2, sample_rate=8000)
    data = load(str(tmp_path / "a.npz"), test_select=("label=1",), select=("label=0",), name="audio")
    np.testing.assert_array_equal(data.splits["test"].examples.rows(np.arange(4))["audio"], samples[1::2])


def test_other_rates_and_channels_are_told_once(tmp_path):
    contents = [wav(CLIPS[0]), wav(CLIPS[0], 16000), wav(np.stack([CLIPS[2]] * 2, axis=1)), wav(CLIPS[4], 16000)]
    path = write_folder(tmp_path / "folder", contents, [f"{row}.wav" for row in range(4)])
    data = load(path, name="audio", test_path=write_folder(tmp_path / "other", [wav(CLIPS[5])], ["0.wav"]))
    assert set(data.splits["train"].examples[0]) == {"audio", "audio_length"} and data.splits["train"].labels == []
    together = [data.facts[name] for name in ("train", "val")]
    assert sum(facts["resampled_from"].get("16000", 0) for facts in together) == 2
    assert sum(facts["averaged_channels"] for facts in together) == 1
    lengths = np.concatenate(
        [
            data.splits[n].examples.rows(np.arange(len(data.splits[n].examples)))["audio_length"]
            for n in ("train", "val")
        ]
    )
    assert sorted(lengths.tolist()) == [367, 499, 997, 1000]


def test_damaged_and_empty_recordings_are_named_or_skipped(tmp_path):
    contents = [wav(clip) for clip in CLIPS]
    contents[1], contents[4] = contents[1][:-9], wav(CLIPS[0][:0])
    path = write_folder(tmp_path / "folder", contents, [f"{'xy'[row % 2]}/{row}.wav" for row in range(9)])
    with pytest.raises(ValueError, match="x/4.wav cannot be decoded: it holds no sound \\(1 more cannot either\\)"):
        load(path)
    data = load(path, skip_undecodable=True)
    assert data.facts["skipped"] == {"train": 2}
    assert data.facts["train"]["rows"] + data.facts["val"]["rows"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.00001}, "sample_rate=8000 and seconds=1e-05 give clips without samples"),
        ({"sample_rate": 0}, "sample_rate=0 and seconds=0.125 give clips without samples"),
        ({"select": ("speaker=dan",)}, "no row of .* has the value 'dan'"),
        ({"test_select": ("speaker=ann",)}, "row 1 is chosen by both select and test_select \\(3 rows are\\)"),
        ({"label_field": "digit"}, "no field 'digit'"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(npz(tmp_path), **arguments)


@pytest.mark.real_data
def test_spoken_digits_leave_a_speaker_out(real_data):
    path = str(real_data / "fsdd" / "fsdd.npz")
    data = load(path, seconds=1.0, select=("speaker!=george",), test_select=("speaker=george",), valid_fraction=0.1)
    assert [len(data.splits[name].examples) for name in ("train", "val", "test")] == [2250, 250, 500]
    assert data.spec.label_names == tuple("0123456789") and data.facts["test"]["labels"] == {
        str(n): 50 for n in range(10)
    }
    official = load(path, name="audio", seconds=1.0, select=("is_test=false",), test_select=("is_test=true",))
    assert len(official.splits["test"].examples) == 300
    seconds = sum(official.facts[name]["seconds"] for name in ("train", "val", "test"))
    assert 1290 < seconds < 1312  # of 1312 s a little lies past the first second of a clip
