"""Menus of backbones: what reads tokens, its presets here, and what reads images."""

import functools

from research.models.convnet import ConvNetConfig, cnn, densenet, resnet18, resnet34, resnet50, vgg11, vgg16
from research.models.perceptron import mlp
from research.models.recurrent import gru, lstm
from research.models.transformer import TransformerConfig
from research.models.vit import ViTConfig, vit_base, vit_small, vit_tiny

_BASE = dict(width=768, depth=12, num_heads=12)

bert = functools.partial(
    TransformerConfig, **_BASE, norm_position="post", norm_epsilon=1e-12, embed_norm=True, num_token_types=2
)
roberta = functools.partial(bert, norm_epsilon=1e-5, num_token_types=1)
gpt2 = functools.partial(TransformerConfig, **_BASE, norm_epsilon=1e-5, activation="gelu_tanh")
llama = functools.partial(
    TransformerConfig, **_BASE, norm="rms", position="rotary", activation="swiglu", bias=False, num_kv_heads=4
)
modern = functools.partial(
    TransformerConfig, **_BASE, norm="rms", position="rotary", activation="squared_relu", bias=False, qk_norm=True
)

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
# Of images [B Y X C] to vectors [B L D], where those above read tokens.
IMAGE_MODELS = {
    "vit": ViTConfig,
    "vit_tiny": vit_tiny,
    "vit_small": vit_small,
    "vit_base": vit_base,
    "convnet": ConvNetConfig,
    "cnn": cnn,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "densenet": densenet,
    "mlp": mlp,
}
