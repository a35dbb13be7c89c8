"""Results of criss-cross attention before they are computed: their shapes, layouts and dtypes."""

import torch
from torch import Tensor

from ccnet.attention_kernel.multiplication import is_blockwise, wide


def empty_outputs(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an empty output, and room for the softmax statistics.

    Those are the largest energy of each position and its sum of exponentials, (N, 2, *spatial), for
    the blockwise schedule, and zeros for small maps. The batched one needs none: (N, 0, *spatial).
    """
    count = 2 if is_blockwise(query) else 0
    statistics = query.new_empty(query.shape[0], count, *query.shape[2:], dtype=wide(query))
    return _empty_like(value, computed_channels_last=False), statistics


def empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Returns empty gradients of the inputs: channels-last if the schedule has them so anyway."""
    computed_channels_last = is_blockwise(query) or query.shape[0] == 1
    return tuple(_empty_like(tensor, computed_channels_last) for tensor in (query, key, value))


def buffer(target: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns where the products for a target are written: itself, if its layout and dtype fit."""
    if target.is_contiguous() and target.dtype == dtype:
        return target
    return target.new_empty(target.shape, dtype=dtype)


def _empty_like(tensor: Tensor, computed_channels_last: bool) -> Tensor:
    """Returns an empty (N, C, *spatial): channels-last if so computed or if the tensor is."""
    last = tensor.movedim(1, -1)
    if computed_channels_last or last.is_contiguous():
        return tensor.new_empty(last.shape).movedim(-1, 1)
    return tensor.new_empty(tensor.shape)
