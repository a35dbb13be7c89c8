"""Calibration: pictures of a folder, as a network sees them, to learn the ranges of its values."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ccnet.deployment.exported.contract import Contract
from ccnet.inference.prediction import PredictionMixin
from ccnet.inference.protocol import Size
from ccnet.jobs.search import find_jobs

MOST_PICTURES = 64
"""More of them hardly change the ranges."""

MOST_PIXELS = 1024
"""Of a side. Of larger pictures the middle is taken: ranges do not need all pixels, but time."""


def calibration_pictures(
    folder: str | os.PathLike[str], most: int = MOST_PICTURES
) -> Sequence[Path]:
    """Chooses pictures of a folder and its subfolders, evenly over their sorted paths.

    Args:
        folder: of pictures like those that the network will see; or a file, or a glob pattern.
        most: the number of pictures, or all if there are fewer.

    Raises:
        ValueError: if there are none, or a folder cannot be read.
    """
    found = find_jobs([os.fspath(folder)], Path())
    if found.failures:
        raise ValueError(found.failures[0])
    paths = sorted(job.picture for job in found.jobs if not found.is_result(job))
    if not paths:
        raise ValueError(f"no images in {folder} but results of this program")
    count = min(most, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def calibration_batches(
    pictures: Sequence[Path], network: PredictionMixin, contract: Contract
) -> Iterator[Tensor]:
    """Yields pictures as an exported file takes them, one at a time.

    Raises:
        ValueError: if one cannot be read, or the file does not take its size.
    """
    for picture in tqdm(pictures, "calibration", leave=False, disable=None):
        pixels = seen_pixels(network, picture)
        _, *ranges = contract.sizes
        size = (_within(pixels.shape[-2], ranges[0]), _within(pixels.shape[-1], ranges[1]))
        if size != pixels.shape[-2:]:
            pixels = _resized(pixels, size)
        if contract.takes_pictures:
            yield pixels.movedim(1, -1).contiguous()
        else:
            yield contract.preprocessing(pixels)


def _within(number: int, bounds: tuple[int, int]) -> int:
    return min(max(number, bounds[0]), bounds[1])


def seen_pixels(network: PredictionMixin, picture: Path) -> Tensor:
    """Returns a picture at the size at which `predict` shows it to a network.

    Args:
        network: one with `predict`.
        picture: path of the picture.

    Returns:
        (1, C, H, W), uint8, of `MOST_PIXELS` at most in height and width.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it cannot be read or is no picture; names it.
    """
    pixels = decoded(network, picture)[None]
    own: Size = (pixels.shape[2], pixels.shape[3])
    size = network.default_protocol.view_size(own)
    if size != own:
        pixels = _resized(pixels, size)
    top, left = (max(0, (side - MOST_PIXELS) // 2) for side in size)
    return pixels[..., top : top + MOST_PIXELS, left : left + MOST_PIXELS].contiguous()


def decoded(network: PredictionMixin, picture: Path) -> Tensor:
    """Returns the pixels of a picture.

    Returns:
        (C, H, W), uint8.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it cannot be read or is no picture; names it.
    """
    try:
        return network.preprocessing.decode(picture)
    except ValueError as error:
        if str(picture) in str(error):
            raise
        raise ValueError(f"{picture}: {error}") from error


def _resized(pixels: Tensor, size: Size) -> Tensor:
    options = {"mode": "bilinear", "align_corners": False, "antialias": True}
    resized = F.interpolate(pixels.float(), size, **options)  # type: ignore[arg-type]
    return resized.round().clamp(0, 255).to(pixels.dtype)
