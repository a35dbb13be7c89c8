"""The mathematics of criss-cross attention on a block of lines, and its order of axes.

A line runs along one axis: a row or a column. A block holds lines of one axis. Energies are the
products of its queries and keys; a softmax over all axes turns them into weights, with which values
are summed. The schedules decide which blocks there are and how the softmax is computed.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

Lines = Callable[[Tensor], Tensor]
"""Maps (*positions, ...) to a view (..., lines, length, ...) of a block."""


class Block(NamedTuple):
    """A block of lines of one axis.

    Attributes:
        queries: the positions that attend.
        keys: the positions attended to: all of each line.
        masked: whether the position itself is left out, as another axis has it.
        start: where on their lines the queries begin.
    """

    queries: Lines
    keys: Lines
    masked: bool
    start: int = 0


def energies(block: Block, query: Tensor, key: Tensor, out: Tensor | None = None) -> Tensor:
    """Computes the energies (..., lines, queries, keys) of a block, in the dtype of `out`."""
    queries, keys = block.queries(query), block.keys(key).transpose(-1, -2)
    if out is None:
        out = torch.bmm(queries, keys)
    else:
        multiply(queries, keys, out)
    if block.masked:
        out.diagonal(block.start, dim1=-2, dim2=-1).fill_(-math.inf)
    return out


def gather(block: Block, weights: Tensor, value: Tensor, output: Tensor, *, add: bool) -> None:
    """Writes or adds the values, summed with the weights, to the output of a block."""
    multiply(weights, block.keys(value), block.queries(output), add=add)


def pull_back(
    block: Block,
    weights: Tensor,
    slopes: Tensor,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    add: bool,
) -> None:
    """Writes or adds the gradients of a block.

    Args:
        block: the block.
        weights: (..., lines, queries, keys), the attention weights.
        slopes: of the same shape, the gradient of the energies.
        inputs: query, key and the gradient of the output.
        gradients: those of query, key and value, to be filled.
        add: whether to add to them.
    """
    query, key, upstream = inputs
    query_gradient, key_gradient, value_gradient = gradients
    turned = weights.transpose(-1, -2)
    multiply(turned, block.queries(upstream), block.keys(value_gradient), add=add)
    multiply(slopes, block.keys(key), block.queries(query_gradient), add=add)
    turned = slopes.transpose(-1, -2)
    multiply(turned, block.queries(query), block.keys(key_gradient), add=add)


def multiply(left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Writes a batched matrix product into a view, or adds it."""
    is_direct = out.dim() == 3 and (
        out.device.type not in COPYING or (out.is_contiguous() and not add)
    )
    if left.dtype != out.dtype and widens(out.device.type):
        product = out if is_direct else out.new_empty(out.shape)
        multiply_halves(*(tensor.flatten(0, -3) for tensor in (left, right, product)))
        if not is_direct:
            out.copy_(product)
    elif not is_direct or left.dtype != out.dtype:
        product = torch.bmm(left, right) if out.dim() == 3 else torch.matmul(left, right)
        out.add_(product) if add else out.copy_(product)
    elif add:
        torch.baddbmm(out, left, right, out=out)
    else:
        torch.bmm(left, right, out=out)


COPYING = {"cpu"}
"""Types of devices where a product into a view costs more than its copy."""


@cache
def widens(device_type: str) -> bool:
    """Returns whether products of halves can be had in float32 without widened copies of them."""
    half = torch.ones(1, 1, 1, dtype=torch.float16, device=device_type)
    try:
        multiply_halves(half, half, half.float())
    except (TypeError, RuntimeError):
        return False
    return True


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


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Disables autocast, so that products have the precision of their operands."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
