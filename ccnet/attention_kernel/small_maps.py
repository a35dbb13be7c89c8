"""Schedule for small maps on a CPU, where the number of operations and copies is what costs.

All lines of some samples are one block per axis. They are copied in the layout of the inputs, those
of NCHW tensors as (lines, C, length), so that no product changes between channels-first and
channels-last order. Backward computes the weights anew: nothing is kept.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ccnet.attention_kernel.lines import axes_of, exponentials
from ccnet.attention_kernel.multiplication import multiplied, wide

LIMIT, LIMIT_OF_HALVES = 2**15, 2**17
"""Attention weights per sample up to which this is faster than blocks."""
_WEIGHTS = 2**18
"""Attention weights at a time. Above it the batch is cut."""


def is_small(value: Tensor) -> bool:
    """Returns whether a batch (N, Cv, *spatial) is of maps that this schedule is for."""
    limit = LIMIT if multiplied(value) == wide(value) else LIMIT_OF_HALVES
    return _count(value) <= limit


def small_forward(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Fills the output; all tensors are (N, C, *spatial)."""
    batch = *_operands(query, key, value), output
    for queries, keys, values, target in _parts(*batch):
        axes = axes_of(values.shape[2:])
        pairs = [[_lines(tensor, axis) for tensor in (queries, keys)] for axis in axes]
        weights, total = exponentials(_energies(values, axes, pairs), values.dtype)
        result = _buffer(target, values.dtype)
        for axis, side in zip(axes, _sides(axes, weights), strict=True):
            _sum(axis, side.flatten(0, -3), _lines(values, axis), result, add=axis != axes[0])
        if total is not None:
            torch.div(result, total.movedim(-1, 1), out=target)


def small_backward(upstream: Tensor, *tensors: Tensor) -> None:
    """Fills gradients.

    Args:
        upstream: (N, Cv, *spatial), the gradient of the output.
        *tensors: query, key and value, then their gradients, to be filled.
    """
    inputs = _operands(*tensors[:3])
    batch = *inputs, upstream.to(inputs[2].dtype), *tensors[3:]
    for part in _parts(*batch):
        sources, targets = part[:4], part[4:]
        axes = axes_of(upstream.shape[2:])
        lines = [[_lines(tensor, axis) for tensor in sources] for axis in axes]
        weights, slopes = _slopes(sources[2], axes, lines)
        results = [
            _buffer(*pair) for pair in zip(targets, (one.dtype for one in inputs), strict=True)
        ]
        sides = _sides(axes, weights), _sides(axes, slopes)
        for axis, weight, slope, (queries, keys, _, above) in zip(axes, *sides, lines, strict=True):
            weight, slope, add = weight.flatten(0, -3), slope.flatten(0, -3), axis != axes[0]
            _sum(axis, slope, keys, results[0], add=add)
            _sum(axis, slope.mT, queries, results[1], add=add)
            _sum(axis, weight.mT, above, results[2], add=add)
        for result, target in zip(results, targets, strict=True):
            if result is not target:
                target.copy_(result)


def _slopes(
    values: Tensor, axes: Sequence[int], lines: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    """Computes the attention weights and the gradients of the energies, (N, *spatial, keys)."""
    weights = _energies(values, axes, [line[:2] for line in lines]).softmax(dim=-1)
    gathered = torch.empty_like(weights)
    for side, (*_, of_values, above) in zip(_sides(axes, gathered), lines, strict=True):
        side.copy_(torch.bmm(above, of_values.mT).view(side.shape))
    slopes = torch._softmax_backward_data(gathered, weights, -1, weights.dtype)
    return weights.to(values.dtype), slopes


def _energies(values: Tensor, axes: Sequence[int], lines: Sequence[Sequence[Tensor]]) -> Tensor:
    """Returns the energies (N, *spatial, keys) of all axes, side by side."""
    size = values.shape[2:]
    length = sum(size[axis] for axis in axes)
    result = values.new_empty(len(values), *size, length, dtype=wide(values))
    for axis, side, (queries, keys) in zip(axes, _sides(axes, result), lines, strict=True):
        energies = torch.bmm(queries, keys.mT)
        if axis != axes[0]:
            energies.diagonal(dim1=1, dim2=2).fill_(-math.inf)
        side.copy_(energies.view(side.shape))
    return result


def _sides(axes: Sequence[int], weights: Tensor) -> list[Tensor]:
    """Views (N, *spatial, keys) as (N, other axes, length, keys) for each axis."""
    sides = weights.split([weights.shape[axis + 1] for axis in axes], dim=-1)
    return [side.movedim(axis + 1, -2) for axis, side in zip(axes, sides, strict=True)]


def _sum(axis: int, weights: Tensor, lines: Tensor, target: Tensor, *, add: bool) -> None:
    """Sums lines (lines, length, C) with weights (lines, length, keys) into (N, C, *spatial)."""
    is_channels_last = _is_channels_last(target)
    product = torch.bmm(weights, lines) if is_channels_last else torch.bmm(lines.mT, weights.mT).mT
    others = [length for other, length in enumerate(target.shape[2:]) if other != axis]
    product = product.unflatten(0, (len(target), *others)).movedim(-2, axis + 1).movedim(-1, 1)
    if not add:
        target.copy_(product)
    else:
        # Across the order of the target, an addition is slower than a copy.
        target.add_(product if is_channels_last else product.contiguous())


def _lines(tensor: Tensor, axis: int) -> Tensor:
    """Returns (N, C, *spatial) as (lines, length, C) along an axis, stored in its layout."""
    if _is_channels_last(tensor):
        return tensor.movedim(1, -1).movedim(axis + 1, -2).flatten(0, -3)
    return tensor.movedim(axis + 2, -1).movedim(1, -2).contiguous().flatten(0, -3).mT


def _parts(*batch: Tensor) -> Iterator[tuple[Tensor, ...]]:
    step = max(1, _WEIGHTS // _count(batch[0]))
    return zip(*(tensor.split(step) for tensor in batch), strict=True)


def _operands(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the inputs in the dtypes in which they are multiplied."""
    return query.to(wide(query)), key.to(wide(key)), value.to(multiplied(value))


def _buffer(target: Tensor, dtype: torch.dtype) -> Tensor:
    return target if target.dtype == dtype else torch.empty_like(target, dtype=dtype)


def _count(tensor: Tensor) -> int:
    """Returns the number of attention weights of a sample of (N, C, *spatial)."""
    size = tensor.shape[2:]
    return math.prod(size) * sum(size)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.movedim(1, -1).is_contiguous()
