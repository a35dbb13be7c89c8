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

from ccnet.attention_kernel.lines import Block, energies, gather, pull_back

_BLOCK_WEIGHTS = 2**18
"""Attention weights per block: what fits the cache of a core."""
_PIECE = 512
"""Positions transposed at a time."""
_STASH_WEIGHTS = 2**24
"""Attention weights per sample up to which a pass keeps rather than recomputes them."""


def blockwise_forward(query: Tensor, key: Tensor, value: Tensor, statistics: Tensor) -> Tensor:
    """Computes the output and fills the softmax statistics (N, 2, *spatial)."""
    queries, keys, values = (_channels_last(tensor) for tensor in (query, key, value))
    output = torch.empty_like(values)
    samples = _samples(queries, keys, values, statistics)
    for sample, target in zip(samples, output, strict=True):
        _attend(sample, target)
    return _like(value, output, spare=values)


def blockwise_backward(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, statistics: Tensor
) -> tuple[Tensor, ...]:
    """Computes the gradients of query, key and value, in channels-last order."""
    inputs = [_channels_last(tensor) for tensor in (query, key, value)]
    gradients = [torch.empty_like(tensor) for tensor in inputs]
    samples = _samples(*inputs, statistics)
    for sample, above, *targets in zip(samples, _channels_last(upstream), *gradients, strict=True):
        _differentiate(sample, above, targets)
    return tuple(tensor.movedim(-1, 1) for tensor in gradients)


class _Sample(NamedTuple):
    """The inputs (*spatial, C) of one sample and its softmax statistics (*spatial)."""

    query: Tensor
    key: Tensor
    value: Tensor
    maximum: Tensor
    total: Tensor


def _samples(*batch: Tensor) -> Iterator[_Sample]:
    """Yields the samples of a batch, with query and key in the dtype of the statistics."""
    for query, key, value, statistics in zip(*batch, strict=True):
        wide = statistics.dtype
        yield _Sample(query.to(wide), key.to(wide), value, *statistics)


def _attend(sample: _Sample, output: Tensor) -> None:
    """Fills the output (*spatial, Cv) and the softmax statistics of one sample."""
    query, key, value, maximum, total = sample
    axes = _axes(maximum)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS
    stash = []
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights = energies(block, query, key)
            largest, sums = block.queries(maximum), block.queries(total)
            highest = weights.amax(dim=-1)
            if block.masked:
                highest = torch.maximum(highest, largest)
                sums.mul_(largest.sub_(highest).exp_())
            weights.sub_(highest[..., None]).exp_()
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
                weights.sub_(block.queries(maximum)[..., None]).exp_()
            else:
                weights, highest = stash.pop()
                if not is_last:
                    weights.mul_(highest.sub_(block.queries(maximum)).exp_()[..., None])
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
    axes = _axes(maximum)
    mean = torch.zeros_like(total)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS

    def weigh(block: Block) -> tuple[Tensor, Tensor]:
        weights = energies(block, query, key)
        weights.sub_(block.queries(maximum)[..., None]).exp_()
        weights.div_(block.queries(total)[..., None])
        gathered = torch.bmm(block.queries(upstream), block.keys(value).transpose(1, 2))
        return weights, gathered.to(weights.dtype)

    stash = []
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights, gathered = weigh(block)
            block.queries(mean).add_((weights * gathered).sum(dim=-1))
            if keep:
                stash.append((weights, gathered))
    stash.reverse()
    inputs = query, key, upstream
    results = torch.empty_like(query), torch.empty_like(key), value_gradient
    for axis in axes:
        for block in _blocks(maximum, axis, masked=axis != axes[0]):
            weights, gathered = stash.pop() if keep else weigh(block)
            slopes = gathered.sub_(block.queries(mean)[..., None]).mul_(weights)
            weights = weights.to(value.dtype)
            pull_back(block, weights, slopes, inputs, results, add=block.masked)
    query_gradient.copy_(results[0])
    key_gradient.copy_(results[1])


def _axes(statistic: Tensor) -> list[int]:
    """The axes with more than one position, the last one first.

    The position itself counts on the first of them and is masked on the others.
    """
    longer = [axis for axis in range(statistic.dim()) if statistic.shape[axis] > 1]
    return longer[::-1] or [0]


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


def _like(original: Tensor, result: Tensor, spare: Tensor) -> Tensor:
    """Returns the channels-last result (N, *spatial, C) in the shape and layout of the original.

    `spare` is the original in channels-last order; if it is a copy, its memory is reused.
    """
    if original.movedim(1, -1).is_contiguous():
        return result.movedim(-1, 1)
    copy = spare.view(original.shape)
    for target, source in zip(copy.flatten(2), result.flatten(1, -2), strict=True):
        _transpose(source, target)
    return copy


def _transpose(source: Tensor, target: Tensor) -> None:
    """Copies (positions, C) to (C, positions), in pieces that fit the cache.

    Each piece is first copied to a buffer with a padded row stride. With a stride of C, a power of
    two for example, one channel of all positions would compete for a few cache lines.
    """
    channels = source.shape[1]
    spread = source.new_empty(_PIECE, channels + 16)[:, :channels]
    for values, piece in zip(source.split(_PIECE), target.split(_PIECE, dim=1), strict=True):
        piece.copy_(spread[: len(values)].copy_(values).t())
