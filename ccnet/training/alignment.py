"""Whether a transform moves image and mask alike, seen on a picture that is drawn for it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.classes import IGNORE_INDEX

_CELLS = 5, 9, 17
_GREYS = 60, 230
_TILE, _REACH, _TILES = 20, 4, 8
"""Size of the tiles that are compared, how far they are sought, both in pixels; tiles a side."""
_CONTRAST, _SMOOTHNESS, _SHOWN = 20.0, 0.5, 0.28
"""From which on a tile tells something, and the share of tiles that must."""
_UNLIKE = 0.1
"""Mean correlation with the mask below which the picture shows something else."""
_CLEAR, _FOUND, _GAIN, _MOVED = 45.0, 0.75, 0.15, 0.12
"""When a tile of that contrast is found elsewhere, and the share that may be by chance."""
_EXACT, _SHIFTED = 0.99, 0.02
"""When all tiles are found one pixel away; resizing moves masks by fractions of one."""


def draw_sample(height: int, width: int, label: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws an image (3, height, width) of patches of two greys, and its mask, both uint8.

    Args:
        height: in pixels.
        width: in pixels.
        label: what the mask holds where the image is dark; 0 where it is bright.
        seed: of the random numbers; the global generators are left alone.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(height, width)
    for cell in _CELLS:
        rows, columns = -(-height // cell), -(-width // cell)
        values = torch.rand(rows, columns, generator=generator) - 0.5
        total += values.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    dark, bright = _GREYS
    grey = torch.where(total > 0, bright, dark).to(torch.uint8)
    return grey.expand(3, -1, -1).contiguous(), torch.where(total > 0, 0, label).to(torch.uint8)


def are_apart(image: Tensor, mask: Tensor) -> bool:
    """Whether a drawn sample shows, once it is transformed, that image and mask moved apart.

    Their tiles are correlated in place and some pixels away. Brightness may follow the labels in
    any way. False where the picture tells nothing, because little of it is left.

    Args:
        image: (3, H, W), uint8.
        mask: (H, W), uint8; 255 is left out, unless there is no other label.
    """
    image, mask = image.as_subclass(Tensor), mask.as_subclass(Tensor)
    shape, known = mask == 0, mask != IGNORE_INDEX
    if torch.equal(shape, known):
        known = torch.ones_like(known)
    grey, shape, known = (_tiles(one.float()) for one in (image.float().mean(0), shape, known))
    grey = grey[:, _REACH : _REACH + _TILE, _REACH : _REACH + _TILE]
    grey = grey - grey.mean((1, 2), keepdim=True)
    signed = _correlations(grey, shape, known)
    tells = _tells(grey) & (signed[:, _REACH, _REACH] != 0)
    if int(tells.sum()) < max(1, _SHOWN * len(tells)):
        return False
    signed = signed[tells]
    around, here = signed.abs(), signed[:, _REACH, _REACH]
    near = around[:, _REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2].flatten(1)
    nearest = near[:, near.mean(0).argmax()]
    is_shifted = nearest.mean() > max(_EXACT, float(here.abs().mean()) + _SHIFTED)
    farthest = around.amax((1, 2))
    is_clear = grey[tells].square().mean((1, 2)) > _CLEAR**2
    moved = is_clear & (farthest > _FOUND) & (farthest > nearest + _GAIN)
    return bool(here.mean().abs() < _UNLIKE or is_shifted or moved.float().mean() > _MOVED)


def _tiles(plane: Tensor) -> Tensor:
    """Returns tiles of a plane (H, W) with what is around them, (n, side, side)."""
    side = _TILE + 2 * _REACH
    height, width = plane.shape
    plane = F.pad(plane, (0, max(0, side - width), 0, max(0, side - height)))
    for axis in (0, 1):
        room = plane.shape[axis] - side
        plane = plane.unfold(axis, side, max(_TILE // 4, room // (_TILES - 1)))
    return plane.reshape(-1, side, side)


def _tells(grey: Tensor) -> Tensor:
    """Whether tiles (n, side, side) of mean 0 have contrasts that are no noise, (n,), bool."""
    variance = grey.square().mean((1, 2))
    down = (grey[:, 1:] * grey[:, :-1]).mean((1, 2))
    right = (grey[:, :, 1:] * grey[:, :, :-1]).mean((1, 2))
    return (variance > _CONTRAST**2) & (down + right > 2 * _SMOOTHNESS * variance)


def _correlations(grey: Tensor, shape: Tensor, known: Tensor) -> Tensor:
    """Correlates tiles with shapes of 0 and 1 that are shifted, where these are known.

    Args:
        grey: (n, side, side), of mean 0.
        shape: (n, side + 2 reach, side + 2 reach).
        known: where to compare, of the same size, 0 or 1.

    Returns:
        (n, 1 + 2 reach, 1 + 2 reach), -1..1; 0 where half or more is unknown, or is even.
    """

    def sums(values: Tensor, weights: Tensor) -> Tensor:
        return F.conv2d(values[None], weights[:, None], groups=len(weights))[0]

    ones = torch.ones_like(grey)
    count, total, squares = sums(known, ones), sums(known, grey), sums(known, grey.square())
    shape = shape * known
    filled, both = sums(shape, ones), sums(shape, grey)
    size = count.clamp(min=1)
    variances = (squares - total**2 / size) * (filled - filled**2 / size)
    correlation = (both - total * filled / size) / variances.clamp(min=1).sqrt()
    return correlation.masked_fill((2 * count <= _TILE**2) | (variances < 1), 0)
