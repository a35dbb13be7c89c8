"""How criss-cross attention is computed: blocks of lines, nothing stored that can be recomputed.

A line is what runs along one axis: a row, a column. In channels-last order a batch of lines of any
axis is a strided view, ready for a batched matrix product, so nothing is permuted or joined.
Softmax statistics, one maximum and one sum per position, are shared by the axes and updated as each
axis comes (https://arxiv.org/abs/1805.02867). Backward recomputes the weights from them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

Lines = Callable[[Tensor], Tensor]

_BLOCK_WEIGHTS = {"cpu": 2**18}
"""Attention weights computed at a time: what stays in a core's cache. Elsewhere `_LARGE_BLOCK`."""
_LARGE_BLOCK = 2**26
_PIECE = 512
"""Positions transposed at a time."""
_STASH_WEIGHTS = 2**24
"""Attention weights of one sample up to which backward keeps rather than recomputes them."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The output (N, Cv, *spatial); what autograd needs is made only where it is needed."""
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
        """The output, and each position's maximal energy and sum of exponentials (N, *spatial)."""
        queries, keys, values = (_channels_last(tensor) for tensor in (query, key, value))
        wide = _wide(query)
        output = torch.empty_like(values)
        maximum = torch.empty(queries.shape[:-1], dtype=wide, device=query.device)
        total = torch.empty_like(maximum)
        with without_autocast(query.device):
            for sample in zip(queries, keys, values, output, maximum, total, strict=True):
                _attend(sample[0].to(wide), sample[1].to(wide), *sample[2:])
        return _like(value, output, spare=values), maximum, total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps what `backward` needs."""
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, ...]:
        """The gradients of query, key and value, in channels-last order."""
        query, key, value, maximum, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull_back: Any = torch.func.vjp(dense, query, key, value)[1]
            return tuple(pull_back(gradient))
        wide = maximum.dtype
        inputs = [_channels_last(tensor) for tensor in (query, key, value, gradient)]
        outputs = [torch.empty_like(tensor) for tensor in inputs[:3]]
        with without_autocast(query.device):
            for sample in zip(*inputs, maximum, total, *outputs, strict=True):
                _differentiate(sample[0].to(wide), sample[1].to(wide), *sample[2:])
        return tuple(output.movedim(-1, 1) for output in outputs)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One more batch axis is more samples."""
        merged = []
        for tensor, dim in zip(inputs, in_dims, strict=True):
            batched = (
                tensor.expand(info.batch_size, *tensor.shape)
                if dim is None
                else tensor.movedim(dim, 0)
            )
            merged.append(batched.flatten(0, 1))
        outputs = CrissCross.apply(*merged)
        split = tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs)
        return split, (0,) * len(split)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products have the precision of their operands."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same attention in plain differentiable operations, without loops over sizes.

    For what traces or differentiates through it: compilers, exporters, higher derivatives. It
    stores the attention weights.
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


def _attend(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, maximum: Tensor, total: Tensor
) -> None:
    """Fills the last three for one sample: (*spatial, C) and (*spatial), channels last."""
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
            _exponentiate(weights, highest)
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
                _exponentiate(weights, lines(maximum))
            if is_half:
                weights = weights.div_(lines(total)[..., None]).to(value.dtype)
            block = lines(output)
            _product(weights, lines(value), out=block, add=axis != axes[0])
            if axis == axes[-1] and not is_half:
                block.div_(lines(total)[..., None])


def _differentiate(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gradient: Tensor,
    maximum: Tensor,
    total: Tensor,
    query_gradient: Tensor,
    key_gradient: Tensor,
    value_gradient: Tensor,
) -> None:
    """Fills the last three for one sample: (*spatial, C) and (*spatial), channels last.

    The gradient of an energy is w (g - m), where w is its weight, g the product of the output's
    gradient with the value there, and m the mean of g by the weights of all that is attended to.
    """
    axes = _axes(maximum)
    mean = torch.zeros_like(total)
    keep = maximum.numel() * sum(maximum.shape) <= _STASH_WEIGHTS

    def weigh(lines: Lines, axis: int) -> tuple[Tensor, Tensor]:
        weights = _energies(lines(query), lines(key), masked=axis != axes[0])
        _exponentiate(weights, lines(maximum))
        weights.div_(lines(total)[..., None])
        gathered = torch.bmm(lines(gradient), lines(value).transpose(1, 2))
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
            _product(turned, lines(gradient), out=lines(value_gradient), add=add)
            energies = gathered.sub_(lines(mean)[..., None]).mul_(weights)
            _product(energies, lines(key), out=lines(wide_query), add=add)
            _product(energies.transpose(1, 2), lines(query), out=lines(wide_key), add=add)
    query_gradient.copy_(wide_query)
    key_gradient.copy_(wide_key)


def _axes(statistic: Tensor) -> list[int]:
    """The axes in the order of their turn: the last first. Each has more than one position.

    A position itself is counted on the first of them and masked on the others.
    """
    longer = [axis for axis in range(statistic.dim()) if statistic.shape[axis] > 1]
    return longer[::-1] or [0]


def _blocks(statistic: Tensor, axis: int) -> Iterator[Lines]:
    """Cuts a sample into blocks of lines along an axis.

    Yields functions that give a block's view (lines, length, ...) of any tensor (*spatial, ...).
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


def _exponentiate(energies: Tensor, maximum: Tensor) -> None:
    energies.sub_(maximum[..., None]).exp_()


def _product(left: Tensor, right: Tensor, *, out: Tensor, add: bool = False) -> None:
    """Writes or adds a batched matrix product to a view."""
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
    """The channels-last result (N, *spatial, C) as (N, C, *spatial), laid out as the original.

    `spare` is the original in channels-last order. Where that was a copy, its memory is used.
    """
    if original.movedim(1, -1).is_contiguous():
        return result.movedim(-1, 1)
    copy = spare.view(original.shape)
    for target, source in zip(copy.flatten(2), result.flatten(1, -2), strict=True):
        _transpose(source, target)
    return copy


def _transpose(source: Tensor, target: Tensor) -> None:
    """Copies (positions, C) to (C, positions), in pieces that stay in cache.

    Each piece is first copied to where positions lie a little further apart. At a distance of C, a
    power of two say, one channel of all of them would have to share a few lines of the cache.
    """
    channels = source.shape[1]
    spread = source.new_empty(_PIECE, channels + 16)[:, :channels]
    for values, piece in zip(source.split(_PIECE), target.split(_PIECE, dim=1), strict=True):
        piece.copy_(spread[: len(values)].copy_(values).t())
