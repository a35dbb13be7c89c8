"""Backbones: torchvision's ResNets, dilated, and the networks of timm."""

from ccnet.backbones.choice import AnyBackbone, build_backbone, check_name
from ccnet.backbones.resnet import BACKBONES, OUTPUT_STRIDES, Backbone
from ccnet.backbones.timm_network import TIMM, TimmBackbone
from ccnet.backbones.timm_weights import load_timm

__all__ = [
    "BACKBONES",
    "OUTPUT_STRIDES",
    "TIMM",
    "AnyBackbone",
    "Backbone",
    "TimmBackbone",
    "build_backbone",
    "check_name",
    "load_timm",
]
