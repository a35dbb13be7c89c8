"""Street scenes as a data set."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import CAMVID
from ccnet.street_scenes.street import check_size, render_scene

Sample = tuple[tv_tensors.Image, tv_tensors.Mask]
Transforms = Callable[[tv_tensors.Image, tv_tensors.Mask], Sample]


class StreetScenes(Dataset[Sample]):
    """Street scenes drawn on demand, with exact labels for CamVid's eleven classes.

    Scene `index` depends on the seed, the index and the size alone. A sample is an image,
    `tv_tensors.Image` (3, H, W), uint8, RGB in 0..255, and its labels, `tv_tensors.Mask` (H, W),
    uint8 in 0..10.

    Args:
        length: how many scenes the set holds, 0 or more.
        size: height and width of each scene in pixels, each at least 32.
        seed: which sequence of scenes, 0 or more.
        transforms: applied to image and labels together.

    Attributes:
        label_set: the classes.
        names: a name for each scene: "scene-000000", "scene-000001", ...

    Raises:
        ValueError: if `length` is negative or `size` is too small.
    """

    label_set = CAMVID

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

    def labels(self, index: int) -> Tensor:
        """The labels of a scene before its transforms: (H, W), uint8 in 0..10."""
        return torch.from_numpy(np.array(self._render(index)[1]))

    def _render(self, index: int) -> tuple[Image.Image, Image.Image]:
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return render_scene((self.seed, index % self.length), self.size)
