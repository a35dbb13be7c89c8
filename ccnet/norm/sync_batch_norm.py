"""Synchronised batch normalisation: statistics over all processes, on any device and backend."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ccnet.norm.moments import (
    active_group,
    batch_moments,
    check_input,
    pull_back,
    statistics_dtype,
    update_running_statistics,
)
from ccnet.options import named_options


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over the joined batch of all processes, on any device and backend.

    In training mode, with more than one process, every process of the group must take part in the
    forward and backward pass, though its batch may be smaller or empty. In evaluation mode, or with
    a single process, this is plain batch normalisation. As usual, parameter gradients are those of
    a process's own part of the batch; their sum over the processes is that of the joined batch.

    Statistics of half-precision inputs are float32.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics; None for a cumulative average.
        affine: whether the layer has weight and bias.
        track_running_stats: whether the layer has running statistics; if not, evaluation uses
            batch statistics too.
        process_group: processes that share statistics; None for all.
        device: device of parameters and buffers.
        dtype: dtype of parameters and buffers.

    Source:
        Batch normalization (https://arxiv.org/abs/1502.03167).
    """

    @named_options()
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def forward(self, x: Tensor) -> Tensor:
        """Normalises a batch.

        Args:
            x: (N, C, *), floating point.

        Returns:
            (N, C, *), in the dtype of x.

        Raises:
            ValueError: if x is not such a batch, or a training batch has only one value per
                channel.
        """
        group = active_group(self.process_group) if self.training else None
        if group is None:
            return super().forward(x)
        self._check_input_dim(x)
        moments = batch_moments(x, group)
        update_running_statistics(self, moments)
        output: Tensor = _Normalise.apply(x, self.weight, self.bias, *moments, self.eps, group)
        return output

    def _check_input_dim(self, x: Tensor) -> None:
        check_input(x, self.num_features)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        group: ProcessGroup,
    ) -> Tensor:
        wide = statistics_dtype(x)
        ctx.save_for_backward(x, weight, bias, mean, torch.rsqrt(variance + eps))
        ctx.count, ctx.group = count, group
        gain, offset = (None if vector is None else vector.to(wide) for vector in (weight, bias))
        return F.batch_norm(x, mean, variance, gain, offset, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale = ctx.saved_tensors
        factor = scale if weight is None else scale * weight.to(scale.dtype)
        grad_input, grad_gain, grad_bias = pull_back(
            gradient.to(scale.dtype), x.to(scale.dtype), mean, scale, factor, ctx.count, ctx.group
        )
        return (
            grad_input.to(x.dtype),
            None if weight is None else grad_gain.to(weight.dtype),
            None if bias is None else grad_bias.to(bias.dtype),
            *[None] * 5,
        )
