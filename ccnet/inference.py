"""From a picture to its segmentation."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ccnet import visualization
from ccnet.classes import LabelSet
from ccnet.files import atomic_write
from ccnet.protocol import Protocol
from ccnet.transforms import ImageLike, Preprocessing, decode_image
from ccnet.windows import View, resized, sliding, together, whole


@dataclass(frozen=True)
class Segmentation:
    """What a network sees in a picture.

    Attributes:
        labels: (H, W), uint8, on the CPU: the class of each pixel.
        label_set: names and colours of the classes.
        image: (3, H, W), uint8, RGB, on the CPU: the picture itself.
        probabilities: (K, H, W), float32, on the CPU, in 0..1; None unless asked for.
    """

    labels: Tensor
    label_set: LabelSet
    image: Tensor
    probabilities: Tensor | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self.label_set.categories

    def shares(self) -> dict[str, float]:
        """The share of the picture, 0..1, of every class that is in it, the largest first."""
        counts = self.labels.flatten().bincount(minlength=len(self.label_set))
        shares = (counts.double() / self.labels.numel()).tolist()
        found = [
            (name, share) for name, share in zip(self.categories, shares, strict=True) if share
        ]
        return dict(sorted(found, key=lambda pair: -pair[1]))

    def colorize(self) -> Image.Image:
        """The labels as an indexed picture in the classes' colours."""
        return visualization.colorize(self.labels, self.label_set)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The classes' colours over the picture, as an RGB picture; `opacity` is in 0..1."""
        return visualization.overlay(self.image, self.labels, self.label_set, opacity)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the labels as an indexed PNG: pixel values are labels, the palette their colours.

        Raises:
            ValueError: if the name does not end in .png: other formats would change the labels.
        """
        if not os.fspath(path).lower().endswith(".png"):
            raise ValueError(f"labels are saved as .png, which keeps them exactly, not {path}")
        with atomic_write(path) as temporary:
            self.colorize().save(temporary, optimize=True)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts the model into evaluation mode, and each of its modules back into its own at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.inference_mode()
def segment(
    model: nn.Module,
    image: ImageLike,
    preprocessing: Preprocessing,
    label_set: LabelSet,
    protocol: Protocol | None = None,
    *,
    return_probabilities: bool = False,
) -> Segmentation:
    """Segments one picture at its own size, on the device of the model.

    The model is put into evaluation mode meanwhile. In mode "slide" memory is bounded by the
    picture and its labels, 4 bytes a pixel together, one batch of windows, and a band of logits as
    high as a window and as wide as the picture, some 13 K bytes for each of its pixels: as often
    as the scales sum up to, and again for mirror images. In mode "whole" the logits of all pixels
    exist at once, and so do the probabilities where they are asked for.

    At a scale, the picture is resized bilinearly (without a low-pass filter, as the published
    protocols do) and the logits are resized back.

    Args:
        model: from (N, 3, H, W) to a mapping with "out", the logits (N, K, H, W).
        image: what `transforms.decode_image` takes.
        preprocessing: what the model was trained with.
        label_set: the K classes.
        protocol: how the picture is put to the network; None for whole, once.
        return_probabilities: keep the probabilities, 4 K bytes a pixel: the softmax of the average
            logits, or the average of the softmaxes, as the protocol says.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the image cannot be read or is not one image.
    """
    protocol = protocol or Protocol()
    pixels = decode_image(image)
    height, width = pixels.shape[1:]
    average_probabilities = protocol.average == "probabilities"
    labels = torch.empty(height, width, dtype=torch.uint8)
    probabilities = torch.empty(len(label_set), height, width) if return_probabilities else None
    row = 0
    with evaluation_mode(model):
        for views in together(_streams(model, pixels, preprocessing, protocol)):
            terms = (logits.softmax(0) for logits in views) if average_probabilities else views
            scores: Tensor = reduce(torch.add, terms)
            rows = slice(row, row := row + scores.shape[1])
            labels[rows] = scores.argmax(dim=0).to(torch.uint8)
            if probabilities is not None:
                scores = scores / len(views)
                probabilities[:, rows] = scores if average_probabilities else scores.softmax(0)
    return Segmentation(labels, label_set, pixels.cpu(), probabilities)


def _streams(
    model: nn.Module, pixels: Tensor, preprocessing: Preprocessing, protocol: Protocol
) -> list[Iterator[Tensor]]:
    """The logits at the size of the picture, unmirrored: a stream for each scale and mirror."""
    parameter = next(model.parameters())

    def prepare(region: Tensor) -> Tensor:
        return preprocessing(region.to(parameter.device)[None])[0]

    def classify(windows: Tensor) -> Tensor:
        with _precision(protocol.precision, parameter.device):
            logits: Tensor = model(windows.to(parameter.dtype))["out"]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def stream(scale: float, mirrored: bool) -> Iterator[Tensor]:
        height, width = pixels.shape[1:]
        size = max(1, round(height * scale)), max(1, round(width * scale))
        view = View(pixels, prepare, size, mirrored)
        if protocol.windows:
            bands = sliding(view, classify, *protocol.windows, protocol.window_batch)
        else:
            bands = whole(view, classify)
        bands = resized(bands, size, (height, width))
        return (band.flip(-1) for band in bands) if mirrored else bands

    mirrors = (False, True) if protocol.flip else (False,)
    return [stream(scale, mirrored) for scale in protocol.scales for mirrored in mirrors]


def _precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
