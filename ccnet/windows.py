"""The logits of a picture of any size, a band of rows at a time.

A stream is an iterator of bands (K, h, W) that follow each other from the top of a map to its
bottom. No stage holds more than a few bands, nor a floating-point copy of the picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.protocol import Size

Classify = Callable[[Tensor], Tensor]
"""From normalised windows (N, 3, h, w) to their logits (N, K, h, w)."""

MAX_ROWS = 64
"""The height of the bands that `resized` gives: it bounds them where a scale is small."""


@dataclass(frozen=True)
class View:
    """A picture at some size, perhaps mirrored, of which regions are made as they are asked for.

    Attributes:
        pixels: (3, H, W), uint8: the picture at its own size.
        prepare: from a region of it to the same region, floating point, normalised.
        size: height and width of the view, in pixels.
        mirrored: whether left and right are exchanged.
    """

    pixels: Tensor
    prepare: Callable[[Tensor], Tensor]
    size: Size
    mirrored: bool = False

    def read(self, top: int, left: int, size: Size) -> Tensor:
        """A region (3, *size), normalised; beyond the view it is 0, the mean colour."""
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

    def _resized_region(self, rows: slice, columns: slice) -> Tensor:
        height, width = self.pixels.shape[1:]
        y = _positions(height, self.size[0])[rows]
        x = _positions(width, self.size[1])[columns]
        top, left = int(y[0]), int(x[0])
        region = self.prepare(self.pixels[:, top : int(y[-1]) + 2, left : int(x[-1]) + 2])
        return _interpolate(_interpolate(region, 1, y - top), 2, x - left)


def whole(view: View, classify: Classify) -> Iterator[Tensor]:
    """The logits of a view that is one window: a stream of one band."""
    yield classify(view.read(0, 0, view.size)[None])[0]


def sliding(
    view: View, classify: Classify, crop: Size, stride: Size, window_batch: int
) -> Iterator[Tensor]:
    """The logits of a view, averaged where windows overlap: a stream of bands.

    Windows lie `stride` apart; the last ones of a row and a column are moved back inside. Where the
    view is smaller than a window, the window is padded at the right and at the bottom.

    Args:
        view: of any size.
        classify: the network.
        crop: height and width of the windows, in pixels.
        stride: how far apart they lie, at most `crop`.
        window_batch: how many are classified at a time, of several rows of windows if need be.
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
            inside = total[:, :, left : left + crop_width]
            inside += logits[:, : inside.shape[1], : inside.shape[2]]
    yield total / (down[first:, None] * across)


def resized(stream: Iterator[Tensor], source: Size, target: Size) -> Iterator[Tensor]:
    """A stream of maps of one size as a stream of maps of another, by bilinear interpolation."""
    if source == target:
        yield from stream
        return
    y, x = _positions(source[0], target[0]), _positions(source[1], target[1])
    band = torch.empty(0)
    first = start = 0
    for rows in stream:
        band = torch.cat([band, rows], dim=1) if band.numel() else rows
        del rows  # whose memory is not to outlive their part in the band
        known = first + band.shape[1]
        ready = target[0] if known == source[0] else int((y < known - 1).sum())
        while start < ready:
            stop = min(start + MAX_ROWS, ready)
            top = int(y[start]) - first
            part = band[:, top : int(y[stop - 1]) - first + 2]
            yield _interpolate(_interpolate(part, 1, y[start:stop] - first - top), 2, x)
            start = stop
        if start < target[0]:
            top = min(int(y[start]), known)
            band, first = band[:, top - first :].clone(), top


def together(streams: list[Iterator[Tensor]]) -> Iterator[list[Tensor]]:
    """Cuts streams of maps of one size into bands of the same rows."""
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
    """(length,): how many windows cover each point of an axis."""
    counts = torch.zeros(length)
    for start in starts:
        counts[start : start + crop] += 1
    return counts


def _positions(source: int, target: int) -> Tensor:
    """(target,), float64: where the points of a resized axis lie among its `source` points.

    Points are the centres of pixels, so that resizing shifts nothing, and mirroring commutes with
    it.
    """
    positions = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    return positions.clamp(0, source - 1)


def _interpolate(x: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Linear interpolation along one axis of (C, h, w) at positions that are 0 or more."""
    low = positions.long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (positions - low).to(x.dtype).to(x.device).reshape((-1, 1) if axis == 1 else (-1,))
    below, above = (x.index_select(axis, index.to(x.device)) for index in (low, high))
    return below.lerp_(above, weight)
