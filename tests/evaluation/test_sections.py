"""The sections of report.html on what a model is worth: present where measured, with the right numbers."""

import json
import re

import pytest

from research.evaluation.charts import Series, chart
from research.evaluation.evidence import compare, over_runs
from research.evaluation.report import write_report
from tests.evaluation.test_report import read, text_of

RESULT = {
    "test/accuracy": 0.812,
    "shift/accuracy": 0.75,
    "shift/drop": 0.062,
    "robustness/test/typos": {"accuracy": 0.75, "drop": 0.062, "tfidf_accuracy": 0.7, "tfidf_drop": 0.0},
    "robustness/test/upper_case": {"accuracy": 0.85, "drop": -0.038, "tfidf_accuracy": 0.6, "tfidf_drop": 0.1},
    "test/slices": {"source": {"<x>": {"accuracy": 0.5, "rows": 1234, "values": 1234}}},
    "shift/slices": {"length": {"3 to 7": {"accuracy": 0.875, "rows": 8, "values": 8}}},
    "forgetting/rows": 500,
    "forgetting/before": 2.25,
    "forgetting/after": 2.5,
}


def report(tmp_path, result):
    (tmp_path / "result.json").write_text(json.dumps(result))
    return write_report(tmp_path)


def budget(labels, pretrained, scratch, **more):
    found = compare(pretrained, scratch, {"tfidf": [0.7, 0.72]})
    return found | {"labels": labels, "wall_seconds": {"pretrained": 1.0, "scratch": 1.0}} | more


def test_what_was_measured_has_its_section(tmp_path):
    text = text_of(report(tmp_path, RESULT))
    assert "How robust is it? On the test split, perturbed; in brackets the change from the split as it is." in text
    assert "accuracy tfidf accuracy typos 0.750 (-0.062) 0.700 (+0.000)" in text
    assert "upper case 0.850 (+0.038) 0.600 (-0.100)" in text
    assert "Where is it right? test source rows accuracy <x> 1,234 0.500" in text
    assert "Where is it right? shift length rows accuracy 3 to 7 8 0.875" in text
    assert "on 500 of its validation rows" in text and "before after change 2.25 2.5 +0.25" in text
    assert "test accuracy 0.812 shift accuracy 0.75 shift drop 0.062" in text
    for key in ("robustness", "slices", "forgetting"):  # nothing of them is listed a second time
        assert key not in text


def test_what_was_not_measured_has_none(tmp_path):
    text = text_of(report(tmp_path, {"test/accuracy": 0.8, "test/slices": {}}))
    for title in ("How robust", "Where is it right", "forgotten", "Did pretraining"):
        assert title not in text


def test_evidence_of_one_budget_is_a_table(tmp_path):
    found = {"metric": "test/accuracy", "seeds": 2, "budgets": [budget(100, [0.6, 0.62], [0.5, 0.52])]}
    path = report(tmp_path, {"evidence": found})
    assert "test/accuracy in percent over 2 seeds" in text_of(path) and "<svg" not in path.read_text()


def test_evidence_of_folds_says_by_which_test(tmp_path):
    found = {"metric": "test/accuracy", "folds": 5, "budgets": [budget(100, [0.6, 0.62], [0.5, 0.52])]}
    assert "over 5 folds: mean ± 95 % interval (corrected for folds: Nadeau" in text_of(
        report(tmp_path, {"evidence": found})
    )


def test_the_change_of_an_error_is_shown_as_it_is(tmp_path):
    drops = {"typos": {"pretrained": over_runs([-0.25, -0.25]), "scratch": over_runs([0.0, 0.0])}}
    found = [budget(10, [0.5, 0.6], [0.4, 0.4], robustness=drops, robustness_of="mse")]
    text = text_of(report(tmp_path, {"evidence": {"metric": "test/r2", "seeds": 2, "budgets": found}}))
    assert "+0.250" in text and "in mse: mean over the runs" in text and "percentage points" not in text


def test_evidence_of_several_budgets_is_a_curve_and_shows_drops_and_forgetting(tmp_path):
    drops = {"typos": {"pretrained": over_runs([0.1, 0.2]), "scratch": over_runs([0.0, 0.0])}}
    budgets = [
        budget(
            1000, [0.8, 0.8], [0.7, 0.7], robustness=drops, robustness_of="accuracy", forgetting=over_runs([0.5, 0.7])
        ),
        budget(
            10, [0.5, 0.6], [0.4, 0.4], robustness=drops, robustness_of="accuracy", forgetting=over_runs([0.1, 0.3])
        ),
        budget(
            100, [0.7, 0.7], [0.6, 0.6], robustness=drops, robustness_of="accuracy", forgetting=over_runs([0.2, 0.4])
        ),
    ]
    path = report(tmp_path, {"evidence": {"metric": "test/accuracy", "seeds": 2, "budgets": budgets}})
    page, text = path.read_text(), text_of(path)
    read(path)
    (line,) = re.findall(r'class="line train" d="([^"]*)"', page)
    points = [tuple(map(float, point.split())) for point in line[1:].split("L")]
    assert [x for x, _ in points] == pytest.approx([0, 50, 100], abs=1e-3)  # by the logarithm, in ascending order
    assert points[0][1] > points[1][1] > points[2][1]
    assert len(re.findall('class="band', page)) == 2 and len(re.findall('class="line plain"', page)) == 1
    assert "floor: tfidf" in text and "by number of labels" in page
    assert "1,000 pretrained -15.0 1,000 from scratch +0.0 10 pretrained -15.0" in text
    assert "1,000 +0.6 ± 1.3 10 +0.2 ± 1.3 100 +0.3 ± 1.3" in text


def test_a_band_lies_a_half_above_and_a_half_below(tmp_path):
    curve = Series("pretrained", "train", [1.0, 100.0], [2.0, 3.0], [1.0, 1.0])
    drawn = chart("x", [curve], floors={}, from_zero=True, wide=True, by="labels", logarithmic=True)
    assert 'class="band train" d="M0.0 25.0L100.0 0.0L100.0 50.0L0.0 75.0Z"' in drawn and "x by labels" in drawn


def test_evidence_has_no_curve_or_sample_of_its_own_and_says_where_they_are(tmp_path):
    found = {"metric": "test/accuracy", "seeds": 2, "budgets": [budget(100, [0.6, 0.62], [0.5, 0.52])]}
    text = text_of(report(tmp_path, {"evidence": found}))
    assert "of many runs, each with a report of its own under runs/" in text
    assert "Samples" not in text and "Curves" not in text


def test_many_counts_have_one_row(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"data": {"tags": {f"T{index}": index for index in range(12)}}}))
    assert "data.tags T0 0, T1 1, T2 2," in text_of(report(tmp_path, RESULT))
