"""Survey: reads every image and mask of a folder once, and remembers what they hold."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ccnet.datasets.label_maps import read_label_map, stored_size
from ccnet.datasets.mask_folder.memory import Memory
from ccnet.distributed import rank
from ccnet.images import UNREADABLE, decode_image, stored_orientation
from ccnet.images.formats import open_picture, quiet

_LOADABLE = (
    {"JPEG", "MPO", "PNG", "BMP", "WEBP"},
    {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"},
)
"""Formats and modes that `decode_image` takes whenever Pillow can load them."""

ROWS = 500
"""Fewest rows of a high mask whose pixels are compared with their neighbours."""

_NONE = np.zeros((2, 256), np.int64)
"""Ramps and edges of a mask that is not looked at."""


@dataclass(frozen=True)
class FileFacts:
    """What a survey keeps of an image or a mask.

    Attributes:
        size: height and width in pixels, as stored: EXIF orientation is not applied.
        orientation: EXIF orientation, 1..8.
        values: the numbers in a mask, ascending.
        pixels: how many pixels each of them has.
        ramps: how many of these lie between two neighbours that face each other, and that are more
            than 2 apart.
        edges: how many of these differ from a neighbour, in a mask with more than two numbers.
        palette: the palette's red, green and blue in hexadecimal; empty if there is none.
        is_colored: whether a mask holds colours in place of numbers: the palette are these.
        problem: why the file cannot be used; empty if it can.
    """

    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    values: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    ramps: tuple[int, ...] = ()
    edges: tuple[int, ...] = ()
    palette: str = ""
    is_colored: bool = False
    problem: str = ""


def survey(root: Path, images: Sequence[Path], masks: Sequence[Path]) -> dict[Path, FileFacts]:
    """Inspects images and masks on all processors, but for those that have not changed.

    A progress bar appears if it takes long.
    """
    memory = Memory(root, FileFacts)
    inspect = dict.fromkeys(images, inspect_image) | dict.fromkeys(masks, inspect_mask)
    known = {path: memory.recall(path) for path in inspect}
    unknown = [path for path, facts in known.items() if facts is None]
    pool = ThreadPoolExecutor(_processors())
    try:
        found = pool.map(lambda path: inspect[path](path), unknown)
        bar = tqdm(
            zip(unknown, found, strict=True),
            f"reading {root}",
            total=len(unknown),
            unit="file",
            delay=1,
            disable=True if rank() else None,
        )
        for path, facts in bar:
            known[path] = facts
            if not facts.problem:
                memory.keep(path, facts)
    finally:
        pool.shutdown(cancel_futures=True)
        memory.save()
    return {path: facts for path, facts in known.items() if facts is not None}


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def inspect_image(path: Path) -> FileFacts:
    """Reads the size and orientation of an image, and makes sure that it can be decoded.

    All of a JPEG file is read, but only an eighth of its rows and columns are computed.
    """
    size, orientation, is_sound = None, 1, False
    try:
        with quiet(), open_picture(path) as file:
            size = stored_size(file)
            file.draft(None, (max(1, file.width // 8), max(1, file.height // 8)))
            formats, modes = _LOADABLE
            if file.format in formats and file.mode in modes:
                file.load()
                is_sound = True
            orientation = stored_orientation(file)
    except UNREADABLE:
        is_sound = False  # unless `decode_image` knows better
    try:
        if not is_sound:
            height, width = decode_image(path).shape[-2:]
            size = size or (height, width)
    except (ValueError, OSError) as error:
        return FileFacts(problem=str(error))
    assert size is not None
    return FileFacts(size, orientation)


def inspect_mask(path: Path) -> FileFacts:
    """Reads a mask and counts its numbers."""
    try:
        label_map = read_label_map(path, colored=True)
    except ValueError as error:
        return FileFacts(problem=str(error))
    values = label_map.values
    pixels = np.asarray(Image.fromarray(values).histogram())  # faster than bincount
    occurring = np.flatnonzero(pixels)
    is_compared = len(occurring) > 2 and not label_map.is_colored
    ramps, edges = _ramps_and_edges(values) if is_compared else _NONE
    height, width = values.shape
    return FileFacts(
        (height, width),
        label_map.orientation,
        tuple(occurring.tolist()),
        tuple(pixels[occurring].tolist()),
        tuple(ramps[occurring].tolist()),
        tuple(edges[occurring].tolist()),
        label_map.palette.hex(),
        label_map.is_colored,
    )


def _ramps_and_edges(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Compares pixels with their eight neighbours, two at a time that face each other.

    Of a high mask only some rows are looked at, and the counts are extrapolated.

    Returns:
        (2, 256): for each number, the pixels between two neighbours, and those that differ from
        one. A pixel between the numbers before and after its own is none of the former: layers and
        rings have these, however thin they are drawn.
    """
    if min(values.shape) < 3:
        return _NONE
    step = max(1, len(values) // ROWS)
    above, here, below = (values[row : len(values) - 2 + row : step] for row in range(3))
    centre = here[:, 1:-1]
    is_ramp, is_edge = np.zeros((2, *centre.shape), bool)
    for before, after in (
        (here[:, :-2], here[:, 2:]),
        (above[:, 1:-1], below[:, 1:-1]),
        (above[:, :-2], below[:, 2:]),
        (above[:, 2:], below[:, :-2]),
    ):
        low, high = np.minimum(before, after), np.maximum(before, after)
        is_ramp |= (low < centre) & (centre < high) & (high - low > 2)
        is_edge |= (low != centre) | (high != centre)
    return step * np.stack([np.bincount(centre[at], minlength=256) for at in (is_ramp, is_edge)])
