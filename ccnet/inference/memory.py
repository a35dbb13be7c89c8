"""Memory of inference: estimated from sizes alone, so that it is the same on every machine."""

import json
import logging
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccnet.inference.logits import column_bands
from ccnet.inference.protocol import InferenceProtocol, Size

logger = logging.getLogger(__name__)

GIB = 2**30

DEFAULT_LIMIT = 8.5
"""GiB: what ResNet-101 takes of 1024x2048 pixels at seven scales, 0.5 to 2, flipped, is below."""

SIDE = 512
"""Side of the picture on which a network is counted: memory is proportional to the area."""

MOST_PER_PIXEL = 2**15
"""Bytes per pixel that no network needs, whatever its stem: below, none is counted."""


class Footprint(NamedTuple):
    """What a forward pass of one picture takes.

    Attributes:
        numbers: that it holds at its peak, per pixel.
        rows: of its logits, as a share of those of the picture.
    """

    numbers: float
    rows: float = 1.0


@lru_cache
def count_footprint(
    build: Callable[..., nn.Module], config: str, size: Size | None = None
) -> Footprint:
    """Counts what a forward pass of one picture takes, without the resize of its logits.

    Its numbers are the results of all operations for as long as they live, and the copies of input
    and output in which a convolution computes unless its input is channels-last. Nothing is
    computed here: the network is on the meta device.

    Args:
        build: the constructor of the network.
        config: its arguments, in JSON.
        size: height and width of the picture, for networks that do not take any; None for `SIDE`.
    """
    size = size or (SIDE, SIDE)
    arguments = json.loads(config)
    with torch.device("meta"):
        network = build(**arguments).eval()
    for module in network.modules():  # without hooks of all modules, as this is cached
        if not (module._forward_hooks or module._forward_pre_hooks):
            module._compiled_call_impl = module.forward
    if hasattr(network, "resizes_logits"):
        network.resizes_logits = False  # type: ignore[assignment]
    picture = torch.empty(1, arguments.get("in_channels", 3), *size, device="meta")
    with torch.no_grad(), _Ledger() as ledger:
        logits, *_ = tree_leaves(network(picture))
    numbers = (ledger.peak + picture.nbytes) / picture.element_size() / math.prod(size)
    return Footprint(float(numbers), logits.shape[-2] / size[0])


class _Ledger(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = operation(*args, **(kwargs or {}))
        copies = 0
        if operation.overloadpacket is torch.ops.aten.convolution:
            if _is_channels_last(args[0]):  # not all results on the meta device are so too
                results = results.contiguous(memory_format=torch.channels_last)
            else:
                copies = args[0].nbytes + results.nbytes
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(results):
            if storage._cdata not in given:  # no view of a parameter, for example
                self._enter(storage)
        self.peak = max(self.peak, self._live + copies)
        return results

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._live += size
            weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _storages(tensors: Any) -> Iterator[torch.UntypedStorage]:
    for tensor in tree_leaves(tensors):
        if isinstance(tensor, Tensor):
            yield tensor.untyped_storage()


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.movedim(1, -1).is_contiguous()


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
