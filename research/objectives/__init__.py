"""Menu of objectives."""

from research.objectives.causal_lm import CausalLM
from research.objectives.classification import Classification
from research.objectives.masked_lm import MaskedLM
from research.objectives.question_answering import QuestionAnswering
from research.objectives.tagging import Tagging

OBJECTIVES = {
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "classification": Classification,
    "tagging": Tagging,
    "question_answering": QuestionAnswering,
}
