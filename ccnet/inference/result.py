"""Segmentation: the result of inference on one image."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet import visualization
from ccnet.classes import Color, LabelSet
from ccnet.inference.annotations import coco_dataset, save_coco
from ccnet.inference.marked_png import Origin, save_marked
from ccnet.options import named_options
from ccnet.visualization.labels import to_array
from ccnet.visualization.legend import class_areas, legend_entries, legend_html
from ccnet.visualization.notebook import is_notebook, open_window, pictures_html, reduced


@dataclass(frozen=True)
class Segmentation:
    """The segmentation of an image.

    Two are equal if all their fields are. They can be hashed, by their classes and size, which stay
    when labels are changed in place; copied, and pickled.

    Attributes:
        labels: (H, W), uint8, on the CPU: the class of each pixel.
        label_set: the K classes, with names and colours.
        image: (3, H, W), uint8, RGB, on the CPU: the image itself; (C, H, W) for a network of other
            channels.
        probabilities: (K, H, W), float32, on the CPU, in 0..1; None unless requested.
        view_size: height and width at which the network saw the image at scale 1; None if unknown.
    """

    labels: Tensor
    label_set: LabelSet
    image: Tensor
    probabilities: Tensor | None = None
    view_size: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Formats size, classes and the largest shares in one line."""
        shares = self.shares()
        largest = [f"{_shortened(name)} {share:.1%}" for name, share in shares.items()][:3]
        more = [] if len(shares) <= 3 else ["..."]
        return (
            f"Segmentation({self.describe_size()}, {len(shares)} of {len(self.label_set)} "
            f"classes: {', '.join([*largest, *more]) or 'none'})"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal; never an error, whatever the other one is."""
        if not isinstance(other, Segmentation):
            return NotImplemented
        names = [field.name for field in fields(self)]
        return all(_are_equal(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        return hash((self.label_set, tuple(self.labels.shape)))

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self.label_set.categories

    def describe_size(self) -> str:
        """Says how large the image is, and the network saw it: "640 x 480 pixels, seen at ..."."""
        height, width = self.labels.shape
        text = f"{width} x {height} pixels"
        if self.view_size in (None, (height, width)):
            return text
        return f"{text}, seen at {self.view_size[1]} x {self.view_size[0]}"

    def shares(self) -> dict[str, float]:
        """Returns the fraction of the image, 0..1, of every class in it, largest first."""
        return {
            self.categories[label]: share
            for label, _, share in class_areas(self.labels, len(self.label_set))
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns what is in the image, JSON-able: its size, and the classes that occur.

        Returns:
            "width" and "height", in pixels, and "classes": by name, the largest first, a mapping
            with "label", "pixels" (their number), "share" (0..1, of the image) and "color" (RGB,
            three numbers in 0..255).
        """
        height, width = self.labels.shape
        classes = {
            self.categories[label]: {
                "label": label,
                "pixels": pixels,
                "share": share,
                "color": list(self.label_set.colors[label]),
            }
            for label, pixels, share in class_areas(self.labels, len(self.label_set))
        }
        return {"width": width, "height": height, "classes": classes}

    def colorize(self) -> Image.Image:
        """Draws the labels as an indexed image in the colours of the classes."""
        return visualization.colorize(self.labels, self.label_set)

    @named_options()
    def overlay(
        self,
        opacity: float = 0.5,
        *,
        classes: str | int | Iterable[str | int] | None = None,
        legend: bool = False,
        outlines: bool = False,
        colors: Sequence[Color] | None = None,
    ) -> Image.Image:
        """Blends the classes over the image, in colours that people tell apart, in RGB.

        Args:
            opacity: 0 (only the image) to 1 (only the colours).
            classes: names or labels of the classes to draw; None for all.
            legend: whether to draw below the image which colour is which class, and its share.
            outlines: whether the borders of the classes are in their colours alone.
            colors: a colour for each class; None for `visualization.display_colors`. Those of label
                files are `label_set.colors`.

        Raises:
            ValueError: if the image is of other channels than 1 or 3, the opacity is outside, or
                there is no such class.
        """
        return visualization.overlay(
            self.image,
            self.labels,
            self.label_set,
            opacity,
            classes=classes,
            legend=legend,
            outlines=outlines,
            colors=colors,
        )

    def show(self) -> None:
        """Shows the result: in a notebook as at the end of a cell, else in the desktop's viewer.

        Raises:
            OSError: if there is no display.
            ValueError: if the image is of other channels than 1 or 3.
        """
        if is_notebook():
            sys.modules["IPython"].display.display(self)
        else:
            open_window(self.overlay(legend=True))

    def _repr_html_(self) -> str:
        """Image, overlay and legend for a notebook; of other channels than 1 or 3 labels alone."""
        colors = visualization.display_colors(self.label_set)
        entries = legend_entries(self.labels, self.label_set, colors)
        is_shown = self.image.shape[0] in (1, 3)
        image = self.image if is_shown else torch.zeros_like(self.labels)[None]
        picture = reduced(Image.fromarray(to_array(image.expand(3, -1, -1).movedim(0, -1))))
        labels = Image.fromarray(to_array(self.labels)).resize(
            picture.size, Image.Resampling.NEAREST
        )
        drawn = visualization.overlay(
            torch.from_numpy(np.array(picture)).movedim(-1, 0),
            torch.from_numpy(np.array(labels)),
            self.label_set,
            0.5 if is_shown else 1.0,
        )
        pictures = [picture, drawn] if is_shown else [drawn]
        return pictures_html(pictures, self.describe_size(), legend_html(entries))

    @named_options()
    def to_coco(self, file_name: str, segmentation: str = "polygons") -> dict[str, Any]:
        """Returns the labels as a data set of one image in COCO's format, JSON-able.

        Args:
            file_name: of the image, by which annotation tools find it.
            segmentation: "polygons", or "rle" for run lengths; see `annotations.coco_dataset`,
                which takes several images too.

        Raises:
            ValueError: if there is no such segmentation; for "rle" if `pycocotools` is missing.
        """
        return coco_dataset({file_name: self.labels}, self.label_set, segmentation)

    @named_options()
    def save_coco(
        self,
        path: str | os.PathLike[str],
        file_name: str | None = None,
        segmentation: str = "polygons",
        *,
        origin: Origin | None = None,
        replace: bool = True,
    ) -> None:
        """Writes what `to_coco` returns as a .json file.

        Args:
            path: of the file.
            file_name: of the image; None for NAME of NAME.json or NAME.polygons.json.
            segmentation: as of `to_coco`.
            origin: which the file tells, as PNGs of results do.
            replace: whether to replace a file at `path`.

        Raises:
            FileExistsError: if there is something at `path`, and it is not to be replaced.
            ValueError: if the file name does not end in .json; as `to_coco`.
        """
        if file_name is None:
            file_name = Path(path).stem.removesuffix(f".{segmentation}")
        save_coco(
            {file_name: self.labels},
            self.label_set,
            path,
            segmentation,
            origin=origin,
            replace=replace,
        )

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


def _are_equal(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return bool(one == other) if type(one) is type(other) else False
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.cpu(), other.cpu())


def _shortened(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:30]}..."
