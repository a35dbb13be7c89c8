"""Convolution with the sum and the activation after it in one pass, by oneDNN.

oneDNN applies both to what a convolution has in the registers, so that the map is not read and
written again for each. Where there is no oneDNN, where gradients are asked for and in graphs that
are compiled or exported, the same module computes the same in plain operations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from ccnet.attention_kernel.multiplication import has_instructions

_DTYPES = (torch.float32, torch.bfloat16)
"""Those of so wide a range that maps do not overflow: oneDNN's ReLU makes NaN 0."""

_is_off: ContextVar[bool] = ContextVar("_is_off", default=False)
"""Whether nothing is fused."""


@contextmanager
def without_fusion() -> Iterator[None]:
    """Fuses nothing within, which keeps NaN: oneDNN's ReLU makes them 0."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def hides_nan(x: Tensor) -> bool:
    """Whether fused convolutions would take a batch with values that are not finite."""
    if not _can_fuse(x, x) or torch._C._len_torch_dispatch_stack():  # some of which forbid to ask
        return False
    return not bool(x.sum(dtype=torch.float32).isfinite())


class FusedConv2d(nn.Conv2d):
    """Convolution, then an optional sum, then an optional activation.

    Attributes:
        negative_slope: of the activation; 0 is ReLU, 1 is none.
    """

    negative_slope: float = 1.0

    @classmethod
    def convert(cls, convolution: nn.Conv2d, negative_slope: float) -> None:
        """Turns a convolution, in place, into one that its activation follows."""
        convolution.__class__ = cls
        convolution.negative_slope = negative_slope  # type: ignore[assignment]

    def extra_repr(self) -> str:
        """Returns the arguments that the module's repr shows."""
        inherited: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{inherited}, negative_slope={self.negative_slope:g}"

    def forward(self, x: Tensor, term: Tensor | None = None, *, overwrite: bool = False) -> Tensor:
        """Convolves, adds and activates.

        Args:
            x: (N, C, H, W), floating point.
            term: (N, C', H', W'), of the same dtype, which is added to the convolution.
            overwrite: whether the result may be written over the term.

        Returns:
            (N, C', H', W').
        """
        if _can_fuse(x, self.weight) and (term is None or (_has_order(x) and _has_order(term))):
            return self._fused(x, term, overwrite)
        out = super().forward(x)
        return _activated(out if term is None else out.add_(term), self.negative_slope)

    def _fused(self, x: Tensor, term: Tensor | None, overwrite: bool) -> Tensor:
        operands = (_channels_last(x), self.weight, self.bias)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        slope = self.negative_slope
        if term is None:
            kind, numbers = ("none", []) if slope == 1 else ("leaky_relu", [slope])
            kind, numbers = ("relu", []) if slope == 0 else (kind, numbers)
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
                *operands, *geometry, kind, numbers, ""
            )
            return fused
        total = _channels_last(term)
        total = total.clone() if total is term and not overwrite else total
        then = "relu" if slope == 0 else None  # leaky ReLU it does not know after a sum
        total = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, *operands, *geometry, "add", 1.0, then, [], None
        )
        return total if slope == 0 else _activated(total, slope)


def _activated(x: Tensor, negative_slope: float) -> Tensor:
    """Activates in place."""
    if negative_slope == 0:
        return F.relu_(x)
    return x if negative_slope == 1 else F.leaky_relu_(x, negative_slope)


def _has_order(x: Tensor) -> bool:
    """Whether channels-last is another order than any other, which oneDNN's sum needs."""
    return x.shape[1] > 1 and x.shape[2:].numel() > 1


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is there, and nothing looks at the operations that it does not know."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    differentiates = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    is_watched = differentiates or torch._C._are_functorch_transforms_active()
    is_watched = is_watched or forward_ad._current_level >= 0 or _is_off.get()
    is_plain = x.device.type == "cpu" and type(x) is Tensor and x.dtype == weight.dtype
    is_plain = is_plain and not torch.is_autocast_enabled("cpu") and x.numel() > 0
    return is_plain and not is_watched and _is_fast(x.dtype)


@cache
def _is_fast(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves in a dtype on this processor."""
    is_there = torch.backends.mkldnn.is_available()
    is_there = is_there and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    return is_there and dtype in _DTYPES and has_instructions(dtype)


def _operations(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


def _operations_with_sum(_: Any, x: Any, weight: Any, *__: Any, **options: Any) -> int:
    return _operations(x, weight, **options)


_COUNTS: dict[str, Any] = {
    "_convolution_pointwise": _operations,
    "_convolution_pointwise_": _operations_with_sum,
}

for _name, _count in _COUNTS.items():  # so that `FlopCounterMode` knows them
    _operation = getattr(torch.ops.mkldnn, _name, None)
    if _operation is not None and _operation not in flop_registry:
        register_flop_formula(_operation)(_count)
