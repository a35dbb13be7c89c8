"""Memory of inference: estimated from sizes alone, so that it is the same on every machine."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import torch

from ccnet.inference.footprint import Footprint
from ccnet.inference.logits import column_bands
from ccnet.inference.protocol import InferenceProtocol, Size

logger = logging.getLogger(__name__)

GIB = 2**30

DEFAULT_LIMIT = 8.5
"""GiB: what ResNet-101 takes of 1024x2048 pixels at seven scales, 0.5 to 2, flipped, is below."""

MOST_PER_PIXEL = 2**15
"""Bytes per pixel that no network needs, whatever its stem: below, none is counted."""


def within_limit(
    protocol: InferenceProtocol,
    size: Size,
    limit: float,
    *,
    classes: int,
    count: Callable[[], Footprint],
    item_size: int = 4,
    with_probabilities: bool = False,
    name: str = "an image",
) -> InferenceProtocol:
    """Returns a protocol whose estimated memory is within a limit: that one, or windows.

    Args:
        protocol: the options that are asked for.
        size: height and width of the picture, in pixels.
        limit: in GiB.
        classes: K.
        count: gives the footprint of the network; called if the estimate may matter.
        item_size: bytes of a number in the network.
        with_probabilities: whether all probabilities are kept.
        name: of the picture, for messages.

    Raises:
        ValueError: if even windows are estimated to take more.
    """
    if not (isinstance(limit, Real) and limit > 0):
        raise ValueError(f"memory_limit must be a positive number of GiB, not {limit!r}")

    def needed(options: InferenceProtocol, footprint: Footprint) -> float:
        return estimate(options, size, classes, max(4, item_size), footprint, with_probabilities)

    if needed(protocol, Footprint(MOST_PER_PIXEL / 4)) <= limit * GIB:
        return protocol
    footprint = count()
    asked = needed(protocol, footprint)
    if asked <= limit * GIB:
        return protocol
    told = f"{name}: {size[1]} x {size[0]} pixels ({protocol}) take about {asked / GIB:.3g} GiB"
    windows = protocol.replace(mode="slide")
    least = needed(windows, footprint)
    if least > limit * GIB:
        # Windows of one's own choice are not replaced by others.
        found = "" if protocol.windows else f", and {least / GIB:.3g} GiB in windows"
        raise ValueError(
            f"{told}{found}, more than the memory limit of {limit:g} GiB: raise the limit, or make "
            "the image, scales, windows or batches of them smaller"
        )
    logger.warning("%s, more than the memory limit of %g GiB: now %s", told, limit, windows)
    return windows


def batch_within_limit(
    protocol: InferenceProtocol,
    size: Size,
    limit: float,
    most: int,
    *,
    classes: int,
    count: Callable[[], Footprint],
    item_size: int = 4,
) -> int:
    """Returns how many images of a size, at most `most`, are estimated to be within a limit.

    At least 1, and no more in windows, which are batches themselves. Arguments are those of
    `within_limit`.
    """
    if most == 1 or protocol.windows is not None:
        return 1
    needed = estimate(protocol, size, classes, max(4, item_size), count(), False)
    return max(1, min(most, int(limit * GIB // needed)))


def estimate(
    protocol: InferenceProtocol,
    size: Size,
    classes: int,
    item_size: int,
    footprint: Footprint,
    with_probabilities: bool,
) -> float:
    """Estimates the peak of memory beside the network, in bytes.

    It is what lives at once. What the allocator keeps of memory that was freed, with glibc some 0.1
    GiB, comes on top.

    Args:
        protocol: the options of inference.
        size: height and width of the picture, in pixels.
        classes: K.
        item_size: bytes of a number.
        footprint: of the network, for each pixel of a view.
        with_probabilities: whether all probabilities are kept.
    """
    pixels = math.prod(size)
    views = [protocol.view_size(size, scale) for scale in protocol.scales] * (1 + protocol.flip)
    scores = classes * item_size
    held = pixels * (4 + 4 * classes * with_probabilities)  # with the picture and its labels
    held += 64 * sum(map(sum, views))  # coordinates
    forward = item_size * footprint.numbers
    if protocol.windows is None:
        areas = [math.prod(view) for view in views]
        others = any(view != size for view in views)
        # Maps of few values are resized at once, others in bands.
        is_cut = [len(column_bands(classes * math.prod(view), view[1])) > 1 for view in views]
        shares = [footprint.rows if cut else 1.0 for cut in is_cut]
        logits = scores * sum(area * share for area, share in zip(areas, shares, strict=True))
        computing = max(
            area * (forward - scores * share) for area, share in zip(areas, shares, strict=True)
        )
        # Views of another size are made of the whole picture in floating point, and copies of it,
        # unless a filter reduces it; their logits are resized, and then all are averaged, in bands.
        is_reduced = protocol.antialias and all(math.prod(view) <= pixels for view in views)
        reading = (2 if is_reduced else 9 * item_size) * pixels * others
        bands = len(column_bands(classes * max(pixels, *areas), size[1]))
        copies = _copies(protocol, size, views, shares, with_probabilities)
        averaging = pixels / bands * (8 + copies * scores)
        return held + logits + max(computing, reading, averaging)
    crop, stride = protocol.windows
    bands = sum(min(crop[0], height) * width for height, width in views)
    count = max(
        math.prod(
            1 + max(0, math.ceil((length - side) / step))
            for length, side, step in zip(view, crop, stride, strict=True)
        )
        for view in views
    )
    batch = min(protocol.window_batch, count)
    # Of a band there are sums, their average and what is moved on.
    return held + 3.25 * scores * bands + batch * math.prod(crop) * forward


def _copies(
    protocol: InferenceProtocol,
    size: Size,
    views: Sequence[Size],
    shares: Sequence[float],
    with_probabilities: bool,
) -> float:
    """How many copies of a band's scores live at once where views are resized and averaged.

    Args:
        protocol: the options of inference.
        size: of the picture.
        views: their sizes, those that are flipped last.
        shares: which part of the rows of each there is beforehand.
        with_probabilities: whether all probabilities are kept.
    """
    summed = min(len(views), 3) - 1
    if protocol.average == "probabilities":
        summed = 1 if len(views) == 1 else 3
    own, making = 0, 0.0
    for index, (view, share) in enumerate(zip(views, shares, strict=True)):
        is_mirrored = protocol.flip and index >= len(views) // 2
        source = math.prod(view) / math.prod(size) * (share < 1)
        across = view[1] / size[1]
        taken = max(source + 2 * across, across + 2) if view != size else source + is_mirrored
        own += taken > 0
        making = max(making, taken - 1)
    return own + max(summed, 2 * with_probabilities, making)


@contextmanager
def refused_without_memory(told: str) -> Iterator[None]:
    """Raises ValueError where memory cannot be had inside, of the machine or of the accelerator."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch has no exception of its own for the memory of the machine.
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_memory and "DefaultCPUAllocator" not in str(error):
            raise
        raise ValueError(
            f"{told} take more memory than there is: choose windows (mode 'slide'), smaller ones, "
            "or smaller scales"
        ) from error
