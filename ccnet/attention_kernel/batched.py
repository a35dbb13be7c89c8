"""Schedule of few, large operations: all lines of all samples in one product per axis.

In the order (first axis, samples, other axes, channels), lines along the first and along the last
axis are each one batch with one stride, however many samples there are. The energies of all axes
lie side by side, so that one softmax serves all. Backward computes them anew: nothing is kept.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ccnet.attention_kernel.lines import Block, energies, exponentials, gather, products, scatter
from ccnet.attention_kernel.multiplication import operand, wide
from ccnet.attention_kernel.results import buffer

LIMIT = 2**27
"""Attention weights at a time. Above it the batch is cut, then the first axis.

Forward holds those of half-precision inputs at most twice in float32, others once; backward holds
three such tensors; of axes between the first and the last, each has copies of its own weights.
Beside them, each input and result of the samples at hand is held at most once again.
"""
_ALIGNMENT = 16
"""The weights of each position and axis begin at a multiple of these bytes."""


def batched_forward(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Fills the output; all tensors are (N, C, *spatial)."""
    for samples in _samples(query, key, value, output):
        for band in _bands(samples[0]):
            _attend(band, *samples)


def batched_backward(upstream: Tensor, *tensors: Tensor) -> None:
    """Fills gradients.

    Args:
        upstream: (N, Cv, *spatial), the gradient of the output.
        *tensors: query, key and value, then their gradients, to be filled.

    Where halves are multiplied without widened copies, the gradients of the energies are rounded
    to halves too, as the weights are.
    """
    for samples in _samples(upstream, *tensors):
        for band in _bands(samples[0]):
            _differentiate(band, *samples)


class _Band:
    """Consecutive positions of the first axis that attend, in all samples and other axes.

    Attributes:
        positions: their range.
    """

    def __init__(self, sample: Tensor, positions: slice) -> None:
        self.positions = positions
        self.shape = (positions.stop - positions.start, *sample.shape[1:-1])
        self.axes = [0, *range(2, sample.dim() - 1)]
        aligned = max(1, _ALIGNMENT // sample.element_size())
        self.sides, self.length = [], 0
        for axis in self.axes:
            side = slice(self.length, self.length + sample.shape[axis])
            self.sides.append(side)
            self.length += -(-sample.shape[axis] // aligned) * aligned

    def multiply(
        self,
        compute: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        *,
        padding: float,
        out: Tensor | None = None,
    ) -> Tensor:
        """Computes `energies` or `products` of all axes, side by side and each aligned.

        Args:
            compute: one of them.
            query: (band, samples, other axes, C).
            key: (first axis, samples, other axes, C).
            padding: what is between the axes.
            out: where the products go; a new tensor if it is None.

        Returns:
            (band, samples, other axes, keys of all axes), at least float32.
        """
        if out is None:
            out = query.new_empty(*self.shape, self.length, dtype=wide(query))
        ends = [side.start for side in self.sides[1:]] + [self.length]
        for side, end in zip(self.sides, ends, strict=True):
            if side.stop < end:
                out[..., side.stop : end].fill_(padding)
        for block, part in self.parts(out):
            compute(block, query, key, out=part)
        return out

    def parts(self, weights: Tensor) -> Iterator[tuple[Block, Tensor]]:
        """Yields the block of each axis, with its weights (..., lines, queries, keys).

        Queries are views of tensors of the band, keys of those of the whole first axis. The axis
        across bands comes first, so that it writes to all keys, and others add.
        """
        for axis, side in zip(self.axes, self.sides, strict=True):
            queries = partial(_lines, axis=axis)
            keys = partial(queries, positions=self.positions if axis else slice(None))
            yield Block(queries, keys, masked=axis > 0), queries(weights[..., side])

    def sum(
        self,
        compute: Callable[..., None],
        weights: Tensor,
        source: Tensor,
        target: Tensor,
        *,
        add: bool = False,
        divisor: Tensor | None = None,
    ) -> None:
        """Sums what `gather` or `scatter` computes over the axes.

        Args:
            compute: one of them.
            weights: (band, samples, other axes, keys of all axes), in the dtype of the source.
            source: what is summed: of the whole first axis to gather, of the band to scatter.
            target: what is filled: of the band to gather, of the whole first axis to scatter.
            add: whether to add to the target instead.
            divisor: what to divide sums by, not added then; nothing if it is None.
        """
        result = buffer(target, source.dtype)
        is_direct = result is target
        for block, part in self.parts(weights):
            compute(block, part, source, result, add=block.masked or (add and is_direct))
        if divisor is not None:
            torch.div(result, divisor, out=target)
        elif not is_direct:
            target.add_(result) if add else target.copy_(result)


def _attend(band: _Band, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Fills the output of a band."""
    query = operand(query[band.positions])
    weights, total = exponentials(
        band.multiply(energies, query, operand(key), padding=-math.inf), value.dtype
    )
    del query
    band.sum(gather, weights, value.contiguous(), output[band.positions], divisor=total)


def _differentiate(band: _Band, upstream: Tensor, *tensors: Tensor) -> None:
    """Fills the gradients of a band's queries, and adds to those of the keys and values."""
    query, key, value, query_gradient, key_gradient, value_gradient = tensors
    upstream = upstream[band.positions].contiguous()
    query, key = operand(query[band.positions]), operand(key)
    weights, slopes = _slopes(band, upstream, query, key, value)
    weights, slopes = weights.to(value.dtype), slopes.to(query.dtype)
    add = band.positions.start > 0
    band.sum(scatter, weights, upstream, value_gradient, add=add)
    band.sum(gather, slopes, key, query_gradient[band.positions])
    band.sum(scatter, slopes, query, key_gradient, add=add)


def _slopes(
    band: _Band, upstream: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes the attention weights of a band and the gradients of its energies."""
    scores = band.multiply(energies, query, key, padding=-math.inf)
    weights = scores.softmax(dim=-1)
    # The copy of the values is gone before more weights are allocated.
    slopes = band.multiply(products, upstream, value.contiguous(), padding=0, out=scores)
    return weights, torch._softmax_backward_data(slopes, weights, -1, weights.dtype)


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


def _bands(sample: Tensor) -> Iterator[_Band]:
    length, *others = sample.shape[:-1]
    step = max(1, LIMIT // (math.prod(others) * (length + sum(others[1:]))))
    for start in range(0, length, step):
        yield _Band(sample, slice(start, min(start + step, length)))


def _lines(tensor: Tensor, axis: int, positions: slice = slice(None)) -> Tensor:
    """Views (first axis, samples, other axes, ...) as lines (..., length, ...) along an axis."""
    lines = tensor[positions].movedim(axis, -2)
    # Along any other axis, the lines have no single stride.
    return lines.flatten(0, -3) if axis in (0, tensor.dim() - 2) else lines
