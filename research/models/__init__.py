"""Menus of models and heads; those of backbones are in `backbones.py`, which models of two towers read as well."""

from research.models.backbones import IMAGE_MODELS, MODELS
from research.models.dual_encoder import DualEncoderConfig
from research.models.heads import LanguageHead, Model
from research.models.task_heads import ClassificationHead, EmbeddingHead, SpanHead, TaggingHead

# Of two towers, whose vectors are compared.
PAIR_MODELS = {"dual_encoder": DualEncoderConfig}
HEADS = {
    "language": LanguageHead,
    "classification": ClassificationHead,
    "tagging": TaggingHead,
    "spans": SpanHead,
    "embedding": EmbeddingHead,
}

__all__ = ["HEADS", "IMAGE_MODELS", "MODELS", "PAIR_MODELS", "Model"]
