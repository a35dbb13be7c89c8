"""Samples to train on: which of two tensors is the image, and which the mask."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from ccnet.datasets import Sample

_IMAGES = (torch.uint8,)
_MASKS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def marked(*parts: Any) -> Sample:
    """Marks image and mask of a data set that gives plain tensors.

    Transforms of torchvision would move the first of these alone.

    Args:
        parts: an image (C, H, W), uint8, and its mask (H, W), of integers.

    Raises:
        ValueError: if they are anything else.
    """
    if len(parts) == 2:
        image, mask = parts
        fits = _is_of(image, 3, _IMAGES) and _is_of(mask, 2, _MASKS)
        if fits and image.shape[1:] == mask.shape:
            return tv_tensors.Image(image), tv_tensors.Mask(mask)
    raise ValueError(
        "a sample to train on must be two tensors of one size, an image (C, H, W), uint8, and "
        f"a mask (H, W), uint8 or int64, not {' and '.join(map(_described, parts))}"
    )


def _is_of(value: Any, dims: int, dtypes: tuple[torch.dtype, ...]) -> bool:
    return isinstance(value, Tensor) and value.dim() == dims and value.dtype in dtypes


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
