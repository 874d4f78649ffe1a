"""The inspect door shows the batch that the first step sees."""

import json

import pytest

from research.inspect import Printer, main, show, shown_rows
from tests.pages import ROOT, call, small_page


def looked_at(arguments, capsys) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_the_last_row_is_always_shown():
    assert shown_rows(8, 3) == [0, 1, 7]
    assert shown_rows(8, 1) == [7]
    assert shown_rows(2, 5) == [0, 1]
    with pytest.raises(ValueError, match="--rows=0"):
        shown_rows(8, 0)


def test_masked_rows_are_shown_as_the_first_step_sees_them(corpus, tmp_path, capsys):
    page = small_page(corpus, "masked_lm", objective__rate=0.3)
    shown = looked_at([*page, f"--workdir={tmp_path / 'look'}", "--rows=8"], capsys)
    found = json.loads((tmp_path / "look" / "inspect.json").read_text())
    targets = [each for row in found["batch"] for part in row["segments"] for each in part["targets"]]
    hidden = sum(each["seen"] == "<mask>" for each in targets)
    assert len(found["batch"]) == 8 and hidden > len(targets) / 2 > 10
    assert sum(part["text"].count("<mask>") for row in found["batch"] for part in row["segments"]) == hidden
    assert "<mask>" in shown and "targets: " in shown
    assert found["splits"]["train"]["documents"] == 48
    assert f"{corpus.stat().st_size:,} bytes" in shown


def test_segments_of_a_language_model_have_their_borders(corpus, capsys):
    shown = looked_at([*small_page(corpus, "causal_lm", data__length=61), "--rows=2"], capsys)
    assert "segment 1, tokens 0-" in shown and "to predict" in shown
    assert "<bos>" in shown and "targets: " not in shown


def test_labels_are_shown_beside_their_texts_and_nothing_is_written(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ["data.name=text_classification", f"data.path={corpus}", "data.valid_path=", "data.tokenizer.name=byte"]
    page += ["data.length=31", "objective.name=classification", "batch_size=8"]
    flags = [f"--config={ROOT / 'configs/quickstart.py'}:tiny", *(f"--config.{key}" for key in page)]
    shown = looked_at(flags, capsys)
    assert "->  label number" in shown or "->  label thing" in shown
    assert "train: examples by label" in shown
    assert list(tmp_path.iterdir()) == []


def test_tables_on_a_terminal_hold_the_same(capsys):
    split = {
        "lengths": [(1, 1, 3)],
        "longest": 1,
        "fill": 0.5,
        "fill_tenths": [0] * 9 + [7],
        **dict.fromkeys(("rows", "documents", "tokens", "bytes"), 1234),
        **dict.fromkeys(("bytes_per_token", "unknown", "segments_per_row"), 0.25),
    }
    token = {"id": 5, "token": "[bold]", "count": 11, "share": 0.5}
    found = {
        "objective": "causal_lm",
        "files": {"train": [{"path": "a", "files": {"a": 17}}]},
        "splits": {"train": split},
        "tokens": {"vocab_size": 7, "never_used": 2, "most_frequent": [token]},
        "repeats": {"shared_rows": {"train-val": 3}, "duplicates_in_train": 5, "most_repeated": []},
        "batch": [{"row": 0, "segments": [{"first": 0, "last": 3, "text": "a\n[b]"}], "padding": 2}],
    }
    for terminal in (True, False):
        show(found, Printer(terminal=terminal))
        shown = capsys.readouterr().out
        for text in ("1,234", "'[bold]'", "50.00%", "train-val", "a\\n[b]", "2 of padding", "17 bytes"):
            assert text in shown, (terminal, text)


def test_the_door_exits_with_2_for_a_mistake():
    done = call("inspect", ["--config=configs/quickstart.py:tiny", "--config.data.path=/nowhere"], check=2)
    assert done.stderr.startswith("error: /nowhere does not exist")
