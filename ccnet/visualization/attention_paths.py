"""Where attention comes from: the strongest sources of a map, and the ways from there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ccnet.attention import attention_map, criss_cross_attention

Position = tuple[int, ...]
"""Row and column of a feature map, or the coordinates of a volume."""

Loop = tuple[Tensor, Tensor]
"""Query and key of a loop of attention, both (1, Ck, *spatial)."""


class Source(NamedTuple):
    """Where attention comes from.

    Attributes:
        position: the strongest position there.
        share: of the attention, 0..1: of that position and those near it.
    """

    position: Position
    share: float


class Path(NamedTuple):
    """A way of information to a position: one hop for each loop.

    Attributes:
        positions: the source, the position after each loop but the last, and the position itself.
        share: of all attention of the position, 0..1, what takes exactly this way.
    """

    positions: tuple[Position, ...]
    share: float


def strongest_sources(weights: Tensor, count: int = 3, reach: int = 2) -> list[Source]:
    """Finds where most of the attention comes from.

    A source is a position and all those not yet taken within `reach` of it along every axis, since
    sharp attention often lies on some neighbours.

    Args:
        weights: (*spatial), floating point, in 0..1: an attention map.
        count: of sources, at most; those without attention are left out.
        reach: in positions; 0 for single positions.

    Returns:
        Sources by their shares, the largest first, which add up to 1 at most.
    """
    left, sources = weights.detach().clone(), list[Source]()
    while len(sources) < count and left.max() > 0:
        position = _position_of(int(left.argmax()), left.shape)
        near = left[tuple(slice(max(0, at - reach), at + reach + 1) for at in position)]
        sources.append(Source(position, float(near.sum())))
        near.zero_()
    return sorted(sources, key=lambda source: -source.share)


def notable_sources(weights: Tensor, least: float = 0.005) -> list[Source]:
    """Finds the strongest sources as in `strongest_sources`, those of a share worth showing.

    Args:
        weights: (*spatial), floating point, in 0..1, of sum 1.
        least: share of the attention of all but the first one, which is always there.
    """
    first, *others = strongest_sources(weights)
    return [first, *(source for source in others if source.share >= least)]


def carried_shares(loops: Sequence[Loop], position: Position, source: Position) -> Tensor:
    """Computes by which positions attention goes from a source into the last loop.

    Of two loops on a map these are, for a source off the row and column of the position, the two
    corners between them: row first or column first. Otherwise all that both of them share.

    Args:
        loops: query and key of two or more loops, the first loop first.
        position: where the attention arrives.
        source: where it comes from.

    Returns:
        (*spatial), in 0..1: the share of the position's attention that passes each position. The
        sum is the weight of the source in `attention_map`.
    """
    last = attention_map(loops[-1:], position)
    arriving = torch.zeros_like(last)[None]
    arriving[0, 0][source] = 1
    for query, key in loops[:-1]:
        arriving = criss_cross_attention(query.to(arriving), key.to(arriving), arriving)
    return last[0] * arriving[0, 0]


def paths(
    loops: Sequence[Loop], position: Position, source: Position, count: int = 2
) -> list[Path]:
    """Finds the strongest ways from a source to a position.

    Of one or two loops they are exactly the strongest. Of more, the last hop is chosen by all that
    it carries of the source, then the hop before it, and so on.

    Args:
        loops: query and key of each loop, the first loop first.
        position: where the attention arrives.
        source: where it comes from.
        count: of ways that differ in their last hop, at most.

    Returns:
        Paths, the strongest first; none if the source gives nothing.
    """
    last = attention_map(loops[-1:], position)[0]
    if len(loops) == 1:
        return [Path((source, position), float(last[source]))] if last[source] > 0 else []
    carried = carried_shares(loops, position, source).flatten()
    found = []
    for index in carried.topk(min(count, carried.numel())).indices.tolist():
        between = _position_of(index, last.shape)
        for path in paths(loops[:-1], between, source, 1):
            share = path.share * float(last[between])
            found += [Path((*path.positions, position), share)] if share > 0 else []
    return sorted(found, key=lambda path: -path.share)


def _position_of(index: int, size: Sequence[int]) -> Position:
    position: Position = ()
    for length in reversed(size):
        index, at = divmod(index, length)
        position = (at, *position)
    return position
