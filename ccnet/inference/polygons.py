"""Polygons around the regions of a label map, exact to the pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Points = NDArray[np.int64]

_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
"""The edges of a pixel, clockwise; each runs clockwise too, so that the pixel is on its right."""

_STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
"""Row and column of the neighbour across each edge."""

_STARTS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
"""x and y of the corner where each edge begins, from the pixel's upper left one."""


@dataclass(frozen=True)
class Region:
    """Pixels of one label that hang together by their edges.

    Attributes:
        label: of the pixels.
        polygon: (P, 2), int64: x and y of the corners of a closed line around them, clockwise. A
            hole is joined to the line by a cut of no width, to and fro. Pixel (row, column) fills
            the square from (column, row) to (column + 1, row + 1).
    """

    label: int
    polygon: _Points

    @property
    def area(self) -> int:
        """The number of pixels."""
        x, y = self.polygon.T
        return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The least x and y, width and height."""
        x, y = (int(one) for one in self.polygon.min(axis=0))
        right, bottom = (int(one) for one in self.polygon.max(axis=0))
        return x, y, right - x, bottom - y


def regions_of(labels: NDArray[np.uint8], classes: int) -> list[Region]:
    """Finds the regions of a label map, in the order of their uppermost, leftmost pixels.

    The polygons of a label, filled, are its pixels exactly: pixels that touch by a corner only are
    regions of their own, and where a line passes a corner twice it does not cross itself.

    Args:
        labels: (H, W): classes; `classes` and above are none, and have no region.
        classes: how many there are.
    """
    height, width = labels.shape
    framed = np.full((height + 2, width + 2), classes, dtype=np.uint16)
    framed[1:-1, 1:-1] = np.minimum(labels, classes)
    pixels = framed.ravel()
    edges = _edges(framed, classes)
    following = np.searchsorted(edges, _next(edges, pixels, _STEPS @ (width + 2, 1)))
    starts = _corners(edges, edges % 4, width + 2)
    _join_holes(following, edges, starts, width + 2)
    rings = list(_rings(following))
    polygons = _polygons(rings, following, edges, starts)
    return [
        Region(int(pixels[edges[ring[0]] // 4]), polygon)
        for ring, polygon in zip(rings, polygons, strict=True)
    ]


def _edges(framed: NDArray[np.uint16], classes: int) -> _Ints:
    """Finds the edges of regions, each as four times the flat index of its pixel plus the side."""
    height, width = framed.shape
    inner = framed[1:-1, 1:-1]
    edges = []
    for side, (row, column) in enumerate(_STEPS):
        beyond = framed[1 + row : height - 1 + row, 1 + column : width - 1 + column]
        rows, columns = np.nonzero((inner != beyond) & (inner < classes))
        edges.append(4 * ((rows + 1) * width + columns + 1) + side)
    found: _Ints = np.concatenate(edges)
    found.sort()
    return found


def _next(edges: _Ints, pixels: NDArray[np.uint16], steps: _Ints) -> _Ints:
    """Returns the edge that continues each one along the border of its region.

    At the end of an edge lie its pixel, the next one ahead, and the one across from that.
    """
    own, side = edges // 4, edges % 4
    ahead = own + steps[(side + 1) % 4]
    across = ahead + steps[side]
    goes_on = pixels[ahead] == pixels[own]
    turns_left = goes_on & (pixels[across] == pixels[own])
    right = 4 * own + (side + 1) % 4
    straight = 4 * ahead + side
    left = 4 * across + (side + 3) % 4
    found: _Ints = np.where(turns_left, left, np.where(goes_on, straight, right))
    return found


def _corners(edges: _Ints, corners: _Ints, width: int) -> _Points:
    """Returns x and y (E, 2) of one corner of each edge's pixel: 0 is the upper left one."""
    rows, columns = np.divmod(edges // 4, width)
    found: _Points = _STARTS[corners] + np.stack([columns, rows], axis=1) - 1  # of the frame
    return found


def _join_holes(following: _Ints, edges: _Ints, starts: _Points, width: int) -> None:
    """Makes the line around a hole part of the one that is met to the left of its uppermost corner.

    That one is around the region, or another hole in it, whose line is joined further to the left.
    """
    lefts = np.flatnonzero(edges % 4 == _LEFT)
    preceding = np.argsort(following)
    keys = (starts @ (1, width)).tolist()
    firsts = np.array([min(ring, key=keys.__getitem__) for ring in _rings(following)], dtype=int)
    holes = firsts[edges[firsts] % 4 == _RIGHT]  # others begin with the upper edge of a region
    here = np.searchsorted(edges[lefts], edges[holes] - _RIGHT + _LEFT, side="right")
    met = lefts[here - 1]
    following[met], following[preceding[holes]] = holes, following[met]


def _rings(following: _Ints) -> Iterator[list[int]]:
    """The cycles of a permutation, by their least members, as it is at the beginning."""
    ahead = following.tolist()
    seen = bytearray(len(ahead))
    for first in range(len(ahead)):
        if seen[first]:
            continue
        ring, at = [], first
        while not seen[at]:
            seen[at] = 1
            ring.append(at)
            at = ahead[at]
        yield ring


def _polygons(
    rings: list[list[int]], following: _Ints, edges: _Ints, starts: _Points
) -> list[_Points]:
    """Returns where each line of edges turns, or leaves an edge for a cut and comes back."""
    if not rings:
        return []
    sides = edges % 4
    ends = starts + _STARTS[(sides + 1) % 4] - _STARTS[sides]
    jumps = (ends != starts[following]).any(axis=1)
    turns = np.empty_like(jumps)
    turns[following] = (sides != sides[following]) | jumps
    order = np.concatenate(rings)
    points = np.stack([starts, ends], axis=1)[order]
    kept = np.stack([turns, jumps], axis=1)[order]
    last = np.cumsum([len(ring) for ring in rings]) - 1
    counts = np.cumsum(kept.sum(axis=1))[last]
    return np.split(points[kept], counts[:-1])
