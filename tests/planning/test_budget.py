"""What a time is enough for, by the rule that is stated, against figures worked out by hand."""

import pytest

from research.planning.budget import spend

MEASURED = dict(compile_seconds=60.0, step_seconds=0.5, batch_size=10, flops_per_example=1e9, tokens_there=0.0)


def test_the_time_gives_steps_and_the_size_that_20_tokens_a_parameter_make():
    found = spend(minutes=11.0, tokens_per_example=100, **MEASURED)
    assert found.num_steps == 1200
    assert found.flops_per_second == pytest.approx(2e10)
    compute = 2e10 * 600
    assert found.suited_tokens == pytest.approx(20 * (compute / 120) ** 0.5)
    assert found.limited_by == "the time"
    assert found.parameters == 12 * found.depth * found.width**2
    assert found.width % found.num_heads == 0
    assert f"--config.model.width={found.width}" in found.describe()


def test_little_text_sets_the_limit():
    found = spend(minutes=11.0, tokens_per_example=100, **MEASURED | {"tokens_there": 1e5})
    assert found.suited_tokens == pytest.approx(4e5) and found.limited_by == "the text"
    assert found.suited_steps == 400


def test_without_tokens_only_steps_are_said():
    found = spend(minutes=11.0, tokens_per_example=0, **MEASURED)
    assert found.num_steps == 1200 and not found.width and "model.width" not in found.describe()
