"""Segmentation: the result of inference on one image."""

import os
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ccnet import visualization
from ccnet.classes import LabelSet
from ccnet.inference.marked_png import save_marked


@dataclass(frozen=True)
class Segmentation:
    """The segmentation of an image.

    Attributes:
        labels: (H, W), uint8, on the CPU: the class of each pixel.
        label_set: the K classes, with names and colours.
        image: (3, H, W), uint8, RGB, on the CPU: the image itself.
        probabilities: (K, H, W), float32, on the CPU, in 0..1; None unless requested.
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
        """Returns the fraction of the image, 0..1, of every class in it, largest first."""
        counts = self.labels.flatten().bincount(minlength=len(self.label_set))
        shares = (counts.double() / self.labels.numel()).tolist()
        found = [
            (name, share) for name, share in zip(self.categories, shares, strict=True) if share
        ]
        return dict(sorted(found, key=lambda pair: -pair[1]))

    def colorize(self) -> Image.Image:
        """Draws the labels as an indexed image in the colours of the classes."""
        return visualization.colorize(self.labels, self.label_set)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Blends the colours of the classes over the image, in RGB; `opacity` is in 0..1."""
        return visualization.overlay(self.image, self.labels, self.label_set, opacity)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the labels as an indexed PNG: pixel values are labels, the palette their colours.

        Raises:
            ValueError: if the file name does not end in .png: other formats may change the labels.
        """
        if not os.fspath(path).lower().endswith(".png"):
            raise ValueError(
                f"a label map can only be saved as .png, which is lossless, not as {path}"
            )
        save_marked(self.colorize(), path, optimize=True)
