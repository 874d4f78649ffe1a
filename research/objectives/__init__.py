"""Menu of objectives."""

from research.objectives.causal_lm import CausalLM
from research.objectives.classification import Classification
from research.objectives.masked_lm import MaskedLM
from research.objectives.masked_patches import MaskedPatches
from research.objectives.multi_label import MultiLabel
from research.objectives.pairs import Pairs
from research.objectives.question_answering import QuestionAnswering
from research.objectives.regression import Regression
from research.objectives.simclr import SimCLR
from research.objectives.tagging import Tagging

OBJECTIVES = {
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "classification": Classification,
    "multi_label": MultiLabel,
    "regression": Regression,
    "tagging": Tagging,
    "pairs": Pairs,
    "simclr": SimCLR,
    "masked_patches": MaskedPatches,
    "question_answering": QuestionAnswering,
}
