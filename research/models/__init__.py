"""Menus of models and heads; those of backbones are in `backbones.py`, which models of two towers read as well."""

from typing import Any

from research.models.audio import AudioModel, SpectrogramConfig
from research.models.backbones import IMAGE_MODELS, MODELS
from research.models.dual_encoder import DualEncoder, DualEncoderConfig
from research.models.heads import LanguageHead, Model
from research.models.image_model import ImageModel
from research.models.patch_decoder import PatchDecoder
from research.models.projection_heads import ProjectionHead
from research.models.task_heads import ClassificationHead, EmbeddingHead, SpanHead, TaggingHead

# Of two towers, whose vectors are compared.
PAIR_MODELS = {"dual_encoder": DualEncoderConfig}
# Of sounds, with an image model inside.
AUDIO_MODELS = {"spectrogram": SpectrogramConfig}
ALL_MODELS = {**MODELS, **IMAGE_MODELS, **PAIR_MODELS, **AUDIO_MODELS}
HEADS = {
    "language": LanguageHead,
    "classification": ClassificationHead,
    "tagging": TaggingHead,
    "spans": SpanHead,
    "embedding": EmbeddingHead,
    "projection": ProjectionHead,
    "patch_decoder": PatchDecoder,
}


def join(backbone: Any, head: Any, *, frozen: bool = False) -> Model | ImageModel | DualEncoder:
    """A backbone's config and a head as one module: that of texts, or those of images and sounds (which `frozen` is
    for). Two towers are whole without a head, which is None then."""
    if isinstance(backbone, DualEncoderConfig):
        return backbone.module()
    if isinstance(backbone, SpectrogramConfig):
        whole: dict[str, Any] = dict(pixel_mean=(0.0,), pixel_std=(1.0,), frozen=frozen)
        return AudioModel(backbone=backbone.module(), head=head, config=backbone, **whole)
    if hasattr(backbone, "pixel_mean"):
        return ImageModel(backbone.module(), head, tuple(backbone.pixel_mean), tuple(backbone.pixel_std), frozen)
    return Model(backbone.module(), head)


__all__ = [
    "ALL_MODELS",
    "AUDIO_MODELS",
    "HEADS",
    "IMAGE_MODELS",
    "MODELS",
    "PAIR_MODELS",
    "AudioModel",
    "ImageModel",
    "Model",
    "join",
]
