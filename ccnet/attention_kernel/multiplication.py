"""Batched matrix products: written into views, and of halves with float32's digits."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

BLOCKWISE = {"cpu"}
"""Types of devices that compute in blocks; there, a product into a view costs more than its copy.

All others take the batched schedule, and write products where they belong.
"""


def is_blockwise(tensor: Tensor) -> bool:
    """Returns whether the device of a tensor computes in blocks."""
    return tensor.device.type in BLOCKWISE


def multiply(left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Writes a batched matrix product into a view, or adds it.

    Args:
        left: (..., rows, inner).
        right: (..., inner, columns), of the same dtype.
        out: (..., rows, columns). Halves have float32's digits in a float32 tensor only if the
            device has such products, see `widens`.
        add: whether to add to what it holds.
    """
    is_wider = left.dtype != out.dtype
    fused = is_wider and widens(out.device.type)
    copied = is_blockwise(out) and (add or not out.is_contiguous())
    if copied or out.dim() > 3 or (is_wider and (add or not fused)):
        flat = left.flatten(0, -3), right.flatten(0, -3)
        if fused:
            product = out.new_empty(*flat[0].shape[:-1], out.shape[-1])
            multiply_halves(*flat, product)
        else:
            product = torch.bmm(*flat)
        product = product.view(out.shape)
        out.add_(product) if add else out.copy_(product)
    elif fused:
        multiply_halves(left, right, out)
    elif add:
        torch.baddbmm(out, left, right, out=out)
    else:
        torch.bmm(left, right, out=out)


@cache
def widens(device_type: str) -> bool:
    """Returns whether products of halves can be had in float32 without widened copies of them."""
    if not hasattr(torch.ops.aten.bmm, "dtype_out") or torch.version.hip:
        return False
    key = torch._C._dispatch_key_for_device(device_type)
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("aten::bmm.dtype_out", key))


def multiply_halves(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Writes a batched product of halves into float32, where the device has such an operation."""
    torch.bmm(left, right, out_dtype=out.dtype, out=out)


def operand(tensor: Tensor) -> Tensor:
    """Returns a contiguous tensor whose products, written by `multiply`, have float32's digits."""
    dtype = tensor.dtype if widens(tensor.device.type) else wide(tensor)
    return tensor.to(dtype, memory_format=torch.contiguous_format).contiguous()


def wide(tensor: Tensor) -> torch.dtype:
    """Returns the dtype of energies and their statistics: at least float32."""
    return torch.float32 if tensor.element_size() < 4 else tensor.dtype


@cache
def has_instructions(dtype: torch.dtype) -> bool:
    """Returns whether the processor has instructions for products of a dtype.

    Without them, halves are multiplied faster in float32.
    """
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if dtype not in names:
        return True
    is_supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{names[dtype]}_supported", None)
    return is_supported is not None and bool(is_supported())


def multiplied(tensor: Tensor) -> torch.dtype:
    """Returns the dtype in which a tensor of the CPU is multiplied: its own, or float32."""
    return tensor.dtype if has_instructions(tensor.dtype) else wide(tensor)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Disables autocast, so that products have the precision of their operands."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
