"""Memory of tensor operations, counted by storage; also on the meta device, where it is exact."""

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Context that counts the bytes of all tensor storages created in it and still alive.

    Attributes:
        live: current number of bytes.
        peak: largest number of bytes at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._known.add(tensor.untyped_storage())
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.live -= size


def kept_for_backward(function: Callable[[], object], own: Iterable[Tensor]) -> int:
    """Counts the bytes that autograd saves for backward.

    Args:
        function: the forward pass.
        own: inputs, parameters and buffers, which are not counted.
    """
    excluded = {_identity(tensor) for tensor in own}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in excluded:
            kept[_identity(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(kept.values())


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
