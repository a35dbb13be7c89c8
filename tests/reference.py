"""Criss-cross attention as its definition reads: slow, plain, in float64."""

import itertools

import torch
from torch import Tensor


def criss_cross_positions(
    position: tuple[int, ...], shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """All positions of a map that share all coordinates but at most one with `position`."""
    everywhere = itertools.product(*(range(size) for size in shape))
    return [
        other
        for other in everywhere
        if sum(a != b for a, b in zip(position, other, strict=True)) <= 1
    ]


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """(N, Ck, *spatial), (N, Ck, *spatial), (N, Cv, *spatial) -> (N, Cv, *spatial), float64."""
    query, key, value = query.double(), key.double(), value.double()
    shape = tuple(query.shape[2:])
    samples = []
    for n in range(query.shape[0]):
        columns = []
        for position in itertools.product(*(range(size) for size in shape)):
            others = criss_cross_positions(position, shape)
            keys = torch.stack([key[(n, slice(None), *other)] for other in others])
            values = torch.stack([value[(n, slice(None), *other)] for other in others])
            energies = scale * keys @ query[(n, slice(None), *position)]
            columns.append(energies.softmax(dim=0) @ values)
        samples.append(torch.stack(columns, dim=1).reshape(value.shape[1], *shape))
    return torch.stack(samples)


def random_inputs(
    shape, *, batch=2, channels=(3, 5), dtype=torch.float64, channels_last=False, seed=0
):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for count in (channels[0], channels[0], channels[1]):
        tensor = torch.randn(batch, count, *shape, dtype=torch.float64, generator=generator)
        tensor = tensor.to(dtype)
        if channels_last:
            tensor = tensor.movedim(1, -1).contiguous().movedim(-1, 1)
        tensors.append(tensor.requires_grad_())
    return tuple(tensors)
