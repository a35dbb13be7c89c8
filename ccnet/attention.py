"""Criss-cross attention: every position attends to the rows and columns that it lies on."""

import torch
from torch import Tensor, nn


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
    axes = range(1, query.dim() - 1)
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        query, key, value = (tensor.movedim(1, -1) for tensor in (query, key, value))
        query = query.to(wide) * scale
        key = key.to(wide)
        energies = [_axis_energies(query, key, axis) for axis in axes]
        lengths = [energy.shape[-1] for energy in energies]
        weights = torch.cat(energies, dim=-1).softmax(dim=-1).to(value.dtype)
        branches = zip(weights.split(lengths, dim=-1), axes, strict=True)
        output = sum(_axis_values(weight, value, axis) for weight, axis in branches)
    assert isinstance(output, Tensor)
    return output.movedim(-1, 1)


def _axis_energies(query: Tensor, key: Tensor, axis: int) -> Tensor:
    """Energies (N, *spatial, L) of each position with the L positions along one axis.

    The position itself lies on every axis; it is counted on the last and masked on the others.
    """
    energy = query.movedim(axis, -2) @ key.movedim(axis, -2).transpose(-1, -2)
    if axis < query.dim() - 2:
        itself = torch.eye(energy.shape[-1], dtype=torch.bool, device=energy.device)
        energy = energy.masked_fill(itself, -torch.inf)
    return energy.movedim(-2, axis)


def _axis_values(weight: Tensor, value: Tensor, axis: int) -> Tensor:
    """The sum (N, *spatial, Cv) of the values along one axis, by their weights (N, *spatial, L)."""
    return (weight.movedim(axis, -2) @ value.movedim(axis, -2)).movedim(-2, axis)


def _check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    tensors = {"query": query, "key": key, "value": value}
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    if query.dim() < 3:
        raise ValueError(f"expected (N, C, *spatial) with at least one spatial axis: {shapes}")
    if query.shape != key.shape:
        raise ValueError(f"query and key must have one shape: {shapes}")
    if value.shape[:1] + value.shape[2:] != query.shape[:1] + query.shape[2:]:
        raise ValueError(f"value must have the batch and spatial sizes of query: {shapes}")
    if 0 in query.shape or 0 in value.shape:
        raise ValueError(f"every size must be at least 1: {shapes}")
    dtypes = {str(tensor.dtype) for tensor in tensors.values()}
    if len(dtypes) > 1 or not query.is_floating_point():
        raise ValueError(f"expected one floating-point dtype, not {', '.join(sorted(dtypes))}")
    devices = {str(tensor.device) for tensor in tensors.values()}
    if len(devices) > 1:
        raise ValueError(f"expected one device, not {', '.join(sorted(devices))}")


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
