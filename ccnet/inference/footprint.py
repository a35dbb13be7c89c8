"""Footprint: what a network takes for each pixel, counted without computing anything."""

import json
import math
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccnet.inference.protocol import Size

SIDE = 512
"""Side of the picture on which a network is counted: memory is proportional to the area."""


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
