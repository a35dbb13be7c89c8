"""The mathematics of criss-cross attention on a block of lines.

A line runs along one axis: a row or a column. A block holds lines of one axis. Energies are the
products of its queries and keys; a softmax over all axes turns them into weights, with which values
are summed. The schedules decide which blocks there are and how the softmax is computed.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ccnet.attention_kernel.multiplication import multiply

_MARGIN = 5
"""Of the logarithm of the least weight: that divided by the total of 2e4 others is normal too."""

Lines = Callable[[Tensor], Tensor]
"""Maps (*positions, ...) to a view (..., lines, length, ...) of a block."""


class Block(NamedTuple):
    """A block of lines of one axis.

    Attributes:
        queries: the positions that attend.
        keys: the positions attended to: all of each line.
        masked: whether the position itself is left out, as another axis has it.
    """

    queries: Lines
    keys: Lines
    masked: bool


def axes_of(size: Sequence[int]) -> list[int]:
    """Returns the spatial axes with more than one position, the last one first.

    The position itself counts on the first of them and is masked on the others.
    """
    longer = [axis for axis, length in enumerate(size) if length > 1]
    return longer[::-1] or [0]


def products(block: Block, query: Tensor, key: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiplies each query of a block with the keys of its line.

    Args:
        block: the block.
        query: (*positions, C); the gradient of the output, for example.
        key: (*positions, C); the values, for example.
        out: where the products go; a new tensor if it is None.

    Returns:
        (..., lines, queries, keys), in the dtype of `out`.
    """
    queries, keys = block.queries(query), block.keys(key).transpose(-1, -2)
    if out is None:
        return torch.bmm(queries, keys)
    multiply(queries, keys, out)
    return out


def energies(block: Block, query: Tensor, key: Tensor, out: Tensor | None = None) -> Tensor:
    """Computes the energies of a block as `products` does; -inf where they are left out."""
    result = products(block, query, key, out)
    if block.masked:
        result.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
    return result


def exponentials(energies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Computes the weights of energies (..., keys), which are overwritten.

    Args:
        energies: of all keys of each position, at least float32.
        dtype: of the weights.

    Returns:
        The weights before division by their total, and the total (..., 1); or, in halves, the
        weights after it and None.
    """
    if dtype != energies.dtype:
        # Divided at once: sums of halves could overflow.
        energies = energies.softmax(dim=-1)  # those before are freed
        return energies.to(dtype), None
    # Divided after the product: equal values come out exactly.
    weights = exponentiate(energies, energies.amax(dim=-1, keepdim=True))
    return weights, weights.sum(dim=-1, keepdim=True)


def exponentiate(energies: Tensor, largest: Tensor) -> Tensor:
    """Replaces energies by exponentials of their differences to the largest ones.

    Processors take a hundred times as long for numbers below the normal ones, which most weights of
    a trained network would be. Weights are so large here that a product of two is normal, or 0:
    those so small beside the largest, 1, that sums do not see them.
    """
    energies.sub_(largest)
    if energies.device.type != "cpu":
        return energies.exp_()
    least = math.log(torch.finfo(energies.dtype).tiny) / 2 + _MARGIN
    energies.clamp_min_(least)  # exponentials of less take as long
    return torch.threshold_(energies.exp_(), 2 * math.exp(least), 0.0)


def gather(block: Block, weights: Tensor, source: Tensor, target: Tensor, *, add: bool) -> None:
    """Writes or adds to each query of a block what its line holds, summed with its weights.

    Of values, this is the output; of keys, with the gradient of the energies as weights, the
    gradient of the queries.

    Args:
        block: the block.
        weights: (..., lines, queries, keys).
        source: (*positions, C), read at the keys.
        target: (*positions, C), written at the queries.
        add: whether to add.
    """
    multiply(weights, block.keys(source), block.queries(target), add=add)


def scatter(block: Block, weights: Tensor, source: Tensor, target: Tensor, *, add: bool) -> None:
    """Writes or adds to each key of a block what its line's queries hold, summed with the weights.

    The transpose of `gather`. Of the gradient of the output, this is the gradient of the values;
    of queries, with the gradient of the energies as weights, the gradient of the keys.
    """
    multiply(weights.transpose(-1, -2), block.queries(source), block.keys(target), add=add)
