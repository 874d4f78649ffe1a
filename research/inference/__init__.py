"""Using a trained model on text: continuing it, filling masks in it, labelling it, making vectors of it."""

from research.inference.classify import classify
from research.inference.embed import embed
from research.inference.fill_mask import fill_mask
from research.inference.generate import Sampling, generate
from research.inference.text_model import TextModel

__all__ = ["Sampling", "TextModel", "classify", "embed", "fill_mask", "generate"]
