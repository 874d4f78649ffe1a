"""Menu of objectives."""

from research.objectives.causal_lm import CausalLM
from research.objectives.classification import Classification
from research.objectives.image_text import CLIP, SigLIP
from research.objectives.masked_lm import MaskedLM
from research.objectives.masked_patches import MaskedPatches
from research.objectives.moco import MoCo
from research.objectives.multi_label import MultiLabel
from research.objectives.pairs import Pairs
from research.objectives.question_answering import QuestionAnswering
from research.objectives.regression import Regression
from research.objectives.simclr import SimCLR
from research.objectives.simcse import SimCSE
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
    "moco": MoCo,
    "simcse": SimCSE,
    "clip": CLIP,
    "siglip": SigLIP,
    "masked_patches": MaskedPatches,
    "question_answering": QuestionAnswering,
}
