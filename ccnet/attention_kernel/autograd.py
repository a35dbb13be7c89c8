"""Autograd of criss-cross attention: which schedule computes it, and what is kept for backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccnet.attention_kernel.batched import batched_backward, batched_forward
from ccnet.attention_kernel.blockwise import blockwise_backward, blockwise_forward
from ccnet.attention_kernel.dense import dense
from ccnet.attention_kernel.multiplication import is_blockwise, without_autocast
from ccnet.attention_kernel.results import empty_gradients, empty_outputs
from ccnet.attention_kernel.small_maps import is_small, small_backward, small_forward

_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
"""Before PyTorch 2.7, compiling and exporting cannot be told apart: both get plain operations."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes the output (N, Cv, *spatial); saves tensors for autograd only if it needs them."""
    inputs = (query, key, value)
    if torch.compiler.is_compiling():
        return _attend_in_a_graph(*inputs)
    differentiates = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if differentiates or torch._C._are_functorch_transforms_active():
        output: Tensor = CrissCross.apply(*inputs)[0]
        return output
    return _forward(*inputs)[0]


def _attend_in_a_graph(*inputs: Tensor) -> Tensor:
    """Leaves one node in a compiled graph, and plain operations in an exported one."""
    if _is_exporting() or torch._C._are_functorch_transforms_active():
        with without_autocast(inputs[0].device):
            return dense(*inputs)
    output: Tensor = _forward_operator(*inputs)[0]
    return output


class CrissCross(torch.autograd.Function):
    """Criss-cross attention of (N, C, *spatial) tensors.

    Kept for backward: the inputs, and at most two numbers per position.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and what is known of the softmax, see `empty_outputs`."""
        return _forward(query, key, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Saves inputs and softmax statistics."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor, ...]:
        """Computes the gradients of query, key and value."""
        return _differentiate(ctx, upstream, _backward)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        """Refuses forward mode."""
        raise NotImplementedError(
            "criss-cross attention has no forward-mode derivative (jvp, jacfwd): use reverse mode "
            "(grad, vjp, jacrev)"
        )

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


def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns output and softmax statistics, as `empty_outputs` describes them."""
    output, statistics = empty_outputs(query, key, value)
    with without_autocast(query.device):
        if not is_blockwise(query):
            batched_forward(query, key, value, output)
        elif is_small(value):
            small_forward(query, key, value, output)
            statistics.zero_()
        else:
            blockwise_forward(query, key, value, statistics, output)
    return output, statistics


def _backward(upstream: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
    """Returns the gradients of the inputs, given that of the output, inputs and statistics."""
    query, key, value, statistics = kept
    gradients = empty_gradients(query, key, value)
    with without_autocast(query.device):
        if not is_blockwise(query):
            batched_backward(upstream, query, key, value, *gradients)
        elif is_small(value):
            small_backward(upstream, query, key, value, *gradients)
        else:
            blockwise_backward(upstream, query, key, value, statistics, gradients)
    return gradients


def _differentiate(
    ctx: Any, upstream: Tensor, backward: Callable[..., tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Computes the gradients with `backward`, or in operations that can be differentiated."""
    *inputs, statistics = ctx.saved_tensors
    is_batched = torch._C._functorch.is_legacy_batchedtensor(upstream)  # is_grads_batched=True
    if not (torch.is_grad_enabled() or is_batched):
        return backward(upstream, *inputs, statistics)
    with without_autocast(upstream.device):
        pull_back: Any = torch.func.vjp(dense, *inputs)[1]
        return tuple(pull_back(upstream))


_REVISION = 1
"""Part of the operators' names, by which graphs are cached on disk.

To be raised when shapes, layouts or dtypes of what they return or keep change.
"""
_NAME = f"ccnet::criss_cross_attention_{_REVISION}"

_forward_operator = torch.library.custom_op(
    _NAME,
    _forward,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value) -> (Tensor, Tensor)",
)
_forward_operator.register_fake(empty_outputs)
_backward_operator = torch.library.custom_op(
    f"{_NAME}_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor upstream, Tensor query, Tensor key, Tensor value, Tensor statistics)"
    " -> (Tensor, Tensor, Tensor)",
)
_backward_operator.register_fake(lambda upstream, *kept: empty_gradients(*kept[:3]))
_forward_operator.register_autograd(
    lambda ctx, upstream, _: _differentiate(ctx, upstream, _backward_operator),
    setup_context=CrissCross.setup_context,
)
