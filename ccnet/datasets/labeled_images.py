"""What the data sets of files share: pairs of an image and a label map, read one at a time."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.transforms import UNREADABLE, decode_image

Sample = tuple[tv_tensors.Image, tv_tensors.Mask]
Transforms = Callable[[tv_tensors.Image, tv_tensors.Mask], Sample]
Pair = tuple[Path, Path | None]


class LabeledImages(Dataset[Sample]):
    """Images and their label maps.

    A sample is an image, `tv_tensors.Image` (3, H, W), uint8, RGB in 0..255, and its labels,
    `tv_tensors.Mask` (H, W), uint8: classes of `label_set`, or 255 for pixels without a class.

    Args:
        pairs: the file of each image, and that of its label map; None where all pixels are without
            a class.
        values: the label of each value that a label map may hold.
        transforms: applied to image and labels together.

    Attributes:
        label_set: the classes.
        names: a name for each sample, the stem of the image's file.
    """

    label_set: LabelSet

    def __init__(
        self,
        pairs: list[Pair],
        values: Mapping[int, int],
        transforms: Transforms | None,
    ) -> None:
        self.pairs, self.transforms = pairs, transforms
        self.names = [image.stem for image, _ in pairs]
        self._labels_of = np.full(256, IGNORE_INDEX, np.uint8)
        self._labels_of[list(values.keys())] = list(values.values())
        self._is_known = np.isin(np.arange(256), list(values.keys()))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image = tv_tensors.Image(decode_image(self.pairs[index][0]))
        mask = tv_tensors.Mask(self.labels(index))
        if image.shape[-2:] != mask.shape:
            raise ValueError(
                f"{self.pairs[index][0]} is {tuple(image.shape[-2:])}, "
                f"its labels {tuple(mask.shape)}"
            )
        return self.transforms(image, mask) if self.transforms else (image, mask)

    def labels(self, index: int) -> Tensor:
        """The labels of a sample before its transforms; the image is not decoded.

        Returns:
            (H, W), uint8: classes, or 255 for pixels without one.

        Raises:
            ValueError: if the label map cannot be read, or holds a value that stands for nothing.
        """
        image_path, labels_path = self.pairs[index]
        if labels_path is None:
            with Image.open(image_path) as file:
                return torch.full(file.size[::-1], IGNORE_INDEX, dtype=torch.uint8)
        values, _ = read_label_map(labels_path)
        if not self._is_known.all() and not self._is_known[values].all():
            known = np.flatnonzero(self._is_known)
            raise ValueError(
                f"{labels_path} has the labels {np.setdiff1d(values, known).tolist()}, "
                f"which are none of {known.tolist()}"
            )
        return torch.from_numpy(self._labels_of.take(values))


def read_label_map(path: Path) -> tuple[NDArray[Any], list[int] | None]:
    """The numbers that a label map stores, whatever they stand for, and its palette.

    Returns:
        The numbers, (H, W), uint8; and the colours of 0, 1, ... in one flat list of red, green and
        blue, 0..255, or None if it has no palette.

    Raises:
        ValueError: if the file is no readable PNG, grey or with a palette, of 8 bits a pixel.
    """
    try:
        with Image.open(path, formats=["PNG"]) as file:
            coding = file.tile[0][3] if file.tile else file.mode
            file.load()
            values, palette = np.array(file), file.getpalette()
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a PNG image: {error}") from error
    # Pillow stretches grey values of two or four bits over 0..255.
    if file.mode not in ("L", "P") or coding in ("L;2", "L;4"):
        raise ValueError(
            f"{path} is of mode {coding}; a label map is a grey or palette image of 8 bits: "
            "convert it to one class index per pixel"
        )
    return values, palette
