"""Autograd of criss-cross attention: which schedule computes it, and what is kept for backward."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ccnet.attention_kernel.batched import batched_backward, batched_forward
from ccnet.attention_kernel.blockwise import blockwise_backward, blockwise_forward
from ccnet.attention_kernel.dense import dense
from ccnet.attention_kernel.lines import wide, without_autocast

BLOCKWISE = {"cpu"}
"""Types of devices that compute in blocks; all others take the batched schedule."""

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
        """Returns the output and what is known of the softmax, see `_forward`."""
        return _forward(query, key, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Saves inputs and softmax statistics."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor, ...]:
        """Computes the gradients of query, key and value."""
        *inputs, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull_back: Any = torch.func.vjp(dense, *inputs)[1]
            return tuple(pull_back(upstream))
        return _backward(upstream, *inputs, statistics)

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
    """Returns output and softmax statistics, as `_allocate_statistics` describes them."""
    statistics = _allocate_statistics(query)
    with without_autocast(query.device):
        if query.device.type in BLOCKWISE:
            query, key, multiplied = _as_multiplied(query, key, value)
            output = blockwise_forward(query, key, multiplied, statistics)
            return output.to(value.dtype), statistics
        output = _allocate_like(value)
        batched_forward(query, key, value, output)
    return output, statistics


def _backward(upstream: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
    """Returns the gradients of the inputs, given that of the output, inputs and statistics."""
    query, key, value, statistics = kept
    with without_autocast(query.device):
        if query.device.type in BLOCKWISE:
            upstream, query, key, multiplied = _as_multiplied(upstream, query, key, value)
            gradients = blockwise_backward(upstream, query, key, multiplied, statistics)
            return tuple(gradient.to(value.dtype) for gradient in gradients)
        gradients = _allocate_gradients(upstream, *kept)
        batched_backward(upstream, query, key, value, gradients)
    return gradients


def _as_multiplied(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors of the CPU in their dtype, or in float32 if it multiplies that faster."""
    fast = _multiplies(tensors[0].dtype)
    return tensors if fast else tuple(tensor.float() for tensor in tensors)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    """Returns whether the processor has instructions for products of this dtype."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if dtype not in names:
        return True
    is_supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{names[dtype]}_supported", None)
    return is_supported is not None and bool(is_supported())


def _allocate(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an empty output and empty softmax statistics, as `_forward` fills them."""
    return _allocate_like(value), _allocate_statistics(query)


def _allocate_statistics(query: Tensor) -> Tensor:
    """Returns room for maximal energy and sum of exponentials of each position.

    It is (N, 2, *spatial) for the blockwise schedule. The batched one needs none: (N, 0, *spatial).
    """
    count = 2 if query.device.type in BLOCKWISE else 0
    return query.new_empty(len(query), count, *query.shape[2:], dtype=wide(query))


def _allocate_gradients(upstream: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
    """Returns empty gradients: channels-last if so computed, else in the layouts of the inputs."""
    channels_last = upstream.device.type in BLOCKWISE or len(upstream) == 1
    return tuple(_allocate_like(tensor, channels_last) for tensor in kept[:3])


def _allocate_like(tensor: Tensor, channels_last: bool = False) -> Tensor:
    last = tensor.movedim(1, -1)
    if channels_last or last.is_contiguous():
        return tensor.new_empty(last.shape).movedim(-1, 1)
    return tensor.new_empty(tensor.shape)


_forward_operator = torch.library.custom_op(
    "ccnet::criss_cross_attention",
    _forward,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value) -> (Tensor, Tensor)",
)
_forward_operator.register_fake(_allocate)
_backward_operator = torch.library.custom_op(
    "ccnet::criss_cross_attention_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor upstream, Tensor query, Tensor key, Tensor value, Tensor statistics)"
    " -> (Tensor, Tensor, Tensor)",
)
_backward_operator.register_fake(_allocate_gradients)
_forward_operator.register_autograd(
    lambda ctx, upstream, _: _backward_operator(upstream, *ctx.saved_tensors),
    setup_context=CrissCross.setup_context,
)
