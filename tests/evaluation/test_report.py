"""The page of a run: what the workdir holds, escaped, in one file; what it lacks, in a sentence."""

import html.parser
import json
import math
import re
from typing import Any

import pytest

from research.evaluation.charts import MOST_POINTS, Series, chart, nice_ticks, short, thin
from research.evaluation.report import write_report

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
MATRIX = [[1712, 41, 83, 64], [15, 1861, 11, 13], [69, 12, 1654, 165], [72, 18, 137, 1673]]


def fake_run(workdir, *, num_steps=2000, num_lines=200):
    """A finished run as the doors leave it."""
    lines = []
    for step in range(num_steps // num_lines, num_steps + 1, num_steps // num_lines):
        done = step / num_steps
        line = {
            "step": step,
            "train/loss": 3.1 + 5.4 * math.exp(-9 * done) + 0.06 * math.sin(37 * step),
            "train/accuracy": 0.42 * (1 - math.exp(-6 * done)),
            "train/rate": 1e-3 * min(10 * done, 0.5 + 0.5 * math.cos(math.pi * done)),
            "train/examples_per_second": 96.0 + math.sin(step),
            "train/tokens_per_second": 12300 + 160 * math.sin(11 * step),
            "train/data_wait": 0.012 + 0.01 * abs(math.sin(step)),
        }
        if step % (num_steps // 8) == 0:
            line |= {"val/loss": 3.25 + 5.2 * math.exp(-9 * done), "val/accuracy": 0.4 * (1 - math.exp(-6 * done))}
        lines.append(json.dumps(line))
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    candidates = [
        {"token": token, "probability": p} for token, p in ((" self", 0.913), (" cls", 0.041), ("<i>", 0.008))
    ]
    contents = {
        "run.json": {
            "command": "python -m research.pretrain --config=configs/quickstart.py --workdir=runs/quickstart",
            "commit": "4f2a91c",
            "date": "2026-03-14T09:26:53+0100",
            "starts": [],
            "machine": {"devices": "1 x cpu", "cores": 2, "system": "Linux-6.1-x86_64", "python": "3.11.9"},
            "versions": {"jax": "0.10.2", "flax": "0.12.8"},
            "data": {"fingerprint": "9be1c5a0", "num_documents": 1873},
        },
        "config.json": {
            "seed": 0,
            "num_steps": num_steps,
            "batch_size": 32,
            "model": {"name": "transformer", "width": 128, "depth": 4, "num_heads": 4},
            "objective": {"name": "masked_lm", "rate": 0.15, "whole_words": True},
            "optimizer": {"name": "adamw", "peak_rate": 0.001, "schedule": {"name": "cosine", "warmup_steps": 200}},
            "data": {"name": "text", "path": "embedded:corpus", "length": 128},
        },
        "result.json": {
            "step": num_steps,
            "val/loss": 3.2506,
            "val/perplexity": 25.81,
            "val/bits_per_byte": 1.482,
            "test/accuracy": 0.9079,
            "test/f1": 0.9076,
            "test/roc_auc": math.nan,
            "floor/val/unigram": 6.5127,
            "floor/val/kneser_ney_5": 4.1888,
            "floor/val/kneser_ney_5_bits_per_byte": 1.9114,
            "floor/test/tfidf_accuracy": 0.881,
            "floor/test/tfidf_f1": 0.8803,
            "test/confusion": MATRIX,
            "test/per_class": {"World": {"precision": 0.916}},
            "label_names": LABELS,
            "first_step_seconds": 7.3,
            "peak_memory_mb": 812.5,
            "wall_seconds": 213.7,
            "shared_rows": {"train-test": 3},
        },
        "samples.json": [
            {"kind": "fill_mask", "input": "def <mask>(<mask>, name):", "output": [candidates, candidates]},
            {"kind": "generate", "input": "import os\n", "output": "import os\n\n\ndef main():\n    return 0"},
            {"kind": "classify", "input": "Oil prices fell", "output": {"label": "Business", "probability": 0.87}},
        ],
    }
    for name, content in contents.items():
        (workdir / name).write_text(json.dumps(content))
    return workdir


class Reader(html.parser.HTMLParser):
    """Collects the tags, and fails on one that is not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert not reader.open
    return reader


def text_of(path) -> str:
    return " ".join(" ".join(read(path).text).split())


def test_a_finished_run_shows_all_its_parts(tmp_path):
    path = write_report(fake_run(tmp_path))
    assert path == tmp_path / "report.html"
    text = text_of(path)
    for part in ("Results", "Curves", "Confusion matrix", "Samples", "Config as it ran", "--workdir=runs/quickstart"):
        assert part in text
    for part in (
        "4f2a91c",
        "3 min 34 s",
        "1 x cpu, 2 cores",
        "finished, step 2,000 of 2,000",
        "optimizer.schedule.warmup_steps",
    ):
        assert part in text
    assert "Filled masks" in text and "91.3%" in text and "There is no" not in text


def test_the_page_needs_no_other_file(tmp_path):
    path = write_report(fake_run(tmp_path))
    tags = read(path).tags
    assert not {tag for tag, _ in tags} & {"link", "script", "img", "iframe", "object"}
    assert not [attrs for _, attrs in tags if {"src", "href"} & attrs.keys()]
    assert "url(" not in path.read_text() and "@import" not in path.read_text()
    assert path.stat().st_size < 200_000


def test_floors_stand_in_the_row_of_their_figure(tmp_path):
    page = write_report(fake_run(tmp_path)).read_text()
    rows = {row[: row.index("</th>")]: row for row in page.split("<tr><th>") if "</th>" in row}
    assert "6.513 <small>-3.26</small>" in rows["val loss"]
    assert "1.911 <small>-0.429</small>" in rows["val bits per byte"]
    assert "0.881 <small>+0.0269</small>" in rows["test accuracy"]
    assert "0.8803" in rows["test f1"] and "6.513" not in rows["test accuracy"]


def test_a_floor_of_one_split_stands_beside_that_split(tmp_path):
    result = {"val/loss": 3.0, "test/loss": 3.5, "floor/val/unigram": 6.0, "floor/test/unigram": 6.25}
    (tmp_path / "result.json").write_text(json.dumps(result))
    line = json.dumps({"step": 10, "val/loss": 3.0})
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    text = text_of(write_report(tmp_path))
    assert "test loss 3.5 6.25 -2.75 val loss 3 6 -3" in text
    assert "unigram 6 " in text and "unigram 6.25" not in text  # the curve is val's, and so is the line in its chart


def test_a_floor_without_a_figure_is_still_shown(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"step": 3, "val/accuracy": 0.5, "floor/unigram": 6.5}))
    assert "floor unigram 6.5" in text_of(write_report(tmp_path))


def test_scores_per_class_are_those_of_scikit_learn(tmp_path):
    from sklearn.metrics import precision_recall_fscore_support

    matrix = [[3, 1, 0], [2, 5, 0], [1, 0, 0]]  # the last class is never predicted
    (tmp_path / "result.json").write_text(json.dumps({"test/confusion": matrix, "label_names": ["a", "b", "c"]}))
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    true, predicted = zip(*pairs, strict=True)
    wanted: Any = precision_recall_fscore_support(true, predicted, zero_division=0)  # pyright: ignore[reportArgumentType]
    page = write_report(tmp_path).read_text()
    for name, *scores in zip("abc", *wanted, strict=True):
        cells = "".join(f"<td>{score:.3f}</td>" for score in scores[:3])
        assert f"<tr><th>{name}</th>{cells}<td>{scores[3]}</td></tr>" in page


def test_what_a_run_wrote_is_escaped(tmp_path):
    evil = "<script>alert('1')</script>&\"'"
    fake_run(tmp_path)
    (tmp_path / "result.json").write_text(
        json.dumps({f"val/{evil}": 1.5, f"floor/{evil}": 2.0, "note": evil, "val/confusion": [[1, 2], [3, 4]]}
                   | {"label_names": [evil, "b"]})
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({evil: evil}))
    (tmp_path / "run.json").write_text(json.dumps({"command": evil, "machine": {evil: evil}}))
    samples = [{"kind": evil, "input": evil, "output": [{"token": evil, "probability": 0.5}, evil]}]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3000, f"val/{evil}": 1.0}) + "\n")
    path = write_report(tmp_path)
    assert "script" not in {tag for tag, _ in read(path).tags}
    assert "<script" not in path.read_text() and text_of(path).count("<script>alert('1')</script>") >= 9


@pytest.mark.parametrize("missing", ["metrics.jsonl", "result.json", "config.json", "run.json", "samples.json"])
def test_a_missing_file_is_a_sentence(tmp_path, missing):
    fake_run(tmp_path)
    (tmp_path / missing).unlink()
    assert f"There is no {missing} in this workdir (yet)." in text_of(write_report(tmp_path))


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "config.json", "run.json", "samples.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"step": 1, "tr',
        b"\xff\xfe",
        b"7",
        b"[]",
        b"{}",
        b"null",
        b'["x", null]',
        b'{"step": NaN, "wall_seconds": NaN}',
    ],
)
def test_a_half_written_file_never_crashes_the_page(tmp_path, name, content):
    fake_run(tmp_path)
    (tmp_path / name).write_bytes(content)
    read(write_report(tmp_path))


def test_an_empty_workdir_gives_a_page(tmp_path):
    text = text_of(write_report(tmp_path))
    assert "no final result yet, step 0" in text and text.count("There is no") >= 4


def test_a_run_in_progress_shows_its_curves_up_to_the_broken_line(tmp_path):
    fake_run(tmp_path)
    (tmp_path / "result.json").unlink()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(content[: len(content) // 2])
    text = text_of(write_report(tmp_path))
    assert re.search(r"no final result yet, step (990|1,000) of 2,000", text)
    assert "1 of the lines of metrics.jsonl could not be read" in text


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1], [2]], "x", [], [[1, None], [2, 3]], [1, 2]])
def test_a_wrong_confusion_matrix_is_a_sentence(tmp_path, matrix):
    (tmp_path / "result.json").write_text(json.dumps({"val/confusion": matrix}))
    assert "is not a square table" in text_of(write_report(tmp_path))


def test_a_class_without_examples_has_a_row(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"val/confusion": [[0, 0], [1, 2]], "label_names": ["a", "b"]}))
    assert "b 1 2" in text_of(write_report(tmp_path))


def test_many_classes_are_listed_by_their_confusions(tmp_path):
    matrix = [[50 if i == j else 0 for j in range(37)] for i in range(37)]
    matrix[5][31] = 17
    (tmp_path / "result.json").write_text(json.dumps({"val/confusion": matrix}))
    assert "class 5 class 31 17" in text_of(write_report(tmp_path))


def test_mistakes_are_shown_where_nothing_else_is_judged(tmp_path):
    wrong = {"text": "who?", "label": "no answer", "predicted": "Anna", "probability": 0.75}
    (tmp_path / "result.json").write_text(json.dumps({"test/f1": 0.5, "test/mistakes": [wrong]}))
    assert "Mistakes it was surest of who? no answer, called Anna (75.0%)" in text_of(write_report(tmp_path))


def test_no_workdir_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a directory"):
        write_report(tmp_path / "nowhere")


def test_a_nan_is_a_gap_in_the_curve():
    curve = Series("train", "train", [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, math.nan, 4.0, 5.0])
    drawn = chart("Loss", [curve], floors={"none": math.nan}, from_zero=False, wide=False)
    (line,) = re.findall(r'class="line train" d="([^"]*)"', drawn)
    assert line.count("M") == 2 and line.count("L") == 2 and "nan" not in drawn
    nothing = Series("train", "train", [1.0], [math.nan])
    assert chart("Loss", [nothing], floors={}, from_zero=False, wide=False) == ""


def test_a_curve_lies_where_its_values_say():
    curve = Series("val", "val", [0.0, 10.0, 20.0], [0.0, 2.0, 4.0])
    drawn = chart("Loss", [curve], floors={"unigram": 3.0}, from_zero=True, wide=False)
    assert 'd="M0.0 100.0L50.0 50.0L100.0 0.0"' in drawn
    assert '<path class="floor" d="M0 25.0H100"/>' in drawn and "unigram 3" in drawn


def test_long_curves_are_averaged_and_end_at_their_last_step():
    steps = [float(step) for step in range(1, 10 * MOST_POINTS + 4)]
    thinned = thin(Series("train", "train", steps, [step % 2 for step in steps]))
    assert len(thinned.steps) <= MOST_POINTS and thinned.steps[-1] == steps[-1]
    assert all(0.4 <= value <= 0.6 for value in thinned.values[:-1])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (3.1, 8.7), (-2, 5), (0, 1e-3), (0, 2000), (4, 4), (0, 0), (1e-9, 2e-9)]
)
def test_ticks_span_the_range_with_round_numbers(low, high):
    ticks = nice_ticks(float(low), float(high))
    assert 3 <= len(ticks) <= 7 and ticks[0] <= low and ticks[-1] >= high


def test_numbers_are_legible():
    shown = {
        3.25061: "3.251",
        2000.0: "2,000",
        0.00012345: "0.0001234",
        12345.6: "12.35k",
        1.5e7: "15M",
        math.nan: "n/a",
    }
    assert {value: short(value) for value in shown} == shown


def test_figures_by_class_without_a_confusion_matrix_have_a_table(tmp_path):
    per_class = {"<toxic>": {"f1": 0.25, "support": 11, "roc_auc": 0.75}, "kind": {"f1": 0.0, "support": 0}}
    (tmp_path / "result.json").write_text(json.dumps({"test/accuracy": 0.5, "test/per_class": per_class}))
    write_report(tmp_path)
    shown = text_of(tmp_path / "report.html")
    for text in ("By class: test", "<toxic>", "roc auc", "0.75", "kind"):
        assert text in shown, text
    (tmp_path / "result.json").write_text(json.dumps({"test/confusion": MATRIX, "test/per_class": per_class}))
    write_report(tmp_path)
    assert "By class" not in text_of(tmp_path / "report.html")
