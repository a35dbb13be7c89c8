"""Convolutions of a network: which there are, and the time that each takes alone."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


class Convolution(NamedTuple):
    """What the time of a convolution depends on."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    has_bias: bool
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: torch.dtype
    is_channels_last: bool

    def work(self, device: str) -> Callable[[], Tensor]:
        """Returns the convolution of tensors of its own."""

        def made(shape: tuple[int, ...]) -> Tensor:
            layout = LAYOUTS[self.is_channels_last]
            values = torch.full(shape, 0.01, dtype=self.dtype, device=device)
            return values.contiguous(memory_format=layout)

        x, weight = made(self.shape), made(self.kernel)
        bias = weight.new_zeros(len(weight)) if self.has_bias else None
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return lambda: F.conv2d(x, weight, bias, *geometry)


def convolutions_of(module: nn.Module, run: Callable[[], object]) -> Counter[Convolution]:
    """Counts the 2-D convolutions of a run, as they are computed in it."""
    found: Counter[Convolution] = Counter()

    def note(layer: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = args[0]
        found[
            Convolution(
                tuple(x.shape),
                tuple(layer.weight.shape),
                layer.bias is not None,
                *(layer.stride, layer.padding, layer.dilation, layer.groups),
                output.dtype,
                x.is_contiguous(memory_format=torch.channels_last),
            )
        ] += 1

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def seconds(work: Callable[[], object], device: str) -> float:
    """Returns the time of one call."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_alone(convolutions: Counter[Convolution], device: str) -> float:
    """Returns the time of all convolutions, each kind run alone, once, and counted as it occurs."""
    total = 0.0
    for convolution, count in convolutions.items():
        work = convolution.work(device)
        work()
        total += count * seconds(work, device)
    return total
