"""Data flow of a network: which module alone reads what another one returns."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Value: TypeAlias = tuple[int, int]
"""A tensor as it is between two modifications in place: its identity and its version."""


@torch.inference_mode(False)  # whose tensors have no versions
@torch.no_grad()
def sole_readers(
    modules: Iterable[nn.Module], run: Callable[[], object]
) -> dict[nn.Module, nn.Module]:
    """Finds modules whose output goes to one other module and nowhere else.

    Every operation of a run is watched, so that nothing is taken for granted of the code between
    the modules. Modules that the run calls more than once are left out.

    Args:
        modules: those between which to look; none of them inside another.
        run: calls the network.

    Returns:
        The reader by the module that it reads, where its only argument is the output of that.
    """
    watch = _Watch()
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(watch.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(watch.leave))
    try:
        with watch:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return watch.sole_readers()


class _Watch(TorchDispatchMode):
    """Context that notes which tensors modules take, read and return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: Counter[nn.Module] = Counter()
        self._taken: dict[nn.Module, Value] = {}
        self._returned: dict[Value, nn.Module] = {}
        self._readers: dict[Value, set[nn.Module | None]] = {}
        self._open: list[nn.Module | None] = [None]
        self._kept: list[Tensor] = []  # so that no identity is used again

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Notes that a module is called."""
        self._calls[module] += 1
        self._open.append(module)
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
            self._taken[module] = self._value(args[0])

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Notes what a module returns."""
        self._open.pop()
        if isinstance(output, Tensor):
            self._returned[self._value(output)] = module

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._readers.setdefault(self._value(leaf), set()).add(self._open[-1])
        return operation(*args, **(kwargs or {}))

    def _value(self, tensor: Tensor) -> Value:
        self._kept.append(tensor)
        return id(tensor), tensor._version

    def sole_readers(self) -> dict[nn.Module, nn.Module]:
        """Returns the result of `sole_readers`."""
        found = {}
        for reader, value in self._taken.items():
            maker = self._returned.get(value)
            once = maker is not None and self._calls[maker] == self._calls[reader] == 1
            if maker is not None and once and self._readers.get(value) == {reader}:
                found[maker] = reader
        return found
