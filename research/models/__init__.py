"""Menus of models and heads."""

from research.models.heads import LanguageHead, Model
from research.models.recurrent import gru, lstm
from research.models.task_heads import ClassificationHead, EmbeddingHead, SpanHead, TaggingHead
from research.models.transformer import TransformerConfig, bert, gpt2, llama, modern, roberta

MODELS = {
    "transformer": TransformerConfig,
    "bert": bert,
    "roberta": roberta,
    "gpt2": gpt2,
    "llama": llama,
    "modern": modern,
    "lstm": lstm,
    "gru": gru,
}
HEADS = {
    "language": LanguageHead,
    "classification": ClassificationHead,
    "tagging": TaggingHead,
    "spans": SpanHead,
    "embedding": EmbeddingHead,
}

__all__ = ["HEADS", "MODELS", "Model"]
