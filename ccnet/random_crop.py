"""A crop at a random scale and place that resamples only the pixels it shows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import IGNORE_INDEX

RETRIES = 10
"""How often a crop with too much of one class is replaced, before the last one is taken."""


@dataclass(frozen=True)
class _Window:
    """Where a crop lies along one axis.

    Attributes:
        length: pixels of the image.
        scaled: pixels of the image at its new scale.
        start: the crop's first pixel on the scaled image; negative if it begins in padding.
        size: pixels of the crop.
    """

    length: int
    scaled: int
    start: int
    size: int

    @classmethod
    def draw(cls, length: int, scaled: int, size: int) -> "_Window":
        """A crop inside the image; around it, where the image is smaller than the crop."""
        room = scaled - size
        start = int(torch.randint(min(0, room), max(0, room) + 1, ()))
        return cls(length, scaled, start, size)

    @property
    def shown(self) -> tuple[int, int]:
        """The first pixel of the scaled image inside the crop, and one past the last."""
        return max(0, self.start), min(self.scaled, self.start + self.size)

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels of the crop before and after the image."""
        first, last = self.shown
        return first - self.start, self.start + self.size - last

    @property
    def nearest(self) -> Tensor:
        """(shown,), int64: the image's pixel under the centre of each pixel shown."""
        return (2 * torch.arange(*self.shown) + 1) * self.length // (2 * self.scaled)

    @property
    def source(self) -> tuple[int, int, float, float]:
        """What a linear filter needs of the image: first pixel, one past the last, and between.

        The other two are where the first pixel shown begins and the last one ends, counted from the
        first pixel needed.
        """
        ratio = self.length / self.scaled
        begin, end = (edge * ratio for edge in self.shown)
        reach = math.ceil(max(1.0, ratio))
        low = max(0, math.floor(begin) - reach)
        high = min(self.length, math.ceil(end) + reach)
        return low, high, begin - low, min(end - low, high - low)


class RandomScaledCrop(v2.Transform):
    """Scales image and mask by one random factor and cuts out a random window of fixed size.

    The window is drawn first, and only the part of the image that it shows is resampled: images
    bilinearly with antialiasing, on the very grid of the whole image at that scale, masks to the
    nearest pixel. Where the scaled image is smaller than the window, it lies at a random place in
    it, surrounded by `fill`, and the mask by the label that the loss ignores. All randomness is
    torch's.

    Args:
        size: height and width of the window, in pixels.
        scale_range: the smallest and the largest factor on the size of the image.
        scale_step: the distance of the factors that are drawn from, counted from the smallest; 0
            for every factor in the range.
        max_class_share: a window in which one class has more than this share of the labelled pixels
            is drawn anew, up to ten times; 1 accepts every window.
        fill: RGB in 0..255.

    Raises:
        ValueError: if one of these makes no sense.
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
            raise ValueError(f"a range of scales needs 0 < low <= high, not {low}..{high}")
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
    # Pillow, unlike torch, can begin to sample between two pixels.
    top, bottom, upper, lower = rows.source
    left, right, near, far = columns.source
    size = [last - first for first, last in (columns.shown, rows.shown)]
    channels = [
        Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR, (near, upper, far, lower))
        for channel in np.ascontiguousarray(image[:, top:bottom, left:right].numpy())
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))
