"""Criss-cross attention: every position attends to the rows and columns that it lies on."""

import torch
from torch import Tensor, nn

from ccnet import attention_kernel


def criss_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Attention of each position over all positions that share all its coordinates but one.

    On an H x W map that is the H + W - 1 positions of its own row and column, itself once. The
    weights are a softmax over these positions of `scale` times the dot product of the position's
    query with their keys.

    Energies and softmax are computed in float32 for half-precision inputs.

    Args:
        query: (N, Ck, *spatial), floating point, with any number of spatial axes from one up.
        key: (N, Ck, *spatial), of the same dtype and on the same device.
        value: (N, Cv, *spatial), likewise.
        scale: the factor on the dot products. The paper has none: 1.

    Returns:
        (N, Cv, *spatial), in the dtype of the inputs.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together.

    Source:
        CCNet, section 3.2 (https://arxiv.org/abs/1811.11721).
    """
    _check_inputs(query, key, value)
    if scale != 1.0:
        query = query * scale
    if torch.compiler.is_compiling():
        with torch.autocast(query.device.type, enabled=False):
            return attention_kernel.dense(query, key, value)
    output: Tensor = attention_kernel.CrissCross.apply(query, key, value)[0]
    return output


def _check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    if query.dim() < 3:
        problem = "expected (N, C, *spatial) with at least one spatial axis"
    elif query.shape != key.shape:
        problem = "query and key must have one shape"
    elif value.shape[:1] != query.shape[:1] or value.shape[2:] != query.shape[2:]:
        problem = "value must have the batch and spatial sizes of query"
    elif 0 in query.shape or 0 in value.shape:
        problem = "every size must be at least 1"
    elif not query.dtype == key.dtype == value.dtype:
        problem = "query, key and value must have one dtype"
    elif not query.is_floating_point():
        problem = "expected a floating-point dtype"
    elif not query.device == key.device == value.device:
        problem = "query, key and value must be on one device"
    else:
        return
    tensors = (("query", query), ("key", key), ("value", value))
    given = [f"{name} {tuple(x.shape)} {x.dtype} on {x.device}" for name, x in tensors]
    raise ValueError(f"{problem}, not {', '.join(given)}")


class CrissCrossAttention2d(nn.Module):
    """The criss-cross attention module: `gamma` times the attention's output, plus the input.

    Query, key and value are 1x1 convolutions of the input. `gamma`, of shape (1,), is learned and
    starts at 0, so that a new module is the identity.

    Args:
        in_channels: C, the channels of input and output.
        reduction: query and key have `in_channels // reduction` channels.

    Raises:
        ValueError: if `in_channels` is smaller than `reduction`, or `reduction` is not positive.

    Source:
        CCNet, section 3.2 (https://arxiv.org/abs/1811.11721).
    """

    def __init__(self, in_channels: int, reduction: int = 8) -> None:
        super().__init__()
        if reduction < 1 or in_channels < reduction:
            raise ValueError(
                f"in_channels ({in_channels}) must be at least reduction ({reduction}), "
                "and reduction at least 1"
            )
        self.query_conv = nn.Conv2d(in_channels, in_channels // reduction, kernel_size=1)
        self.key_conv = nn.Conv2d(in_channels, in_channels // reduction, kernel_size=1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the module once.

        Args:
            x: (N, C, H, W), in the dtype of the parameters.

        Returns:
            (N, C, H, W), in the same dtype.
        """
        attended = criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))
        return self.gamma.to(attended.dtype) * attended + x
