"""Which way a figure is better, and what follows for the choice of checkpoints."""

import pytest

from research.evaluation.tasks import TASKS, measure_of
from research.metrics import more_is_better
from research.settings import Saving

BETTER = ("val/accuracy", "test/f1", "val/macro_f1", "val/r2", "test/mean_reciprocal_rank", "val/recall_at_1", "val/em")
WORSE = ("val/loss", "test/log_loss", "val/perplexity", "test/rmse", "val/ece", "image_to_text_mean_rank", "val/mse")


@pytest.mark.parametrize("figure", BETTER)
def test_more_is_better_of_shares(figure):
    assert more_is_better(figure)
    assert Saving(metric=figure).best == "max" and Saving(metric=figure, mode="min").best == "min"


@pytest.mark.parametrize("figure", WORSE)
def test_less_is_better_of_errors(figure):
    assert not more_is_better(figure)
    assert Saving(metric=figure).best == "min" and Saving(metric=figure, mode="max").best == "max"


def test_runs_are_compared_by_a_figure_of_which_more_is_better():
    assert all(more_is_better(measure_of(objective, ())) for objective in TASKS)
    assert measure_of("tagging", ("ADJ", "NOUN")) == "accuracy"
    assert measure_of("tagging", ("B-city", "I-city", "O")) == "f1"  # nearly every word is in no span
