"""Using a trained model on text: continuing it, filling its masks, labelling it or its words, answering questions about
it, making it a vector."""

from research.inference.answer import answer
from research.inference.classify import classify
from research.inference.embed import embed
from research.inference.fill_mask import fill_mask
from research.inference.generate import Sampling, generate
from research.inference.tag import tag
from research.inference.text_model import TextModel

__all__ = ["Sampling", "TextModel", "answer", "classify", "embed", "fill_mask", "generate", "tag"]
