"""Batch statistics per channel, local or joined across processes, and the gradient through them.

Statistics are float32, or float64 for float64 inputs. Processes exchange their mean, variance and
count, never sums of squares, so that a mean far from zero costs no precision.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _NormBase

_WITH_FUSED_STATISTICS = ("cpu", "cuda")


class Moments(NamedTuple):
    """Mean (C,), biased variance (C,) and number of values of every channel."""

    mean: Tensor
    variance: Tensor
    number: Tensor | float


def check_input(x: Tensor, num_features: int) -> None:
    """Rejects inputs that are not floating point (N, num_features, *).

    Raises:
        ValueError: if x is not such a tensor; names its shape and dtype.
    """
    if x.dim() < 2 or x.shape[1] != num_features or not x.is_floating_point():
        raise ValueError(
            f"expected a floating-point tensor (N, {num_features}, *), "
            f"not {x.dtype} {tuple(x.shape)}"
        )


def active_group(process_group: ProcessGroup | None) -> ProcessGroup | None:
    """Returns the group (None: all processes) if it has more than one process, else None."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if process_group is None else process_group
    return group if dist.get_world_size(group) > 1 else None


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Returns float32 for half precision, else the dtype of x."""
    return torch.promote_types(x.dtype, torch.float32)


@torch.no_grad()
def batch_moments(x: Tensor, group: ProcessGroup | None) -> Moments:
    """Computes the moments of a batch, joined across the processes of a group.

    Args:
        x: (N, C, *), floating point; N may differ between processes, and be 0.
        group: the processes; None for this process alone.

    Raises:
        ValueError: if there is at most one value per channel.

    Source:
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
    """
    moments = _local_moments(x)
    few = moments.number <= 1
    if group is not None:
        channels = x.shape[1]
        own = torch.cat([moments.mean, moments.variance, moments.mean.new_tensor([moments.number])])
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, own, group=group)
        means, variances, counts = torch.stack(gathered).split([channels, channels, 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        moments = Moments(mean, variance, count)
    if few and moments.number <= 1:
        raise ValueError(
            "training needs more than one value per channel; the batch "
            f"{tuple(x.shape)} has {int(moments.number)}"
            + ("" if group is None else " over all processes")
        )
    return moments


def _local_moments(x: Tensor) -> Moments:
    channels, wide = x.shape[1], statistics_dtype(x)
    mean = torch.zeros(channels, dtype=wide, device=x.device)
    variance = torch.zeros_like(mean)
    if x.numel() == 0:
        return Moments(mean, variance, 0.0)
    if x.device.type in _WITH_FUSED_STATISTICS and not torch.compiler.is_compiling():
        mean, variance = torch.batch_norm_update_stats(x, mean, variance, 0.0)
    else:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x.to(wide), axes, correction=0)
    return Moments(mean, variance, x.numel() / channels)


@torch.no_grad()
def update_running_statistics(norm: _NormBase, moments: Moments) -> None:
    """Updates a norm's running mean and (unbiased) running variance with those of a batch."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    unbiased = moments.variance * (moments.number / (moments.number - 1))
    for running, new in ((norm.running_mean, moments.mean), (norm.running_var, unbiased)):
        running.lerp_(new.to(running.dtype), 0.0 if momentum is None else momentum)


def per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """Reshapes (C,) to broadcast over x (N, C, *)."""
    return vector.view(-1, *[1] * (x.dim() - 2))


def pull_back(
    gradient: Tensor,
    x: Tensor,
    centre: Tensor,
    scale: Tensor,
    factor: Tensor,
    number: Tensor | float | None,
    group: ProcessGroup | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients through a normalisation whose result was (x - centre) * scale.

    Args:
        gradient: (N, C, *), of the normalised values times their gain.
        x: (N, C, *), any shifted and scaled version of the normalised values.
        centre: (C,), offset that recovers the normalised values from x.
        scale: (C,), factor that does so.
        factor: (C,), the gain divided by the standard deviation of the normalisation's input.
        number: number of values per channel in the statistics; None if these were constants.
        group: processes that shared the statistics; None for this process alone.

    Returns:
        The gradients of the normalisation's input (N, C, *), of the gain (C,) and of the bias (C,);
        the latter two of this process's part of the batch.
    """
    joint = group is not None and number is not None
    if x.numel() == 0:
        grad_input, grad_gain, grad_bias = torch.zeros_like(x), factor * 0, factor * 0
    else:
        whole = number is not None and not joint
        grad_input, grad_gain, grad_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, factor / scale, None, None, centre, scale, True, 0.0, [whole, True, True]
        )
    if number is None:
        grad_input = gradient * per_channel(factor, x)
    elif joint:
        means = torch.stack([grad_gain, grad_bias])
        dist.all_reduce(means, group=group)
        through_scale, through_centre = means / number
        grad_input = x - per_channel(centre, x)
        grad_input.mul_(per_channel(scale * through_scale, x))
        grad_input.add_(per_channel(through_centre, x))
        torch.sub(gradient, grad_input, out=grad_input).mul_(per_channel(factor, x))
    return grad_input, grad_gain, grad_bias
