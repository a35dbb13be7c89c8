"""Training augmentation of images and masks: random scale, crop, flip and colour jitter."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import IGNORE_INDEX
from ccnet.training.camera import camera_effects
from ccnet.training.own_augmentation import OwnAugmentation
from ccnet.training.recipes import Recipe
from ccnet.training.samples import marked
from ccnet.transforms import Preprocessing

RETRIES = 10
"""How often a crop with too much of one class is redrawn before the last one is accepted."""


def training_augmentation(
    crop_size: tuple[int, int],
    *,
    scale_range: tuple[float, float] = (0.5, 2.0),
    scale_step: float = 0.0,
    max_class_share: float = 1.0,
    color_jitter: float = 0.4,
    preprocessing: Preprocessing | None = None,
) -> v2.Compose:
    """Random scale, crop, horizontal flip and colour jitter of an image together with its mask.

    If the scaled image is smaller than the crop, the image is padded with the mean of the
    preprocessing and the mask with the ignore index. Only the part inside the crop is resampled
    (`RandomScaledCrop`).

    Args:
        crop_size: height and width of the crop, in pixels.
        scale_range: the smallest and the largest factor on the size of the image.
        scale_step: step between possible factors; 0 for any factor in the range.
        max_class_share: a crop with a larger share of one class is redrawn, up to ten times.
        color_jitter: strength of the jitter of brightness, contrast and saturation, 0..1; that of
            the hue is an eighth of it.
        preprocessing: its mean is the padding colour; the default is ImageNet's mean.

    Returns:
        A transform of image (C, H, W), uint8, and mask (H, W), uint8 or int64, into
        `tv_tensors.Image` and `tv_tensors.Mask`; it raises ValueError for anything else.

    Raises:
        ValueError: if an argument is out of range, or there is colour jitter for other than one or
            three channels.
    """
    if not 0 <= color_jitter <= 1:
        raise ValueError(f"color_jitter must be in 0..1, not {color_jitter}")
    preprocessing = preprocessing or Preprocessing()
    if color_jitter and preprocessing.channels not in (1, 3):
        raise ValueError(
            f"color_jitter must be 0 for images of {preprocessing.channels} channels, "
            f"not {color_jitter}: it changes those of 1 or 3"
        )
    mean = tuple(round(value) for value in preprocessing.mean)
    crop = RandomScaledCrop(
        crop_size,
        scale_range,
        scale_step=scale_step,
        max_class_share=max_class_share,
        fill=mean if preprocessing.channel_order == "RGB" else mean[::-1],
    )
    steps: list[Callable[..., Any]] = [marked, crop, v2.RandomHorizontalFlip()]
    if color_jitter:
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter, color_jitter / 8))
    return v2.Compose(steps)


def augmentation_of(
    recipe: Recipe, preprocessing: Preprocessing, own: OwnAugmentation | None = None
) -> v2.Compose:
    """Builds the augmentation of a recipe, after which comes somebody's own."""
    factor = recipe.size_factor
    augmentation = training_augmentation(
        (recipe.crop_height, recipe.crop_width),
        scale_range=(recipe.scale_low * factor, recipe.scale_high * factor),
        scale_step=recipe.scale_step * factor,
        max_class_share=recipe.max_class_share,
        color_jitter=recipe.color_jitter,
        preprocessing=preprocessing,
    )
    effects = camera_effects(recipe.gamma, recipe.blur, recipe.noise)
    return v2.Compose([*augmentation.transforms, *effects, *([own] if own else [])])


@dataclass(frozen=True)
class _Window:
    """Position of a crop along one axis, in pixels.

    Attributes:
        length: size of the image.
        scaled: size of the scaled image.
        start: first pixel of the crop on the scaled image; negative if the crop begins in padding.
        size: size of the crop.
    """

    length: int
    scaled: int
    start: int
    size: int

    @classmethod
    def draw(cls, length: int, scaled: int, size: int) -> "_Window":
        """Draws a crop inside the image, or around it if the image is smaller than the crop."""
        room = scaled - size
        start = int(torch.randint(min(0, room), max(0, room) + 1, ()))
        return cls(length, scaled, start, size)

    @property
    def shown(self) -> tuple[int, int]:
        """First pixel of the scaled image inside the crop, and one past the last."""
        return max(0, self.start), min(self.scaled, self.start + self.size)

    @property
    def padding(self) -> tuple[int, int]:
        """Padding of the crop before and after the image, in pixels."""
        first, last = self.shown
        return first - self.start, self.start + self.size - last

    @property
    def nearest(self) -> Tensor:
        """(shown,), int64: index of the image's pixel under the centre of each shown pixel."""
        return (2 * torch.arange(*self.shown) + 1) * self.length // (2 * self.scaled)

    @property
    def source(self) -> tuple[int, int, float, float]:
        """Range of the image that a linear filter needs, and the resampled box inside it.

        The range is its first pixel, and one past its last. The box is where the first shown pixel
        begins and the last one ends, counted from the first pixel of the range.
        """
        ratio = self.length / self.scaled
        begin, end = (edge * ratio for edge in self.shown)
        reach = math.ceil(max(1.0, ratio))
        low = max(0, math.floor(begin) - reach)
        high = min(self.length, math.ceil(end) + reach)
        return low, high, begin - low, min(end - low, high - low)


class RandomScaledCrop(v2.Transform):
    """Random scaled crop: scales image and mask by one factor, then crops a window of fixed size.

    The window is drawn first, and only the part of the image inside it is resampled: images
    bilinearly with antialiasing, on the same grid as the whole image at that scale, masks to the
    nearest pixel. If the scaled image is smaller than the window, it is placed at random inside;
    the image is padded with `fill`, the mask with the ignore index. All random numbers are torch's.

    Args:
        size: height and width of the window, in pixels.
        scale_range: the smallest and the largest factor on the size of the image.
        scale_step: step between possible factors, counted from the smallest; 0 for any factor in
            the range.
        max_class_share: a window in which one class has a larger share of the labelled pixels is
            redrawn, up to ten times; 1 accepts every window.
        fill: padding colour, RGB in 0..255.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale_range: tuple[float, float] = (0.5, 2.0),
        *,
        scale_step: float = 0.0,
        max_class_share: float = 1.0,
        fill: tuple[int, ...] = (0, 0, 0),
    ) -> None:
        super().__init__()
        low, high = scale_range
        if min(size) < 1:
            raise ValueError(f"crop_size must be positive, not {size}")
        if not 0 < low <= high < math.inf:
            raise ValueError(f"scale_range must satisfy 0 < low <= high, not {low}..{high}")
        if not 0 <= scale_step < math.inf:
            raise ValueError(f"scale_step must be 0 or more, not {scale_step}")
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share must be above 0 and at most 1: {max_class_share}")
        self.size, self.scale_range, self.scale_step = size, scale_range, scale_step
        self.max_class_share, self.fill = max_class_share, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the factor and the window."""
        lengths = v2.functional.get_size(flat_inputs[0])
        factor = self._draw_factor()
        scaled = [max(1, round(length * factor)) for length in lengths]
        masks = [inpt for inpt in flat_inputs if isinstance(inpt, tv_tensors.Mask)]
        for _ in range(1 + RETRIES):
            rows, columns = map(_Window.draw, lengths, scaled, self.size)
            if self.max_class_share == 1 or not masks or self._is_varied(masks[0], rows, columns):
                break
        return {"rows": rows, "columns": columns}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resamples and pads an image (3, H, W), uint8, or a mask (H, W)."""
        rows, columns = params["rows"], params["columns"]
        is_mask = isinstance(inpt, tv_tensors.Mask)
        part = (_nearest if is_mask else _bilinear)(inpt.as_subclass(Tensor), rows, columns)
        (top, bottom), (left, right) = rows.padding, columns.padding
        part = tv_tensors.wrap(part, like=inpt)
        if not any((top, bottom, left, right)):
            return part
        fill = IGNORE_INDEX if is_mask else list(self.fill)
        return v2.functional.pad(part, [left, top, right, bottom], fill=fill)

    def _draw_factor(self) -> float:
        low, high = self.scale_range
        if not self.scale_step:
            return torch.empty(()).uniform_(low, high).item()
        steps = math.floor((high - low) / self.scale_step + 1e-6)
        return low + self.scale_step * int(torch.randint(steps + 1, ()))

    def _is_varied(self, mask: Tensor, rows: _Window, columns: _Window) -> bool:
        labels = _nearest(mask.as_subclass(Tensor), rows, columns)
        counts = labels.flatten().bincount(minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        return 0 < int(counts.max()) <= self.max_class_share * int(counts.sum())


def _nearest(mask: Tensor, rows: _Window, columns: _Window) -> Tensor:
    return mask.index_select(-2, rows.nearest).index_select(-1, columns.nearest)


def _bilinear(image: Tensor, rows: _Window, columns: _Window) -> Tensor:
    # Unlike torch, Pillow resamples boxes with fractional edges.
    top, bottom, upper, lower = rows.source
    left, right, near, far = columns.source
    size = [last - first for first, last in (columns.shown, rows.shown)]
    channels = [
        Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR, (near, upper, far, lower))
        for channel in np.ascontiguousarray(image[:, top:bottom, left:right].numpy())
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))
