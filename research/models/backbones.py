"""Menus of backbones: what reads tokens, and what reads images."""

from research.models.convnet import ConvNetConfig, cnn, densenet, resnet18, resnet34, resnet50, vgg11, vgg16
from research.models.perceptron import mlp
from research.models.recurrent import gru, lstm
from research.models.transformer import TransformerConfig, bert, gpt2, llama, modern, roberta
from research.models.vit import ViTConfig, vit_base, vit_small, vit_tiny

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
