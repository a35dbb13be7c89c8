"""Convolutions of a network: which there are, and the time that each takes alone."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ccnet.deployment.optimized.convolution import FusedConv2d

LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


REPETITIONS = 5
"""Of each kind of convolution, after one that is not timed; the median counts."""


class Convolution(NamedTuple):
    """What the time of a convolution depends on.

    Attributes:
        shape: of the input, (N, C, H, W).
        kernel: shape of the weights.
        negative_slope: of the activation that is computed along, 1 for none; None if it is a plain
            convolution.
        has_sum: whether a sum is computed along.
    """

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    has_bias: bool
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: torch.dtype
    is_channels_last: bool
    negative_slope: float | None
    has_sum: bool

    def work(self, device: str) -> Callable[[], Tensor]:
        """Returns the convolution of tensors of its own, with what is computed along."""
        layout = {"memory_format": LAYOUTS[self.is_channels_last]}
        options = {"device": device, "dtype": self.dtype}
        size, geometry = self.kernel[2:], (self.stride, self.padding, self.dilation, self.groups)
        layer = nn.Conv2d(self.shape[1], self.kernel[0], size, *geometry, self.has_bias, **options)
        layer.requires_grad_(False).to(**layout)
        x = torch.full(self.shape, 0.01, **options).contiguous(**layout)
        if self.negative_slope is None:
            return lambda: layer(x)
        FusedConv2d.convert(layer, self.negative_slope)
        term = torch.zeros_like(layer(x)) if self.has_sum else None
        return lambda: layer(x, term, overwrite=True)


def convolutions_of(module: nn.Module, run: Callable[[], object]) -> Counter[Convolution]:
    """Counts the 2-D convolutions of a run, as they are computed in it."""
    found: Counter[Convolution] = Counter()

    def note(layer: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        x, *terms = args
        found[
            Convolution(
                tuple(x.shape),
                tuple(layer.weight.shape),
                layer.bias is not None,
                *(layer.stride, layer.padding, layer.dilation, layer.groups),
                output.dtype,
                x.is_contiguous(memory_format=torch.channels_last),
                getattr(layer, "negative_slope", None),
                any(term is not None for term in terms),
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
    """Returns the time of all convolutions, each kind run alone, and counted as it occurs."""
    total = 0.0
    for convolution, count in convolutions.items():
        work = convolution.work(device)
        _, *times = (seconds(work, device) for _ in range(1 + REPETITIONS))
        total += count * statistics.median(times)
    return total
