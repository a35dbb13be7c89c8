"""Criss-cross attention: operator, modules for 2-D and 3-D feature maps, attention maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccnet import attention_kernel
from ccnet.attention_kernel.multiplication import without_autocast
from ccnet.options import named_options


def criss_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Lets each position attend to all positions that differ from it in at most one coordinate.

    On an H x W map these are the H + W - 1 positions of its row and column, itself counted once.
    The weights are a softmax over these positions of `scale` times the dot product of the
    position's query with their keys.

    Energies and softmax are computed in float32 for half-precision inputs; `scale` multiplies the
    query before, in its own dtype, which is exact for powers of two alone.

    Args:
        query: (N, Ck, *spatial), floating point, with any number of spatial axes from one up.
        key: (N, Ck, *spatial), of the same dtype and on the same device.
        value: (N, Cv, *spatial), likewise.
        scale: factor on the dot products. The paper has none: 1.

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
    return attention_kernel.attend(query, key, value)


def _check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    if query.dim() < 3:
        problem = "expected (N, C, *spatial) with at least one spatial axis"
    elif query.shape != key.shape:
        problem = "query and key must have the same shape"
    elif value.shape[:1] != query.shape[:1] or value.shape[2:] != query.shape[2:]:
        problem = "value must have the batch and spatial sizes of query"
    elif 0 in query.shape or 0 in value.shape:
        problem = "every size must be at least 1"
    elif not query.dtype == key.dtype == value.dtype:
        problem = "query, key and value must have the same dtype"
    elif not query.is_floating_point():
        problem = "expected a floating-point dtype"
    elif not query.device == key.device == value.device:
        problem = "query, key and value must be on the same device"
    else:
        return
    tensors = (("query", query), ("key", key), ("value", value))
    given = [f"{name} {tuple(x.shape)} {x.dtype} on {x.device}" for name, x in tensors]
    raise ValueError(f"{problem}, not {', '.join(given)}")


class _CrissCrossAttention(nn.Module):
    """Base of the criss-cross modules: `gamma` times the attention output, plus the input."""

    convolution: type[nn.Module]
    axes: str

    @named_options()
    def __init__(self, in_channels: int, reduction: int = 8) -> None:
        super().__init__()
        if reduction < 1 or in_channels < reduction:
            raise ValueError(
                f"in_channels ({in_channels}) must be at least reduction ({reduction}), "
                "and reduction at least 1"
            )
        self.query_conv = self.convolution(in_channels, in_channels // reduction, kernel_size=1)
        self.key_conv = self.convolution(in_channels, in_channels // reduction, kernel_size=1)
        self.value_conv = self.convolution(in_channels, in_channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the module once.

        Args:
            x: (N, C, *spatial), in the dtype of the parameters.

        Returns:
            (N, C, *spatial), in the same dtype.

        Raises:
            ValueError: if x has another number of axes, or integers.
        """
        if x.dim() != len(self.axes) or not x.is_floating_point():
            raise ValueError(
                f"expected floating point ({', '.join(self.axes)}), not {tuple(x.shape)} {x.dtype}"
            )
        attended = criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))
        return self.gamma.to(attended.dtype) * attended + x


class CrissCrossAttention2d(_CrissCrossAttention):
    """Criss-cross attention module for feature maps (N, C, H, W).

    Each position attends to the H + W - 1 positions of its row and column. Query, key and value are
    1x1 convolutions of the input. `gamma`, of shape (1,), is learned and starts at 0, so that a new
    module is the identity.

    Args:
        in_channels: C, the number of channels of input and output.
        reduction: query and key have `in_channels // reduction` channels.

    Raises:
        ValueError: if `in_channels` is smaller than `reduction`, or `reduction` is not positive.

    Source:
        CCNet, section 3.2 (https://arxiv.org/abs/1811.11721).
    """

    convolution = nn.Conv2d
    axes = "NCHW"


class CrissCrossAttention3d(_CrissCrossAttention):
    """Criss-cross attention module for volumes and video clips (N, C, T, H, W).

    Each position attends to the T + H + W - 2 positions that share at least two of its coordinates.
    After three loops its context is the whole volume. Otherwise as `CrissCrossAttention2d`.

    Args:
        in_channels: C, the number of channels of input and output.
        reduction: query and key have `in_channels // reduction` channels.

    Raises:
        ValueError: if `in_channels` is smaller than `reduction`, or `reduction` is not positive.

    Source:
        CCNet, TPAMI version, 3-D criss-cross attention (https://arxiv.org/abs/1811.11721).
    """

    convolution = nn.Conv3d
    axes = "NCTHW"


@torch.inference_mode(False)  # whose tensors autograd cannot save
def attention_map(
    queries_and_keys: Sequence[tuple[Tensor, Tensor]], position: Sequence[int]
) -> Tensor:
    """Computes the attention weights of one position, composed over all loops.

    Applied to values, the composed weights give the output of the loops in sequence, with their
    attention weights fixed and without residual sums and projections.

    Args:
        queries_and_keys: query and key (N, Ck, *spatial) of each loop, the first loop first.
        position: coordinates of the position, one per spatial axis.

    Returns:
        (N, *spatial), float32 (float64 for float64 queries), in 0..1, of sum 1.

    Raises:
        ValueError: if `queries_and_keys` is empty, shapes, dtypes or devices do not fit together,
            or the position is not on the map.

    Source:
        CCNet, section 3.3, information propagation by recurrence (https://arxiv.org/abs/1811.11721).
    """
    if not queries_and_keys:
        raise ValueError("queries_and_keys is empty; give the query and the key of each loop")
    first = queries_and_keys[0][0]
    for loop, pair in enumerate(queries_and_keys, 1):
        _check_pair(loop, *pair, first)
    _check_position(position, first.shape[2:])
    wide = torch.promote_types(first.dtype, torch.float32)
    *earlier, last = [
        (_ordinary(query).to(wide), _ordinary(key).to(wide)) for query, key in queries_and_keys
    ]
    with without_autocast(first.device):
        weights = _weights_at(*last, position)[:, None]
    for query, key in reversed(earlier):
        with torch.enable_grad():
            values = torch.zeros_like(weights, requires_grad=True)
            gathered = criss_cross_attention(query, key, values)
        (weights,) = torch.autograd.grad(gathered, values, weights)
    return weights[:, 0]


def _check_pair(loop: int, query: Tensor, key: Tensor, first: Tensor) -> None:
    """Checks query and key of a loop, given the query of the first one."""
    kinds = [(one.shape, one.dtype, one.device) for one in (query, key)]
    fits = query.shape[:1] == first.shape[:1] and query.shape[2:] == first.shape[2:]
    if kinds[0] != kinds[1] or not fits or not query.is_floating_point():
        given = [f"{tuple(shape)} {dtype} on {device}" for shape, dtype, device in kinds]
        raise ValueError(
            "query and key of a loop must have one shape (N, Ck, *spatial), floating-point dtype "
            "and device, and all loops the same N and spatial sizes; those of loop "
            f"{loop} are {given[0]} and {given[1]}"
        )


def _ordinary(tensor: Tensor) -> Tensor:
    """Returns a tensor without gradient, which autograd can save."""
    is_compiling = torch.compiler.is_compiling()
    return tensor.clone() if not is_compiling and tensor.is_inference() else tensor.detach()


def _weights_at(query: Tensor, key: Tensor, position: Sequence[int]) -> Tensor:
    """Computes the attention weights of one position in one loop: (N, *spatial)."""
    lines: list[Any] = [  # through the position, along each axis
        (slice(None), *position[:axis], slice(None), *position[axis + 1 :])
        for axis in range(len(position))
    ]
    here: Any = (..., *position)
    own = query[here]
    energies = [torch.einsum("nc,ncl->nl", own, key[(slice(None), *line)]) for line in lines]
    for energy, at in list(zip(energies, position, strict=True))[1:]:
        energy[:, at] = -torch.inf  # the position itself counts once
    shares = torch.cat(energies, dim=1).softmax(dim=1)
    weights = shares.new_zeros(query.shape[0], *query.shape[2:])
    parts = shares.split([energy.shape[1] for energy in energies], dim=1)
    for line, share in zip(lines, parts, strict=True):
        weights[line] += share
    return weights


def _check_position(position: Sequence[int], size: Sequence[int]) -> None:
    on_map = [0 <= at < length for at, length in zip(position, size, strict=False)]
    if len(position) != len(size) or not all(on_map):
        raise ValueError(f"position {tuple(position)} is not on a map of size {tuple(size)}")
