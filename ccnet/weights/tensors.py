"""Tensors: which ones can be weights."""

from typing import Any

import torch
from torch import Tensor

from ccnet.schema import shown

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of weights: what others hold needs a scale first."""

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64),
)
_LARGEST_COUNT = 2**53
_NOT_NEGATIVE = ("running_var", "num_batches_tracked")
"""How the names of tensors end whose values are 0 or more."""


def irregularity(tensor: Any) -> str | None:
    """Says why something is no plain tensor of real numbers, which can be computed with."""
    if not isinstance(tensor, Tensor):
        return f"is a {type(tensor).__name__}, not a tensor"
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return "is sparse, nested or quantized: save it as a plain tensor"
    if tensor.dtype not in (*_FLOATS, *_INTEGERS):
        return f"is {tensor.dtype}: the network needs floating-point numbers of 16 bits or more"
    return "has no values" if tensor.is_meta else None


def misfit(name: str, tensor: Any, target: Tensor) -> str | None:
    """Says why a tensor cannot be the value of another.

    Args:
        name: of both.
        tensor: of any type.
        target: a parameter or buffer, which may be without values.
    """
    if (fault := irregularity(tensor)) is not None:
        return fault
    if tensor.shape != target.shape:
        return f"is {shown(tuple(tensor.shape))} instead of {tuple(target.shape)}"
    if not target.is_floating_point():
        count = tensor.to(torch.float64)
        is_count = (count >= 0) & (count <= _LARGEST_COUNT) & (count == count.trunc())
        return None if is_count.all() else f"is no number in 0..{_LARGEST_COUNT}"
    if tensor.dtype not in _FLOATS:
        return f"is {tensor.dtype}: the network needs floating-point numbers of 16 bits or more"
    if torch.finfo(tensor.dtype).max > torch.finfo(target.dtype).max:
        tensor = tensor.to(target.dtype)
    if not tensor.isfinite().all():
        return f"has values that are not finite in {target.dtype}"
    if name.endswith(_NOT_NEGATIVE) and (tensor < 0).any():
        return "has values below 0"
    return None
