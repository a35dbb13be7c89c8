"""Inference: segmentation of an image, whole or in sliding windows, at one or more scales."""

from ccnet.inference.protocol import InferenceProtocol
from ccnet.inference.result import Segmentation

__all__ = ["InferenceProtocol", "Segmentation"]
