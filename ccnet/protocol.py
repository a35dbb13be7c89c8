"""How a picture is put to the network: whole or in windows, at which sizes, mirrored or not."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MODES = ("whole", "slide")
AVERAGES = ("logits", "probabilities")
PRECISIONS = ("float32", "bfloat16")

DEFAULT_CROP = 769
"""Pixels: the side of the windows in the authors' protocol."""

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Protocol:
    """The options of `inference.segment`, checked.

    Args:
        mode: "whole" puts the whole picture to the network, "slide" a window at a time.
        crop: the windows' height and width in pixels, or one number for both; None for 769.
        stride: how far apart windows lie, likewise; None for two thirds of the crop, which is 513
            of 769.
        overlap: the share that a window has in common with the next, 0 to less than 1, in place
            of `stride`.
        scales: factors on the size of the picture; the results of all are averaged.
        flip: average with the result on the mirrored picture, at each scale.
        average: what is averaged over scales and flips, "logits" or "probabilities". Where windows
            overlap it is their logits either way, as in the published protocols.
        window_batch: how many windows the network gets at a time.
        precision: "float32" computes in the precision of the network's own parameters, "bfloat16"
            under autocast.

    Attributes:
        windows: crop and stride, each (height, width); None in mode "whole". Protocols are equal if
            these are, however they were given.

    Raises:
        ValueError: if an option makes no sense, alone or beside the others.
    """

    mode: str = "whole"
    crop: int | Sequence[int] | None = field(default=None, compare=False)
    stride: int | Sequence[int] | None = field(default=None, compare=False)
    overlap: float | None = field(default=None, compare=False)
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    average: str = "logits"
    window_batch: int = 4
    precision: str = "float32"
    windows: tuple[Size, Size] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name, choices in (("mode", MODES), ("average", AVERAGES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be True or False, not {self.flip!r}")
        object.__setattr__(self, "window_batch", _count("window_batch", self.window_batch))
        object.__setattr__(self, "scales", _scales(self.scales))
        if self.mode == "slide":
            crop = _size("crop", DEFAULT_CROP if self.crop is None else self.crop)
            object.__setattr__(self, "windows", (crop, self._stride_of(crop)))
        else:
            for name in ("crop", "stride", "overlap"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is an option of mode='slide', not of {self.mode!r}")

    def _stride_of(self, crop: Size) -> Size:
        if self.stride is None:
            overlap = 1 / 3 if self.overlap is None else self.overlap
            if isinstance(overlap, bool) or not isinstance(overlap, (int, float)):
                raise ValueError(f"overlap must be a number, 0 to less than 1, not {overlap!r}")
            if not 0 <= overlap < 1:
                raise ValueError(f"overlap is a share of the crop, 0 to less than 1, not {overlap}")
            height, width = (max(1, round(side * (1 - overlap))) for side in crop)
            return height, width
        if self.overlap is not None:
            raise ValueError(
                f"stride={self.stride!r} and overlap={self.overlap!r} say the same thing: give one"
            )
        stride = _size("stride", self.stride)
        if stride[0] > crop[0] or stride[1] > crop[1]:
            raise ValueError(
                f"stride {stride} leaves gaps between windows of {crop}: at most the crop works"
            )
        return stride


def _count(name: str, value: Any) -> int:
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, not {value!r}")
    return count


def _size(name: str, value: Any) -> Size:
    sides = value if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2:
        raise ValueError(f"{name} must be one number or (height, width), not {value!r}")
    return _count(name, sides[0]), _count(name, sides[1])


def _scales(value: Any) -> tuple[float, ...]:
    try:
        scales = () if isinstance(value, str) else tuple(float(scale) for scale in value)
    except (TypeError, ValueError):
        scales = ()
    if not scales or not all(scale > 0 and math.isfinite(scale) for scale in scales):
        raise ValueError(
            f"scales must be positive numbers, one or more, as in (0.5, 1.0), not {value!r}"
        )
    return scales
