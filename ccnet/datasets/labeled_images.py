"""LabeledImages: base class of data sets that read images and label maps from files."""

import zlib
from collections.abc import Callable, Iterable, Mapping
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
from ccnet.datasets.identity import identify_file
from ccnet.datasets.label_maps import read_label_map
from ccnet.datasets.wording import numbers_in_short, pixels_in_short
from ccnet.images import decode_image

Sample = tuple[tv_tensors.Image, tv_tensors.Mask]
Transforms = Callable[[tv_tensors.Image, tv_tensors.Mask], Sample]
Pair = tuple[Path, Path | None]


def check_split(split: str, splits: Iterable[str]) -> None:
    """Raises ValueError, which lists the splits that there are, if there is no such split."""
    splits = tuple(splits)
    if split not in splits:
        raise ValueError(f"split must be one of {splits}, not {split!r}")


def pair_files(images: Path, labels: Path, suffixes: tuple[str, str], needed_by: str) -> list[Pair]:
    """Pairs the images of a folder with the label maps of the same names in another one.

    Args:
        images: the folder of the images.
        labels: the folder of the label maps.
        suffixes: those of the images and of the label maps, such as ("jpg", "png").
        needed_by: the data set, for the errors.

    Returns:
        The pairs, sorted by name.

    Raises:
        FileNotFoundError: if a folder is missing, or has no such files.
        ValueError: if a file has no counterpart.
    """
    found = []
    for folder, suffix in zip((images, labels), suffixes, strict=True):
        files = folder.glob(f"*.{suffix}")
        paths = {path.stem: path for path in files if not path.name.startswith(".")}
        if not paths:
            raise FileNotFoundError(
                f"no {suffix.upper()} files in {folder}; {needed_by} needs them"
            )
        found.append(paths)
    both = {**found[0], **found[1]}
    alone = sorted(both[name].name for name in found[0].keys() ^ found[1].keys())
    if alone:
        raise ValueError(
            f"{len(alone)} files have no counterpart in {images} or {labels}: "
            f"{', '.join(alone[:5])}"
        )
    return [(found[0][name], found[1][name]) for name in sorted(found[0])]


class LabeledImages(Dataset[Sample]):
    """Pairs of an image and its label map, read one at a time.

    A sample is an image, `tv_tensors.Image` (3, H, W), uint8, RGB in 0..255, and its labels,
    `tv_tensors.Mask` (H, W), uint8: classes of `label_set`, or 255 for pixels without a class.

    Args:
        pairs: paths of each image and its label map; None instead of a label map if all pixels are
            without a class.
        values: the label for each value that a label map may hold.
        transforms: applied to image and labels together.

    Attributes:
        label_set: the classes.
        names: the name of each sample, the stem of its image file.
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

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a sample from others: its name, its files, its numbers of classes."""
        image, labels = self.pairs[index]
        return {
            "name": self.names[index],
            "image": identify_file(image),
            "mask": identify_file(labels) if labels else None,
            "numbering": f"{zlib.crc32(self._labels_of.tobytes()):08x}",
        }

    def labels(self, index: int) -> Tensor:
        """Reads the labels of a sample, before its transforms.

        The image is decoded only if there is no label map, which has its size.

        Returns:
            (H, W), uint8: classes, or 255 for pixels without one.

        Raises:
            ValueError: if the label map cannot be read, or holds an unknown value.
        """
        image_path, labels_path = self.pairs[index]
        if labels_path is None:
            height, width = decode_image(image_path).shape[-2:]
            return torch.full((height, width), IGNORE_INDEX, dtype=torch.uint8)
        values = Image.fromarray(self._numbers(labels_path))
        pixels = np.asarray(values.histogram())  # Pillow looks up faster than NumPy
        unknown = np.flatnonzero((pixels > 0) & ~self._is_known)
        if len(unknown):
            raise ValueError(
                f"{labels_path} contains unknown labels [{numbers_in_short(unknown.tolist())}] in "
                f"{pixels_in_short(int(pixels[unknown].sum()), int(pixels.sum()))}: the known ones "
                f"are [{numbers_in_short(np.flatnonzero(self._is_known).tolist())}]"
            )
        return torch.from_numpy(np.array(values.point(self._labels_of.tolist())))

    def _numbers(self, path: Path) -> NDArray[np.uint8]:
        """Reads the numbers (H, W) of a label map."""
        return read_label_map(path).values
