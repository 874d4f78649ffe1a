"""Seeds of two arms: the arithmetic against scipy, and a small gathering of evidence end to end."""

import numpy as np
import pytest
from scipy import stats

from research.evaluation.evidence import compare, interval, table


def test_the_interval_is_student_s():
    values = [0.7, 0.75, 0.71, 0.78]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    with pytest.raises(ValueError, match="two values or more, not 1"):
        interval([0.5])


def test_the_interval_of_folds_is_that_of_nadeau_and_bengio():
    """Their formula as it stands: the statistic of the corrected resampled t-test is mean / (interval / t)."""
    values, num_train, num_test = [0.02, 0.05, 0.01, 0.04, 0.03], 80, 20
    mean = sum(values) / 5
    variance = sum((value - mean) ** 2 for value in values) / 4
    wanted = stats.t.ppf(0.975, 4) * ((1 / 5 + num_test / num_train) * variance) ** 0.5
    assert interval(values, test_share=num_test / num_train) == pytest.approx(wanted, rel=1e-12)
    assert wanted == pytest.approx(1.5 * interval(values))  # √(0.45 / 0.2)


def test_folds_are_harder_to_beat():
    pretrained, scratch = [0.72, 0.75, 0.71], [0.7, 0.71, 0.7]
    plain, folds = (compare(pretrained, scratch, {"tfidf": scratch}, test_share=share) for share in (0.0, 0.5))
    ratio = (1 + 3 * 0.5) ** 0.5
    for arm in ("pretrained", "scratch", "paired_difference"):
        assert folds[arm]["interval95"] == pytest.approx(ratio * plain[arm]["interval95"])
    assert folds["floors"]["tfidf"]["interval95"] == folds["scratch"]["interval95"]
    assert not folds["beats_scratch"]


def test_the_difference_is_paired():
    """Arms that vary much, together: the difference is sure where the means are not."""
    scratch = [0.5, 0.6, 0.7]
    found = compare([value + gain for value, gain in zip(scratch, (0.02, 0.021, 0.019), strict=True)], scratch, {})
    assert found["pretrained"]["interval95"] > 0.2
    assert found["paired_difference"]["mean"] == pytest.approx(0.02)
    assert found["beats_scratch"]
    assert not compare([0.5, 0.7], [0.4, 0.7], {})["beats_scratch"]
    with pytest.raises(ValueError, match="2 pretrained and 1 scratch runs"):
        compare([0.1, 0.2], [0.1], {})


def test_of_errors_and_losses_less_is_better():
    pretrained, scratch = [0.51, 0.52], [0.71, 0.72]
    assert compare(pretrained, scratch, {}, ascending=False)["beats_scratch"]
    assert not compare(scratch, pretrained, {}, ascending=False)["beats_scratch"]
    budget = compare(pretrained, scratch, {"tfidf": scratch}, ascending=False)
    budget |= {"labels": 99, "wall_seconds": {"pretrained": 1.0, "scratch": 1.0}}
    lines = table({"metric": "test/log_loss", "seeds": 2, "budgets": [budget]})
    assert lines[0].startswith("test/log_loss over 2 seeds")  # nothing in percent
    for part in ("0.515 ± ", "0.715 ± ", "-0.200 ± 0.000 *", "tfidf 0.715"):
        assert part in lines[-1]


def test_the_table_shows_every_arm():
    budget = compare([0.8, 0.82], [0.7, 0.72], {"tfidf": [0.75, 0.75]})
    budget |= {"labels": 1234, "wall_seconds": {"pretrained": 61.0, "scratch": 59.0}}
    lines = table({"metric": "test/accuracy", "seeds": 2, "budgets": [budget]})
    assert lines[0] == "test/accuracy in percent over 2 seeds: mean ± 95 % interval; * beyond the interval"
    for part in ("1,234", "81.0 ± ", "71.0 ± ", "+10.0 ± 0.0 *", "tfidf 75.0", "120 s"):
        assert part in lines[-1]
    assert len({len(line) for line in lines[1:]}) == 1
