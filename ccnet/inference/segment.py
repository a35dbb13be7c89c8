"""Inference on one image: decoding, preprocessing, windows, averaging, labels."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ccnet.classes import LabelSet
from ccnet.images import ImageLike
from ccnet.inference.logits import leave_resizing
from ccnet.inference.memory import Footprint, refused_without_memory, within_limit
from ccnet.inference.protocol import InferenceProtocol, Size
from ccnet.inference.replica import evaluation_replica
from ccnet.inference.result import Segmentation
from ccnet.inference.windows import View, resized, sliding, together, whole
from ccnet.precision import warn_of_slow_inference
from ccnet.schema import check, flag
from ccnet.transforms import Preprocessing


@torch.inference_mode(False)  # results are ordinary tensors, for callers in inference mode too
@torch.no_grad()
def segment(
    model: nn.Module,
    image: ImageLike,
    preprocessing: Preprocessing,
    label_set: LabelSet,
    protocol: InferenceProtocol | None = None,
    *,
    return_probabilities: bool = False,
    memory_limit: float | None = None,
    count: Callable[[], Footprint] | None = None,
) -> Segmentation:
    """Segments one image on the device of the model; the result has the size of the image.

    A replica in evaluation mode runs: the model stays as it is at every moment, so that threads may
    share it. In mode "slide" the memory is bounded by the sum of the image and its labels (together
    4 bytes per pixel), one batch of windows, and a band of logits as high as a window and as wide
    as the image (about 13 K bytes per pixel of the band, times the sum of the scales, twice that
    with flip). In mode "whole" the logits of all feature maps exist at once, and are brought to the
    pixels in bands of columns; the probabilities of all pixels exist if requested.

    To the size of each scale and of `fit`, the image is resized bilinearly (as in the published
    protocols without a low-pass filter, unless `antialias` asks for one), and the logits are
    resized back.

    Args:
        model: maps (N, C, H, W) to a mapping with "out", the logits (N, K, H, W).
        image: anything that `preprocessing.decode` accepts.
        preprocessing: that the model was trained with.
        label_set: the K classes.
        protocol: the options of inference; None for one forward pass of the whole image.
        return_probabilities: keep the probabilities, 4 K bytes per pixel: the softmax of the
            averaged logits, or the average of the softmaxes, according to `protocol.average`.
        memory_limit: GiB that the estimate for the whole image may reach; beyond, windows are taken
            instead, and a warning in the log says so. None for no limit.
        count: gives the footprint of the model; without it nothing is estimated.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the image cannot be read or is not one image, the model has no values, a
            part of it cannot be put in evaluation mode (see `evaluation_replica`), or the memory
            does not suffice, or the network gives values that are not finite.
    """
    check({"return_probabilities": return_probabilities}, {"return_probabilities": flag()})
    if next(model.parameters()).is_meta:
        raise ValueError(
            "the network has no values (it is on the meta device): "
            'call to_empty(device="cpu") and load weights first'
        )
    protocol = protocol or InferenceProtocol()
    pixels = preprocessing.decode(image)
    if isinstance(image, Tensor) or not pixels.is_contiguous():
        pixels = pixels.clone(memory_format=torch.contiguous_format)
    height, width = pixels.shape[1:]
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "an image"
    if memory_limit is not None and count is not None:
        protocol = within_limit(
            protocol,
            (height, width),
            memory_limit,
            classes=len(label_set),
            count=count,
            item_size=next(model.parameters()).element_size(),
            with_probabilities=return_probabilities,
            name=name,
        )
    with refused_without_memory(f"{name}: {width} x {height} pixels ({protocol})"):
        labels, probabilities = _classify(
            model, pixels, preprocessing, label_set, protocol, return_probabilities
        )
    seen = protocol.view_size((height, width))
    return Segmentation(labels, label_set, pixels.cpu(), probabilities, seen)


def _classify(
    model: nn.Module,
    pixels: Tensor,
    preprocessing: Preprocessing,
    label_set: LabelSet,
    protocol: InferenceProtocol,
    return_probabilities: bool,
) -> tuple[Tensor, Tensor | None]:
    """Computes labels (H, W), uint8, and probabilities (K, H, W), float32, if asked for."""
    height, width = pixels.shape[1:]
    average_probabilities = protocol.average == "probabilities"
    labels = torch.empty(height, width, dtype=torch.uint8, device="cpu")
    probabilities = None
    if return_probabilities:
        shape = len(label_set), height, width
        probabilities = torch.empty(shape, dtype=torch.float32, device="cpu")
    for (rows, columns), views in _parts(model, pixels, preprocessing, protocol):
        terms = (logits.softmax(0) for logits in views) if average_probabilities else views
        scores: Tensor = reduce(torch.add, terms)
        best = scores.max(dim=0)  # faster than argmax
        if not best.values.isfinite().all():
            dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
            raise ValueError(
                f"the network of {dtype} gives values that are not finite ({protocol}): its "
                "weights are damaged, or need another precision"
            )
        labels[rows, columns] = best.indices.to(torch.uint8)
        if probabilities is not None:
            scores = scores / len(views)
            part = scores if average_probabilities else scores.softmax(0)
            probabilities[:, rows, columns] = part
            del part
        del views, terms, scores, best  # so that they are freed before the next ones are made
    return labels, probabilities


def _parts(
    model: nn.Module, pixels: Tensor, preprocessing: Preprocessing, protocol: InferenceProtocol
) -> Iterator[tuple[tuple[slice, slice], list[Tensor]]]:
    """Computes logits at the size of the image, unflipped: rows, columns, each scale and flip's."""
    parameter = next(model.parameters())
    replica = evaluation_replica(model)
    resize = leave_resizing(replica, model) or (lambda logits, size: logits)
    if replica is not model and hasattr(replica, "_economise"):
        replica._economise(model)  # type: ignore[operator]

    def prepare(region: Tensor) -> Tensor:
        return preprocessing(region.to(parameter.device)[None])[0]

    def classify(windows: Tensor) -> Tensor:
        with _precision(protocol.precision, parameter.device):
            logits: Tensor = replica(windows.to(parameter.dtype))["out"]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    height, width = pixels.shape[1:]

    def scaled(scale: float) -> tuple[Tensor, Size]:
        size = protocol.view_size((height, width), scale)
        return _reduced(pixels, size) if protocol.antialias else pixels, size

    mirrors = (False, True) if protocol.flip else (False,)
    views = [
        View(source, prepare, size, mirrored)
        for source, size in map(scaled, protocol.scales)
        for mirrored in mirrors
    ]
    if protocol.windows is None:
        yield from whole(views, classify, resize, (height, width))
        return

    def stream(view: View, crop: Size, stride: Size) -> Iterator[Tensor]:
        bands = sliding(view, classify, resize, crop, stride, protocol.window_batch)
        bands = resized(bands, view.size, (height, width))
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
