"""Schedule of many, small operations: blocks of lines that fit the cache of a processor's core.

In channels-last order a batch of lines of any axis is a strided view, ready for a batched matrix
product, so nothing is permuted or concatenated. The axes share softmax statistics, one maximum and
one sum per position, which each axis updates (online softmax, https://arxiv.org/abs/1805.02867).
Backward recomputes the weights from them.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ccnet.attention_kernel.lines import (
    Block,
    axes_of,
    energies,
    exponentiate,
    gather,
    products,
    scatter,
)
from ccnet.attention_kernel.multiplication import multiplied
from ccnet.attention_kernel.results import buffer

_BLOCK_WEIGHTS = 2**18
"""Attention weights per block: what fits the cache of a core."""
_PIECE = 512
"""Positions transposed at a time."""
_STASH_WEIGHTS = 2**24
"""Attention weights per sample up to which a pass keeps rather than recomputes them."""


def blockwise_forward(
    query: Tensor, key: Tensor, value: Tensor, statistics: Tensor, output: Tensor
) -> None:
    """Fills the softmax statistics (N, 2, *spatial) and the output (N, Cv, *spatial)."""
    queries, keys = _channels_last(query), _channels_last(key)
    targets = output.movedim(1, -1)
    if targets.is_contiguous():
        values = _channels_last(value)
    else:
        # An output in another order lends its memory to the values until it is written.
        values = output.view(targets.shape).copy_(value.movedim(1, -1))
    samples = _samples(queries, keys, values, statistics)
    for sample, target in zip(samples, targets, strict=True):
        result = buffer(target, sample.value.dtype)
        _attend(sample, result)
        if target.is_contiguous():
            _copy(result, target)
        else:
            _transpose(result.flatten(0, -2), target.movedim(-1, 0).flatten(1))


def blockwise_backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    statistics: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Fills the gradients of query, key and value, given that of the output."""
    inputs = [_channels_last(tensor) for tensor in (query, key, value)]
    batches = [_channels_last(upstream), *(tensor.movedim(1, -1) for tensor in gradients)]
    for sample, above, *targets in zip(_samples(*inputs, statistics), *batches, strict=True):
        dtypes = [tensor.dtype for tensor in sample[:3]]
        results = [buffer(*pair) for pair in zip(targets, dtypes, strict=True)]
        _differentiate(sample, above.to(sample.value.dtype), results)
        for result, target in zip(results, targets, strict=True):
            _copy(result, target)


class _Sample(NamedTuple):
    """The inputs (*spatial, C) of one sample and its softmax statistics (*spatial)."""

    query: Tensor
    key: Tensor
    value: Tensor
    maximum: Tensor
    total: Tensor


def _samples(*batch: Tensor) -> Iterator[_Sample]:
    """Yields the samples of a batch, each tensor in the dtype in which it is multiplied."""
    for query, key, value, statistics in zip(*batch, strict=True):
        wide = statistics.dtype
        yield _Sample(query.to(wide), key.to(wide), value.to(multiplied(value)), *statistics)


def _attend(sample: _Sample, output: Tensor) -> None:
    """Fills the output (*spatial, Cv) and the softmax statistics of one sample."""
    query, key, value, maximum, total = sample
    axes = axes_of(maximum.shape)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS
    stash = []
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights = energies(block, query, key)
            largest, sums = block.queries(maximum), block.queries(total)
            highest = weights.amax(dim=-1)
            if block.masked:
                highest = torch.maximum(highest, largest)
                sums.mul_(exponentiate(largest, highest))
            exponentiate(weights, highest[..., None])
            if block.masked:
                sums.add_(weights.sum(dim=-1))
            else:
                torch.sum(weights, dim=-1, out=sums)
            largest.copy_(highest)
            if keep:
                stash.append((weights, highest))
    stash.reverse()
    is_half = value.dtype != total.dtype
    for axis in axes:
        is_last = axis == axes[-1]
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            if not keep:
                weights = energies(block, query, key)
                exponentiate(weights, block.queries(maximum)[..., None])
            else:
                weights, highest = stash.pop()
                if not is_last:
                    weights.mul_(exponentiate(highest, block.queries(maximum))[..., None])
            if is_half:
                weights = weights.div_(block.queries(total)[..., None]).to(value.dtype)
            gather(block, weights, value, output, add=block.masked)
            if is_last and not is_half:
                block.queries(output).div_(block.queries(total)[..., None])


def _differentiate(sample: _Sample, upstream: Tensor, gradients: Sequence[Tensor]) -> None:
    """Fills the gradients of query, key and value, given that of the output (*spatial, Cv).

    The gradient of an energy is w (g - m), where w is its weight, g the product of the output's
    gradient with the value there, and m the mean of g weighted by all weights of the position.
    """
    query, key, value, maximum, total = sample
    query_gradient, key_gradient, value_gradient = gradients
    axes = axes_of(maximum.shape)
    mean = torch.zeros_like(total)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS

    def weigh(block: Block) -> tuple[Tensor, Tensor]:
        weights = energies(block, query, key)
        exponentiate(weights, block.queries(maximum)[..., None])
        weights.div_(block.queries(total)[..., None])
        return weights, products(block, upstream, value).to(weights.dtype)

    stash = []
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights, gathered = weigh(block)
            block.queries(mean).add_((weights * gathered).sum(dim=-1))
            if keep:
                stash.append((weights, gathered))
    stash.reverse()
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights, gathered = stash.pop() if keep else weigh(block)
            slopes = gathered.sub_(block.queries(mean)[..., None]).mul_(weights)
            weights = weights.to(value.dtype)
            scatter(block, weights, upstream, value_gradient, add=block.masked)
            gather(block, slopes, key, query_gradient, add=block.masked)
            scatter(block, slopes, query, key_gradient, add=block.masked)


def _blocks(statistic: Tensor, axis: int, *, masked: bool) -> Iterator[Block]:
    """Yields blocks of lines along an axis; their views are (lines, length, ...)."""
    shape = statistic.shape
    before, length, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    step = max(1, _BLOCK_WEIGHTS // length**2)

    def cut(outer: slice | int, inner: slice | int, tensor: Tensor) -> Tensor:
        grid = tensor.view(before, length, after, *tensor.shape[len(shape) :])
        lines = grid[outer, :, inner]
        return lines if isinstance(inner, int) else lines.transpose(0, 1)

    def block(outer: slice | int, inner: slice | int) -> Block:
        lines = partial(cut, outer, inner)
        return Block(lines, lines, masked)

    if after == 1:
        for start in range(0, before, step):
            yield block(slice(start, start + step), 0)
    else:
        for outer in range(before):
            for start in range(0, after, step):
                yield block(outer, slice(start, start + step))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous()


def _copy(result: Tensor, target: Tensor) -> None:
    if result is not target:
        target.copy_(result)


def _transpose(source: Tensor, target: Tensor) -> None:
    """Copies (positions, C) to (C, positions), in pieces that fit the cache.

    Each piece is first copied to a buffer with a padded row stride. With a stride of C, a power of
    two for example, one channel of all positions would compete for a few cache lines.
    """
    channels = source.shape[1]
    spread = source.new_empty(_PIECE, channels + 16)[:, :channels]
    for values, piece in zip(source.split(_PIECE), target.split(_PIECE, dim=1), strict=True):
        piece.copy_(spread[: len(values)].copy_(values).t())
