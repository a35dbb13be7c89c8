"""StreetScenes: a data set of rendered street scenes."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import CAMVID
from ccnet.datasets.labeled_images import Sample, Transforms
from ccnet.datasets.street_scenes.street import check_size, render_scene
from ccnet.options import named_options


class StreetScenes(Dataset[Sample]):
    """Street scenes rendered on demand, with exact labels for CamVid's eleven classes.

    A scene depends only on seed, index and size. A sample is an image,
    `tv_tensors.Image` (3, H, W), uint8, RGB in 0..255, and its labels, `tv_tensors.Mask` (H, W),
    uint8 in 0..10.

    Args:
        length: number of scenes, 0 or more.
        size: height and width of each scene in pixels, each at least 32.
        seed: random seed of the scenes, 0 or more.
        transforms: applied to image and labels together.

    Attributes:
        label_set: the classes.
        names: the name of each scene: "scene-000000", "scene-000001", ...

    Raises:
        ValueError: if `length` is negative or `size` is too small.
    """

    label_set = CAMVID

    @named_options()
    def __init__(
        self,
        length: int,
        *,
        size: tuple[int, int] = (360, 480),
        seed: int = 0,
        transforms: Transforms | None = None,
    ) -> None:
        if length < 0:
            raise ValueError(f"length is {length}; it must be 0 or more")
        check_size(size)
        self.length, self.size, self.seed, self.transforms = length, size, seed, transforms
        self.names = [f"scene-{index:06d}" for index in range(length)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        picture, labels = self._render(index)
        image = tv_tensors.Image(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous())
        mask = tv_tensors.Mask(torch.from_numpy(np.array(labels)))
        return (image, mask) if self.transforms is None else self.transforms(image, mask)

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what a scene depends on."""
        height, width = self.size
        return {"name": self.names[index], "scene": f"seed {self.seed}, {height}x{width}"}

    def labels(self, index: int) -> Tensor:
        """Renders the labels of a scene, before its transforms: (H, W), uint8 in 0..10."""
        return torch.from_numpy(np.array(self._render(index)[1]))

    def _render(self, index: int) -> tuple[Image.Image, Image.Image]:
        if not -self.length <= index < self.length:
            raise IndexError(f"scene index {index} is out of range for {self.length} scenes")
        return render_scene((self.seed, index % self.length), self.size)
