"""Inference protocol: whole image or sliding windows, size, scales, flip, averaging, precision."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ccnet.options import check_options, named_options

MODES = ("whole", "slide")
AVERAGES = ("logits", "probabilities")
PRECISIONS = ("float32", "bfloat16")

DEFAULT_CROP = 769
"""Side of the windows in the authors' protocol, in pixels."""

Size = tuple[int, int]
"""Height and width, in pixels."""

MOST_SCALE = 100.0
"""The largest factor on the size of an image; the smallest is its inverse."""


@named_options()
@dataclass(frozen=True)
class InferenceProtocol:
    """The options of inference, validated: how an image is presented to the network.

    `CCNet.predict` and `evaluate` take one; every entry of the registry has one, the protocol of
    its published figures.

    Args:
        mode: "whole" processes the whole image at once; "slide" processes windows, which bounds the
            memory that a large image takes.
        crop: height and width of a window in pixels, or one number for both; None for 769, or for
            the long side of `fit` at the largest scale if that is less and no `stride` is given.
        stride: distance between windows in pixels, likewise; None for two thirds of the crop: 513
            for 769.
        overlap: share of a window that overlaps the next one, 0 to less than 1, in place of
            `stride`.
        scales: factors on the size of the image, 0.01 to 100; results are averaged over them.
        flip: also average with the result of the horizontally flipped image, at each scale.
        average: what is averaged over scales and flips: "logits" or "probabilities". Overlapping
            windows always average logits, as in the published protocols.
        window_batch: batch size of windows.
        precision: "float32" computes in the dtype of the parameters, "bfloat16" under autocast; a
            warning in the log says if the device is slow at that.
        fit: long and short side of a box in pixels, or one number for both: the network sees the
            image as large as it fits into the box lying or standing, enlarged or reduced, times
            each of the scales. None for the image's own size.
        antialias: apply a low-pass filter before the image is reduced, to the size of `fit` or of a
            scale. The published protocols do not, which loses detail and keeps noise: of a
            photograph with many more pixels than the network sees, most play no part.

    Attributes:
        windows: crop and stride, each (height, width); None in mode "whole". Protocols are equal if
            their windows are, however these were given.
        box: long and short side of the box of `fit`; None without. Likewise.

    Raises:
        ValueError: if an option is invalid, alone or in combination with the others.
    """

    mode: str = "whole"
    crop: int | Sequence[int] | None = field(default=None, compare=False)
    stride: int | Sequence[int] | None = field(default=None, compare=False)
    overlap: float | None = field(default=None, compare=False)
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    average: str = "logits"
    window_batch: int = field(default=4, compare=False)
    precision: str = "float32"
    fit: int | Sequence[int] | None = field(default=None, compare=False)
    antialias: bool = False
    windows: tuple[Size, Size] | None = field(init=False, default=None)
    box: tuple[int, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name, choices in (("mode", MODES), ("average", AVERAGES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
        for name in ("flip", "antialias"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        object.__setattr__(self, "window_batch", _count("window_batch", self.window_batch))
        object.__setattr__(self, "scales", _scales(self.scales))
        if self.fit is not None:
            box = sorted(_size("fit", self.fit, "(long side, short side)"), reverse=True)
            object.__setattr__(self, "box", tuple(box))
        if self.mode == "slide":
            crop = _size("crop", self._default_crop() if self.crop is None else self.crop)
            object.__setattr__(self, "windows", (crop, self._stride_of(crop)))
        else:
            for name in ("crop", "stride", "overlap"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is an option of mode='slide', not of {self.mode!r}")

    def view_size(self, image: Size, scale: float = 1.0) -> Size:
        """Returns the size at which the network sees an image.

        Args:
            image: height and width of the image, in pixels.
            scale: one of `scales`.

        Returns:
            Height and width, in pixels, 1 or more; with `fit`, rounded as in OpenMMLab's protocol.
        """
        if self.box is None:
            height, width = (max(1, round(side * scale)) for side in image)
        else:
            factor = min(self.box[0] * scale / max(image), self.box[1] * scale / min(image))
            height, width = (max(1, math.floor(side * factor + 0.5)) for side in image)
        return height, width

    def replace(self, **options: Any) -> "InferenceProtocol":
        """Returns a protocol with some options replaced.

        A new mode or crop drops the old crop, stride and overlap; a new stride drops the old
        overlap, and the other way round.

        Raises:
            TypeError: if there is no such option.
            ValueError: if the options are invalid.
        """
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        check_options("replace", options, kept)
        if options.get("mode", self.mode) != self.mode or "crop" in options:
            kept |= dict.fromkeys(("crop", "stride", "overlap"))
        if {"stride", "overlap"} & options.keys():
            kept |= dict.fromkeys(("stride", "overlap"))
        return InferenceProtocol(**{**kept, **options})

    def to_config(self) -> dict[str, Any]:
        """Returns the options as JSON-able values, which the constructor accepts."""
        config: dict[str, Any] = {"mode": self.mode}
        if self.windows:
            config["crop"], config["stride"] = map(list, self.windows)
        if self.box:
            config["fit"] = list(self.box)
        if self.antialias:
            config["antialias"] = True
        return {
            **config,
            "scales": list(self.scales),
            "flip": self.flip,
            "average": self.average,
            "precision": self.precision,
        }

    def __str__(self) -> str:
        """Formats all options, as in "slide, crop 769x769, stride 513x513, no flip, float32"."""
        words = [self.mode]
        for name, size in zip(("crop", "stride"), self.windows or (), strict=False):
            words.append(f"{name} {size[0]}x{size[1]}")
        if self.box:
            words.append(f"fit {self.box[0]}x{self.box[1]}")
        if self.antialias:
            words.append("antialias")
        if self.scales != (1.0,):
            words.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        words.append("flip" if self.flip else "no flip")
        if len(self.scales) > 1 or self.flip:
            words.append(f"average of {self.average}")
        return ", ".join([*words, self.precision])

    def _default_crop(self) -> int:
        if self.box is None or self.stride is not None:
            return DEFAULT_CROP
        return min(DEFAULT_CROP, math.ceil(self.box[0] * max(self.scales)))

    def _stride_of(self, crop: Size) -> Size:
        if self.stride is None:
            overlap = 1 / 3 if self.overlap is None else self.overlap
            if isinstance(overlap, bool) or not isinstance(overlap, (int, float)):
                raise ValueError(f"overlap must be a number, 0 to less than 1, not {overlap!r}")
            if not 0 <= overlap < 1:
                raise ValueError(
                    f"overlap must be a share of the crop, 0 to less than 1, not {overlap}"
                )
            height, width = (max(1, round(side * (1 - overlap))) for side in crop)
            return height, width
        if self.overlap is not None:
            raise ValueError(
                f"stride={self.stride!r} and overlap={self.overlap!r} exclude each other: give one"
            )
        stride = _size("stride", self.stride)
        if stride[0] > crop[0] or stride[1] > crop[1]:
            raise ValueError(
                f"stride {stride} must not exceed the crop {crop}: "
                "there would be gaps between windows"
            )
        return stride


def _count(name: str, value: Any) -> int:
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be an integer of 1 or more, not {value!r}")
    return count


def _size(name: str, value: Any, sides_are: str = "(height, width)") -> Size:
    sides = value if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2:
        raise ValueError(f"{name} must be one number or {sides_are}, not {value!r}")
    return _count(name, sides[0]), _count(name, sides[1])


def _scales(value: Any) -> tuple[float, ...]:
    try:
        scales = () if isinstance(value, str) else tuple(float(scale) for scale in value)
    except (TypeError, ValueError):
        scales = ()
    if not scales or not all(1 / MOST_SCALE <= scale <= MOST_SCALE for scale in scales):
        raise ValueError(
            f"scales must be positive numbers, one or more, of {1 / MOST_SCALE:g} to "
            f"{MOST_SCALE:g}, as in (0.5, 1.0), not {value!r}"
        )
    return scales
