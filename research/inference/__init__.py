"""Using a trained model on text: continuing it, answering a prompt or a question about it, filling its masks, labelling
it or its words, making it a vector."""

from research.inference.answer import answer
from research.inference.classify import classify
from research.inference.embed import embed
from research.inference.fill_mask import fill_mask
from research.inference.generate import Sampling, generate
from research.inference.multi_label import label
from research.inference.prompts import answer_prompts
from research.inference.regress import regress
from research.inference.tag import tag
from research.inference.text_model import TextModel

__all__ = [
    "Sampling",
    "TextModel",
    "answer",
    "answer_prompts",
    "classify",
    "embed",
    "fill_mask",
    "generate",
    "label",
    "regress",
    "tag",
]
