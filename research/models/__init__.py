"""Menus of models and heads."""

from research.models.heads import ClassificationHead, LanguageHead, Model
from research.models.recurrent import gru, lstm
from research.models.transformer import TransformerConfig, bert, gpt2, llama, modern

MODELS = {
    "transformer": TransformerConfig,
    "bert": bert,
    "gpt2": gpt2,
    "llama": llama,
    "modern": modern,
    "lstm": lstm,
    "gru": gru,
}
HEADS = {"language": LanguageHead, "classification": ClassificationHead}

__all__ = ["HEADS", "MODELS", "Model"]
