"""Schedule of few, large operations: all lines of all samples in one product per axis.

In the order (first axis, samples, other axes, channels), lines along the first and along the last
axis are each one batch with one stride, however many samples there are. The energies of all axes
lie side by side, so that one softmax serves all. Backward computes them anew: nothing is kept.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ccnet.attention_kernel.lines import Block, energies, gather, multiply, operand, pull_back, wide

LIMIT = 2**27
"""Attention weights at a time. Above it the batch is cut, then the first axis."""
_ALIGNMENT = 16
"""The weights of each position and axis begin at a multiple of these bytes."""


def batched_forward(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Fills the output; all tensors are (N, C, *spatial)."""
    for queries, keys, values, target in _samples(query, key, value, output):
        queries, keys, values = operand(queries), operand(keys), values.contiguous()
        result = _buffer(target, values)
        for band in _bands(values):
            weights, total = band.energies(queries, keys), None
            if weights.dtype == values.dtype:
                # Divided after the product: equal values come out exactly.
                weights.sub_(weights.amax(dim=-1, keepdim=True)).exp_()
                total = weights.sum(dim=-1, keepdim=True)
            else:
                # Divided before: sums of halves could overflow.
                weights = weights.softmax(dim=-1).to(values.dtype)
            for block, part in band.parts(weights):
                gather(block, part, values, result, add=block.masked)
            if total is not None:
                torch.div(result[band.queries], total, out=target[band.queries])
            elif result is not target:
                target[band.queries].copy_(result[band.queries])


def batched_backward(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, gradients: Sequence[Tensor]
) -> None:
    """Fills the gradients of query, key and value, given that of the output."""
    for queries, keys, values, above, *targets in _samples(query, key, value, upstream, *gradients):
        queries, keys, values = operand(queries), operand(keys), values.contiguous()
        above = above.contiguous()
        inputs = queries, keys, above
        results = [_buffer(*pair) for pair in zip(targets, (queries, keys, values), strict=True)]
        bands = list(_bands(values))
        if len(bands) > 1:
            for result in results:
                result.zero_()
        for band in bands:
            slopes = band.energies(queries, keys)
            weights = slopes.softmax(dim=-1)
            band.pad(slopes, 0)
            for block, part in band.parts(slopes):
                multiply(block.queries(above), block.keys(values).transpose(-1, -2), part)
            slopes = torch._softmax_backward_data(slopes, weights, -1, weights.dtype)
            weights, slopes = weights.to(values.dtype), slopes.to(queries.dtype)
            parts = zip(band.parts(weights), band.parts(slopes), strict=True)
            for (block, weight_part), (_, slope_part) in parts:
                add = block.masked or len(bands) > 1
                pull_back(block, weight_part, slope_part, inputs, results, add=add)
        for target, result in zip(targets, results, strict=True):
            if result is not target:
                target.copy_(result)


class _Band:
    """Consecutive positions of the first axis that attend, in all samples and other axes.

    Attributes:
        queries: their range.
    """

    def __init__(self, values: Tensor, queries: slice) -> None:
        self.queries = queries
        self.shape = (queries.stop - queries.start, *values.shape[1:-1])
        self.axes = [*range(values.dim() - 2, 1, -1), 0]
        aligned = max(1, _ALIGNMENT // values.element_size())
        self.sides, self.length = [], 0
        for axis in self.axes:
            side = slice(self.length, self.length + values.shape[axis])
            self.sides.append(side)
            self.length += -(-values.shape[axis] // aligned) * aligned

    def energies(self, query: Tensor, key: Tensor) -> Tensor:
        """Computes the energies of all axes, side by side; between them -inf."""
        result = query.new_empty(*self.shape, self.length, dtype=wide(query))
        self.pad(result, -math.inf)
        for block, part in self.parts(result):
            energies(block, query, key, out=part)
        return result

    def pad(self, weights: Tensor, number: float) -> None:
        """Fills what is between the axes."""
        ends = [side.start for side in self.sides[1:]] + [self.length]
        for side, end in zip(self.sides, ends, strict=True):
            if side.stop < end:
                weights[..., side.stop : end].fill_(number)

    def parts(self, weights: Tensor) -> Iterator[tuple[Block, Tensor]]:
        """Yields the block of each axis, with its weights (..., lines, queries, keys)."""
        for axis, side in zip(self.axes, self.sides, strict=True):
            masked = axis != self.axes[0]
            queries = partial(_lines, axis=axis, positions=self.queries)
            if axis:
                block = Block(queries, queries, masked)
            else:
                block = Block(queries, partial(_lines, axis=0), masked, self.queries.start)
            yield block, _lines(weights[..., side], axis)


def _bands(values: Tensor) -> Iterator[_Band]:
    length, *others = values.shape[:-1]
    step = max(1, LIMIT // (math.prod(others) * (length + sum(others[1:]))))
    for start in range(0, length, step):
        yield _Band(values, slice(start, min(start + step, length)))


def _samples(*batch: Tensor) -> Iterator[list[Tensor]]:
    """Yields parts of the batch, as views (first axis, samples, other axes, channels).

    Axes of one position are left out.
    """
    size = batch[0].shape[2:]
    longer = [axis for axis in range(2, len(size) + 2) if size[axis - 2] > 1] or [2]
    single = tuple(axis for axis in range(2, len(size) + 2) if axis not in longer)
    step = max(1, LIMIT // (math.prod(size) * sum(size)))
    for tensors in zip(*(tensor.split(step) for tensor in batch), strict=True):
        yield [tensor.squeeze(single).movedim(1, -1).transpose(0, 1) for tensor in tensors]


def _buffer(target: Tensor, operand: Tensor) -> Tensor:
    """Returns where a product like the operand is written: the target itself, if it is like it."""
    is_like = target.is_contiguous() and target.dtype == operand.dtype
    return target if is_like else torch.empty_like(operand)


def _lines(tensor: Tensor, axis: int, positions: slice = slice(None)) -> Tensor:
    """Views (first axis, samples, other axes, ...) as lines (..., length, ...) along an axis."""
    lines = tensor[positions].movedim(axis, -2)
    # Along any other axis, the lines have no single stride.
    return lines.flatten(0, -3) if axis in (0, tensor.dim() - 2) else lines
