"""Baselines of criss-cross attention: its published formulation and a Non-local block."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.attention import CrissCrossAttention2d


def published_criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes criss-cross attention on 2-D maps as public implementations do.

    Columns and rows are copied into batches, and their energies are concatenated for one softmax.
    The weights are split and copied again for the products with the values.

    Args:
        query: (N, Ck, H, W), floating point.
        key: (N, Ck, H, W).
        value: (N, Cv, H, W).

    Returns:
        (N, Cv, H, W).

    Source:
        The formulation of https://github.com/Serge-weihao/CCNet-Pure-Pytorch, reimplemented.
    """
    batch, _, height, width = query.shape

    def columns(tensor: Tensor) -> Tensor:
        return tensor.permute(0, 3, 1, 2).contiguous().flatten(0, 1)

    def rows(tensor: Tensor) -> Tensor:
        return tensor.permute(0, 2, 1, 3).contiguous().flatten(0, 1)

    itself = torch.full((height,), -torch.inf, dtype=query.dtype, device=query.device).diag()
    column_energies = columns(query).transpose(1, 2).bmm(columns(key)) + itself
    row_energies = rows(query).transpose(1, 2).bmm(rows(key))
    energies = [
        column_energies.unflatten(0, (batch, width)).transpose(1, 2),
        row_energies.unflatten(0, (batch, height)),
    ]
    weights = torch.cat(energies, dim=3).softmax(dim=3)
    column_weights = weights[..., :height].transpose(1, 2).contiguous().flatten(0, 1)
    row_weights = weights[..., height:].contiguous().flatten(0, 1)
    by_column: Tensor = columns(value).bmm(column_weights.transpose(1, 2))
    by_row: Tensor = rows(value).bmm(row_weights.transpose(1, 2))
    by_column = by_column.view(batch, width, -1, height).permute(0, 2, 3, 1)
    by_row = by_row.view(batch, height, -1, width).permute(0, 2, 1, 3)
    return by_column + by_row


class PublishedCrissCrossAttention2d(nn.Module):
    """Criss-cross module in the published formulation, with the parameters of another module.

    Args:
        module: provides the convolutions and gamma.
    """

    def __init__(self, module: CrissCrossAttention2d) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape, as `module` does."""
        module = self.module
        convolutions = module.query_conv, module.key_conv, module.value_conv
        attended = published_criss_cross_attention(*(project(x) for project in convolutions))
        return module.gamma.to(attended.dtype) * attended + x


class NonLocalBlock2d(nn.Module):
    """Non-local block, or full attention: every position attends to all H x W positions.

    Args:
        in_channels: C, the number of channels of input and output.
        reduction: query and key have `in_channels // reduction` channels.

    Source:
        Non-local neural networks (https://arxiv.org/abs/1711.07971), embedded Gaussian, with the
        projections of the criss-cross module.
    """

    def __init__(self, in_channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(in_channels, in_channels // reduction, kernel_size=1)
        self.key_conv = nn.Conv2d(in_channels, in_channels // reduction, kernel_size=1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        query, key, value = (
            conv(x).flatten(2).transpose(1, 2)
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.gamma.to(attended.dtype) * attended.transpose(1, 2).view_as(x) + x
