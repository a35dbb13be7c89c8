"""From a picture to its segmentation."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from ccnet import visualization
from ccnet.classes import LabelSet
from ccnet.files import atomic_write
from ccnet.transforms import ImageLike, Preprocessing, decode_image


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
    *,
    return_probabilities: bool = False,
) -> Segmentation:
    """Segments one picture at its own size, on the device and in the precision of the model.

    The model is put into evaluation mode meanwhile.

    Args:
        model: from (N, 3, H, W) to a mapping with "out", the logits (N, K, H, W).
        image: what `transforms.decode_image` takes.
        preprocessing: what the model was trained with.
        label_set: the K classes.
        return_probabilities: keep the softmax of the logits, 4 K bytes a pixel.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the image cannot be read or is not one image.
    """
    pixels = decode_image(image)
    parameter = next(model.parameters())
    with evaluation_mode(model):
        batch = preprocessing(pixels.to(parameter.device)).to(parameter.dtype)
        logits: Tensor = model(batch)["out"][0]
    probabilities = logits.softmax(dim=0).float().cpu() if return_probabilities else None
    labels = logits.argmax(dim=0).to(torch.uint8).cpu()
    return Segmentation(labels, label_set, pixels.cpu(), probabilities)
