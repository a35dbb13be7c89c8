"""Kernel of criss-cross attention: blockwise forward and backward in plain tensor operations.

A line runs along one axis: a row or a column. In channels-last order a batch of lines of any axis
is a strided view, ready for a batched matrix product, so nothing is permuted or concatenated. The
axes share softmax statistics, one maximum and one sum per position, which each axis updates (online
softmax, https://arxiv.org/abs/1805.02867). Backward recomputes the weights from them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

Lines = Callable[[Tensor], Tensor]

_BLOCK_WEIGHTS = {"cpu": 2**18}
"""Attention weights per block by device type: on a CPU what fits the cache of a core."""
_LARGE_BLOCK = 2**26
_PIECE = 512
"""Positions transposed at a time."""
_STASH_WEIGHTS = 2**24
"""Attention weights per sample up to which a pass keeps rather than recomputes them."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes the output (N, Cv, *spatial); saves tensors for autograd only if it needs them."""
    inputs = (query, key, value)
    differentiates = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if differentiates or torch._C._are_functorch_transforms_active():
        output: Tensor = CrissCross.apply(*inputs)[0]
        return output
    return CrissCross.forward(*inputs)[0]


class CrissCross(torch.autograd.Function):
    """Blockwise criss-cross attention of (N, C, *spatial) tensors.

    Kept for backward: the inputs, and two numbers per position.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns output, maximal energy and sum of exponentials per position (N, *spatial)."""
        queries, keys, values = (_channels_last(tensor) for tensor in (query, key, value))
        output = torch.empty_like(values)
        maximum = torch.empty(queries.shape[:-1], dtype=_wide(query), device=query.device)
        total = torch.empty_like(maximum)
        with without_autocast(query.device):
            samples = _samples(queries, keys, values, maximum, total)
            for sample, target in zip(samples, output, strict=True):
                _attend(sample, target)
        return _like(value, output, spare=values), maximum, total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Saves inputs and softmax statistics."""
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, ...]:
        """Computes the gradients of query, key and value, in channels-last order."""
        query, key, value, maximum, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull_back: Any = torch.func.vjp(dense, query, key, value)[1]
            return tuple(pull_back(gradient))
        inputs = [_channels_last(tensor) for tensor in (query, key, value)]
        gradients = [torch.empty_like(tensor) for tensor in inputs]
        with without_autocast(query.device):
            samples = _samples(*inputs, maximum, total)
            upstream = _channels_last(gradient)
            for sample, above, *targets in zip(samples, upstream, *gradients, strict=True):
                _differentiate(sample, above, targets)
        return tuple(tensor.movedim(-1, 1) for tensor in gradients)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Merges the mapped axis into the batch axis."""
        merged = []
        for tensor, dim in zip(inputs, in_dims, strict=True):
            mapped = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor
            merged.append(mapped.movedim(dim or 0, 0).flatten(0, 1))
        outputs = CrissCross.apply(*merged)
        split = tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs)
        return split, (0,) * len(split)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Disables autocast, so that products have the precision of their operands."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes the same attention in differentiable operations, without loops over sizes.

    Used where operations are traced or differentiated twice: compilers, exporters, higher
    derivatives. Stores the attention weights for backward.
    """
    axes = range(1, query.dim() - 1)
    queries, keys, values = (tensor.movedim(1, -1) for tensor in (query, key, value))
    queries, keys = queries.to(_wide(query)), keys.to(_wide(query))
    energies = []
    for axis in axes:
        energy = queries.movedim(axis, -2) @ keys.movedim(axis, -2).transpose(-1, -2)
        if axis != axes[-1]:
            itself = torch.eye(energy.shape[-1], dtype=torch.bool, device=energy.device)
            energy = energy.masked_fill(itself, -torch.inf)
        energies.append(energy.movedim(-2, axis))
    weights = torch.cat(energies, dim=-1).softmax(dim=-1).to(value.dtype)
    branches = weights.split([energy.shape[-1] for energy in energies], dim=-1)
    output = torch.zeros_like(values)
    for axis, branch in zip(axes, branches, strict=True):
        gathered = branch.movedim(axis, -2) @ values.movedim(axis, -2)
        output = output + gathered.movedim(-2, axis)
    return output.movedim(-1, 1)


class _Sample(NamedTuple):
    """The inputs (*spatial, C) of one sample and its softmax statistics (*spatial)."""

    query: Tensor
    key: Tensor
    value: Tensor
    maximum: Tensor
    total: Tensor


def _samples(*batch: Tensor) -> Iterator[_Sample]:
    """Yields the samples of a batch, with query and key in the dtype of the statistics."""
    for query, key, value, maximum, total in zip(*batch, strict=True):
        yield _Sample(query.to(total.dtype), key.to(total.dtype), value, maximum, total)


def _attend(sample: _Sample, output: Tensor) -> None:
    """Fills the output (*spatial, Cv) and the softmax statistics of one sample."""
    query, key, value, maximum, total = sample
    axes = _axes(maximum)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS
    stash = []
    maximum.fill_(-math.inf)
    total.zero_()
    for axis in axes:
        for lines in _blocks(maximum, axis):
            weights = _energies(lines(query), lines(key), masked=axis != axes[0])
            largest = lines(maximum)
            highest = torch.maximum(weights.amax(dim=-1), largest)
            weights.sub_(highest[..., None]).exp_()
            rescaling = largest.sub_(highest).exp_()
            lines(total).mul_(rescaling).add_(weights.sum(dim=-1))
            largest.copy_(highest)
            if keep:
                stash.append((weights, highest))
    stash.reverse()
    is_half = value.dtype != total.dtype
    for axis in axes:
        for lines in _blocks(maximum, axis):
            if keep:
                weights, highest = stash.pop()
                weights.mul_(highest.sub_(lines(maximum)).exp_()[..., None])
            else:
                weights = _energies(lines(query), lines(key), masked=axis != axes[0])
                weights.sub_(lines(maximum)[..., None]).exp_()
            if is_half:
                weights = weights.div_(lines(total)[..., None]).to(value.dtype)
            block = lines(output)
            _product(weights, lines(value), out=block, add=axis != axes[0])
            if axis == axes[-1] and not is_half:
                block.div_(lines(total)[..., None])


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

    def weigh(lines: Lines, axis: int) -> tuple[Tensor, Tensor]:
        weights = _energies(lines(query), lines(key), masked=axis != axes[0])
        weights.sub_(lines(maximum)[..., None]).exp_()
        weights.div_(lines(total)[..., None])
        gathered = torch.bmm(lines(upstream), lines(value).transpose(1, 2))
        return weights, gathered.to(weights.dtype)

    stash = []
    for axis in axes:
        for lines in _blocks(maximum, axis):
            weights, gathered = weigh(lines, axis)
            lines(mean).add_((weights * gathered).sum(dim=-1))
            if keep:
                stash.append((weights, gathered))
    stash.reverse()
    wide_query, wide_key = torch.empty_like(query), torch.empty_like(key)
    for axis in axes:
        add = axis != axes[0]
        for lines in _blocks(maximum, axis):
            weights, gathered = stash.pop() if keep else weigh(lines, axis)
            turned = weights.to(value.dtype).transpose(1, 2)
            _product(turned, lines(upstream), out=lines(value_gradient), add=add)
            energies = gathered.sub_(lines(mean)[..., None]).mul_(weights)
            _product(energies, lines(key), out=lines(wide_query), add=add)
            _product(energies.transpose(1, 2), lines(query), out=lines(wide_key), add=add)
    query_gradient.copy_(wide_query)
    key_gradient.copy_(wide_key)


def _axes(statistic: Tensor) -> list[int]:
    """The axes with more than one position, the last one first.

    The position itself counts on the first of them and is masked on the others.
    """
    longer = [axis for axis in range(statistic.dim()) if statistic.shape[axis] > 1]
    return longer[::-1] or [0]


def _blocks(statistic: Tensor, axis: int) -> Iterator[Lines]:
    """Yields blocks of lines along an axis, as functions from a tensor to its view of the block.

    They map (*spatial, ...) to (lines, length, ...).
    """
    shape = statistic.shape
    before, length, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    block = max(1, _BLOCK_WEIGHTS.get(statistic.device.type, _LARGE_BLOCK) // length**2)

    def cut(outer: slice | int, inner: slice | int, tensor: Tensor) -> Tensor:
        grid = tensor.view(before, length, after, *tensor.shape[len(shape) :])
        lines = grid[outer, :, inner]
        return lines if isinstance(inner, int) else lines.transpose(0, 1)

    if after == 1:
        for start in range(0, before, block):
            yield partial(cut, slice(start, start + block), 0)
    else:
        for outer in range(before):
            for start in range(0, after, block):
                yield partial(cut, outer, slice(start, start + block))


def _energies(query: Tensor, key: Tensor, *, masked: bool) -> Tensor:
    energies = torch.bmm(query, key.transpose(1, 2))
    if masked:
        energies.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return energies


def _product(left: Tensor, right: Tensor, *, out: Tensor, add: bool = False) -> None:
    """Writes a batched matrix product into a view, or adds it."""
    if add:
        out.add_(torch.bmm(left, right))
    elif out.is_contiguous():
        torch.bmm(left, right, out=out)
    else:
        out.copy_(torch.bmm(left, right))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


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
