"""Criss-cross attention in differentiable operations: for exporters and second derivatives."""

import torch
from torch import Tensor

from ccnet.attention_kernel.multiplication import wide


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes the attention without loops over sizes and without writing into tensors.

    Autograd keeps its weights.
    """
    axes = range(1, query.dim() - 1)
    queries, keys, values = (tensor.movedim(1, -1) for tensor in (query, key, value))
    queries, keys = queries.to(wide(query)), keys.to(wide(query))
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
