"""Pretrained weights: registry, sources, conversion, serialization, Hugging Face Hub."""

from ccnet.weights.registry import (
    REGISTRY,
    BackboneWeights,
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)
from ccnet.weights.serialization import ModelWeights, read_weights, write_weights

__all__ = [
    "REGISTRY",
    "BackboneWeights",
    "CCNet_ResNet18_Weights",
    "CCNet_ResNet50_Weights",
    "CCNet_ResNet101_Weights",
    "ModelWeights",
    "read_weights",
    "write_weights",
]
