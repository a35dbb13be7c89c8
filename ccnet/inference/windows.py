"""Logits of a picture as a network sees it: whole, in bands of columns, or in sliding windows.

Windows make a stream: an iterator of bands of rows (K, h, W), which follow each other from the top
of a map to its bottom. No stage holds more than a few bands, or a floating-point copy of the image,
which bounds the memory for images of any size.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.inference.logits import MAX_VALUES, PixelLogits, Resize, column_bands
from ccnet.inference.protocol import Size

Classify = Callable[[Tensor], Tensor]
"""Forward pass: from normalised windows (N, C, H, W) to logits (N, K, h, w) of any size."""

MAX_ROWS = 64
"""Maximum height of the bands from `resized`; it bounds them at small scales."""


@dataclass(frozen=True)
class View:
    """An image at some size, optionally flipped, whose regions are computed on demand.

    Attributes:
        pixels: (C, H, W), uint8: the image, at its own size or another; it stays as it is.
        prepare: preprocessing: from a region of `pixels` to normalised floating point.
        size: height and width of the view, in pixels.
        mirrored: whether the view is flipped horizontally.
    """

    pixels: Tensor
    prepare: Callable[[Tensor], Tensor]
    size: Size
    mirrored: bool = False

    def read(self, top: int, left: int, size: Size) -> Tensor:
        """Returns a normalised region (C, *size); outside the view it is 0, the mean colour."""
        height, width = self.size
        bottom, right = min(top + size[0], height), min(left + size[1], width)
        padding = (0, left + size[1] - right, 0, top + size[0] - bottom)
        if self.mirrored:
            left, right = width - right, width - left
        if self.size == self.pixels.shape[1:]:
            region = self.prepare(self.pixels[:, top:bottom, left:right])
        else:
            region = self._resized_region(slice(top, bottom), slice(left, right))
        return F.pad(region.flip(-1) if self.mirrored else region, padding)

    def read_whole(self) -> Tensor:
        """Returns all of it, (C, H, W), normalised."""
        return self.read(0, 0, self.size)

    def _resized_region(self, rows: slice, columns: slice) -> Tensor:
        height, width = self.pixels.shape[1:]
        y = _positions(height, self.size[0])[rows]
        x = _positions(width, self.size[1])[columns]
        top, left = int(y[0]), int(x[0])
        region = self.prepare(self.pixels[:, top : int(y[-1]) + 2, left : int(x[-1]) + 2])
        return _interpolate(_interpolate(region, 1, y - top), 2, x - left)


def whole(
    views: list[View], logits: Iterable[Tensor], resize: Resize, target: Size
) -> Iterator[tuple[tuple[slice, slice], list[Tensor]]]:
    """Brings the logits of whole views to one size.

    Args:
        views: of any sizes.
        logits: those of each view, (1, K, h, w), as a forward pass gives them.
        resize: from these to those of the pixels.
        target: the size of the result.

    Yields:
        Rows (all) and columns, and their logits (K, H, w) in each view, unflipped.
    """
    maps = [PixelLogits.of(own, view.size, resize) for view, own in zip(views, logits, strict=True)]
    pixels = max(math.prod(size) for size in (target, *(view.size for view in views)))
    for columns in column_bands(maps[0].wide.shape[1] * pixels, target[1]):
        yield (
            (slice(None), columns),
            [_columns(*pair, target, columns) for pair in zip(views, maps, strict=True)],
        )


def _columns(view: View, logits: PixelLogits, target: Size, columns: slice) -> Tensor:
    """Computes columns (K, H, w) of the unflipped logits of a view, at the target's size."""
    start, stop = columns.start, columns.stop
    if view.mirrored:
        start, stop = target[1] - stop, target[1] - start
    if view.size == target:
        part = logits.columns(start, stop)
    else:
        y, x = (_positions(*sides) for sides in zip(view.size, target, strict=True))
        x = x[start:stop]
        left = int(x[0])
        part = logits.columns(left, min(int(x[-1]) + 2, view.size[1]))
        part = _interpolate(_interpolate(part, 1, y), 2, x - left)
    return part.flip(-1) if view.mirrored else part


def sliding(
    view: View,
    classify: Classify,
    resize: Resize,
    crop: Size,
    stride: Size,
    window_batch: int,
) -> Iterator[Tensor]:
    """Computes the logits of a view, averaged where windows overlap: a stream of bands.

    Windows are `stride` apart; the last one of each row and column is moved back inside. If the
    view is smaller than a window, the window is padded at the right and at the bottom.

    Args:
        view: of any size.
        classify: forward pass of the network.
        resize: from the logits of `classify` to those of the pixels.
        crop: height and width of a window, in pixels.
        stride: distance between windows in pixels, at most `crop`.
        window_batch: batch size of windows; a batch may span several rows of windows.
    """
    (height, width), (crop_height, crop_width) = view.size, crop
    tops, lefts = (_starts(*lengths) for lengths in zip(view.size, crop, stride, strict=True))
    down, across = _coverage(height, crop_height, tops), _coverage(width, crop_width, lefts)
    total = torch.empty(0)
    first = 0
    places = product(tops, lefts)
    while batch := list(islice(places, window_batch)):
        results = classify(torch.stack([view.read(top, left, crop) for top, left in batch]))
        if not total.numel():
            total = results.new_zeros(results.shape[1], min(crop_height, height), width)
            down, across = down.to(total), across.to(total)
        for (top, left), logits in zip(batch, results, strict=True):
            if top > first:
                done, kept = top - first, total.shape[1] - (top - first)
                yield total[:, :done] / (down[first:top, None] * across)
                total[:, :kept] = total[:, done:].clone()
                total[:, kept:] = 0
                first = top
            _add(total[:, :, left : left + crop_width], PixelLogits.of(logits[None], crop, resize))
    yield total / (down[first:, None] * across)


def _add(total: Tensor, logits: PixelLogits) -> None:
    """Adds what is inside of `total` (K, h, w) to it, in bands."""
    height, width = logits.size
    for columns in column_bands(len(total) * height * width, width):
        part = total[:, :, columns]
        part += logits.columns(columns.start, columns.stop)[:, : part.shape[1], : part.shape[2]]


def resized(stream: Iterator[Tensor], source: Size, target: Size) -> Iterator[Tensor]:
    """Resizes a stream of maps from size `source` to `target` by bilinear interpolation."""
    if source == target:
        yield from stream
        return
    y, x = _positions(source[0], target[0]), _positions(source[1], target[1])
    band = torch.empty(0)
    first = start = 0
    for rows in stream:
        band = torch.cat([band, rows], dim=1) if band.numel() else rows
        del rows  # so that its memory is freed as soon as the band moves on
        known = first + band.shape[1]
        ready = target[0] if known == source[0] else int((y < known - 1).sum())
        while start < ready:
            stop = min(start + band_rows(band.shape[0], target[1]), ready)
            top = int(y[start]) - first
            part = band[:, top : int(y[stop - 1]) - first + 2]
            yield _interpolate(_interpolate(part, 1, y[start:stop] - first - top), 2, x)
            start = stop
        if start < target[0]:
            top = min(int(y[start]), known)
            band, first = band[:, top - first :].clone(), top


def band_rows(classes: int, width: int) -> int:
    """The height of bands from `resized`."""
    return max(1, min(MAX_ROWS, MAX_VALUES // (classes * width)))


def together(streams: list[Iterator[Tensor]]) -> Iterator[list[Tensor]]:
    """Aligns streams of maps of one size: yields a band of each, all of the same rows."""
    bands = [next(stream) for stream in streams]
    while True:
        height = min(band.shape[1] for band in bands)
        yield [band[:, :height] for band in bands]
        rest: list[Tensor] = []
        for band, stream in zip(bands, streams, strict=True):
            following = band[:, height:] if band.shape[1] > height else next(stream, None)
            if following is None:
                return
            rest.append(following)
        bands = rest


def _starts(length: int, crop: int, stride: int) -> list[int]:
    last = max(0, length - crop)
    return [*range(0, last, stride), last]


def _coverage(length: int, crop: int, starts: list[int]) -> Tensor:
    """Counts the windows that cover each point of an axis: (length,)."""
    counts = torch.zeros(length, device="cpu")
    for start in starts:
        counts[start : start + crop] += 1
    return counts


def _positions(source: int, target: int) -> Tensor:
    """Computes the source coordinates of the points of a resized axis: (target,), float64.

    Points are pixel centres, so resizing does not shift the image, and commutes with flipping.
    """
    points = torch.arange(target, dtype=torch.float64, device="cpu")
    positions = (points + 0.5) * (source / target) - 0.5
    return positions.clamp(0, source - 1)


def _interpolate(x: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Interpolates (C, h, w) linearly along one axis, at positions of 0 or more."""
    low = positions.long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (positions - low).to(x.dtype).to(x.device).reshape((-1, 1) if axis == 1 else (-1,))
    below, above = (_select(x, axis, index.to(x.device)) for index in (low, high))
    return below.lerp_(above, weight)


def _select(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Selects along an axis; on the last of three, PyTorch itself takes several times longer."""
    if axis == 1:
        return x.index_select(1, index)
    return x.flatten(0, 1).index_select(1, index).reshape(*x.shape[:2], -1)
