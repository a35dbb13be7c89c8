"""Criss-cross attention and CCNet in pure PyTorch (https://arxiv.org/abs/1811.11721)."""

from ccnet.attention import (
    CrissCrossAttention2d,
    CrissCrossAttention3d,
    attention_map,
    criss_cross_attention,
)
from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.model import CCNet
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)
from ccnet.zoo import build_ccnet, ccnet_resnet18, ccnet_resnet50, ccnet_resnet101

__version__ = "0.1.0"

__all__ = [
    "CCNet",
    "CCNet_ResNet18_Weights",
    "CCNet_ResNet50_Weights",
    "CCNet_ResNet101_Weights",
    "CrissCrossAttention2d",
    "CrissCrossAttention3d",
    "InferenceProtocol",
    "Segmentation",
    "attention_map",
    "build_ccnet",
    "ccnet_resnet18",
    "ccnet_resnet50",
    "ccnet_resnet101",
    "criss_cross_attention",
]
