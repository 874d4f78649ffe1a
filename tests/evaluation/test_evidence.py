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


def test_the_table_shows_every_arm():
    budget = compare([0.8, 0.82], [0.7, 0.72], {"tfidf": [0.75, 0.75]})
    lines = table([budget | {"labels": 1234, "wall_seconds": {"pretrained": 61.0, "scratch": 59.0}}], "test/accuracy")
    assert lines[0].startswith("test/accuracy in percent")
    for part in ("1,234", "81.0 ± ", "71.0 ± ", "+10.0 ± 0.0 *", "tfidf 75.0", "120 s"):
        assert part in lines[-1]
    assert len({len(line) for line in lines[1:]}) == 1
