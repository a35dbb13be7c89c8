"""Forward passes of an image: its views, and the network that sees them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ccnet.inference.logits import Resize, leave_resizing
from ccnet.inference.protocol import InferenceProtocol, Size
from ccnet.inference.replica import evaluation_replica
from ccnet.inference.windows import Classify, View, resized, sliding, together, whole
from ccnet.precision import warn_of_slow_inference
from ccnet.transforms import Preprocessing

Part = tuple[tuple[slice, slice], list[Tensor]]
"""Rows and columns of an image, and their logits (K, h, w) by each scale and flip."""


@dataclass(frozen=True)
class Network:
    """What inference does with a network.

    Attributes:
        prepare: preprocessing of a region (C, H, W), uint8, on the device of the network.
        classify: forward pass, in evaluation mode.
        resize: from its logits to those of the pixels.
        dtype: of its parameters.
    """

    prepare: Callable[[Tensor], Tensor]
    classify: Classify
    resize: Resize
    dtype: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, preprocessing: Preprocessing, precision: str) -> "Network":
        """Makes a replica of a model, which stays as it is."""
        parameter = next(model.parameters())
        replica = evaluation_replica(model)
        resize = leave_resizing(replica, model) or (lambda logits, size: logits)
        if replica is not model and hasattr(replica, "_economise"):
            replica._economise(model)  # type: ignore[operator]

        def prepare(region: Tensor) -> Tensor:
            return preprocessing(region.to(parameter.device)[None])[0]

        def classify(windows: Tensor) -> Tensor:
            with _precision(precision, parameter.device):
                logits: Tensor = replica(windows.to(parameter.dtype))["out"]
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

        return cls(prepare, classify, resize, parameter.dtype)


def views_of(
    pixels: Tensor, prepare: Callable[[Tensor], Tensor], protocol: InferenceProtocol
) -> list[View]:
    """The views of an image: all scales, each as it is and then flipped if that is asked for."""
    height, width = pixels.shape[1:]

    def scaled(scale: float) -> tuple[Tensor, Size]:
        size = protocol.view_size((height, width), scale)
        return _reduced(pixels, size) if protocol.antialias else pixels, size

    mirrors = (False, True) if protocol.flip else (False,)
    return [
        View(source, prepare, size, mirrored)
        for source, size in map(scaled, protocol.scales)
        for mirrored in mirrors
    ]


def parts_of(
    network: Network, views: list[View], protocol: InferenceProtocol, size: Size
) -> Iterator[Part]:
    """Computes logits at the size of the image, unflipped, those of each scale and flip."""
    if protocol.windows is None:
        logits = (network.classify(view.read_whole()[None]) for view in views)
        yield from whole(views, logits, network.resize, size)
        return

    def stream(view: View, crop: Size, stride: Size) -> Iterator[Tensor]:
        bands = sliding(view, network.classify, network.resize, crop, stride, protocol.window_batch)
        bands = resized(bands, view.size, size)
        return (band.flip(-1) for band in bands) if view.mirrored else bands

    row = 0
    for parts in together([stream(view, *protocol.windows) for view in views]):
        rows = slice(row, row := row + parts[0].shape[1])
        yield (rows, slice(None)), parts
        del parts


def _reduced(pixels: Tensor, size: Size) -> Tensor:
    """Reduces an image (C, H, W), uint8, with a low-pass filter, rounding to uint8.

    The result is the same on every machine, and made of a plane at a time, without floating-point
    copies. An image that is not larger than `size` is returned as it is.
    """
    height, width = pixels.shape[1:]
    if (height, width) == size or height < size[0] or width < size[1]:
        return pixels
    planes = [
        Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR)
        for plane in pixels.cpu().numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


def _precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context of a forward pass: autocast if asked for, or around the caller.

    Its casts of the weights are without gradient, so they stay out of the cache from which a
    forward pass of the caller's would take them.
    """
    asked = precision == "bfloat16"
    if asked:
        warn_of_slow_inference(precision, device)
    if not asked and not torch.is_autocast_enabled(device.type):
        return nullcontext()
    dtype = torch.bfloat16 if asked else torch.get_autocast_dtype(device.type)
    return torch.autocast(device.type, dtype, cache_enabled=False)
