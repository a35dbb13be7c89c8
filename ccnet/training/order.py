"""Order: which sample of the data comes when, as a function of its number and the seed."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch.utils.data import Sampler

from ccnet.datasets import Mixture


class SampleOrder(Sampler[tuple[int, int]]):
    """Sampler that numbers samples from `start` to `stop`, reshuffled in every epoch.

    Yields pairs of the sample's number and its index in the data set. The index depends only on
    number and seed, so a resumed run sees the same samples as an uninterrupted one.

    Args:
        size: the length of the data set.
        start: the first number.
        stop: one past the last number.
        seed: random seed of the shuffling.
    """

    def __init__(self, size: int, start: int, stop: int, seed: int) -> None:
        self.size, self.start, self.stop, self.seed = size, start, stop, seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        shuffle = Shuffle(self.size, self.seed)
        return ((number, shuffle[number]) for number in range(self.start, self.stop))


class MixedOrder(SampleOrder):
    """The order of a mixture: each data set by its share, in its own order, epoch after epoch.

    Each step has the shares of the mixture, as far as whole samples can, in an order of its own: so
    its forward passes and ranks have no data set to themselves.

    Args:
        mixture: the data sets and their shares.
        start: the first number.
        stop: one past the last number.
        seed: random seed of the shuffling.
        batch_size: samples per step.
    """

    def __init__(self, mixture: Mixture, start: int, stop: int, seed: int, batch_size: int) -> None:
        super().__init__(len(mixture), start, stop, seed)
        self.mixture, self.batch_size = mixture, batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        sizes = self.mixture.sizes
        parts = [Shuffle(size, self.seed, part) for part, size in enumerate(sizes)]
        steps = Shuffle(self.batch_size, self.seed, len(parts))
        for number in range(self.start, self.stop):
            step = number - number % self.batch_size
            part, position = self._place(step + steps[number])
            yield number, sum(sizes[:part]) + parts[part][position]

    def _place(self, number: int) -> tuple[int, int]:
        """Returns the data set of a sample, and how many of that one come before it."""
        left = Fraction(1)  # of the shares
        for part, share in enumerate(self.mixture.shares):
            before = int(number * share / left)
            if int((number + 1) * share / left) > before:
                return part, before
            number, left = number - before, left - share
        raise AssertionError("the shares of a mixture are 1 together")


class Shuffle:
    """Positions 0, 1, 2, ... to the indices of a data set, which is reshuffled in every epoch.

    Args:
        size: the length of the data set.
        seeds: random seeds of the shuffling.
    """

    def __init__(self, size: int, *seeds: int) -> None:
        self.size, self.seeds, self._epoch, self._order = size, seeds, -1, list[int]()

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(combined_seed(*self.seeds, epoch))
            self._order = torch.randperm(self.size, generator=generator).tolist()
            self._epoch = epoch
        return self._order[place]


def sample_order(dataset: Any, start: int, stop: int, seed: int, batch_size: int) -> SampleOrder:
    """Returns the order of the samples of a data set; by its shares, if it is a `Mixture`."""
    if isinstance(dataset, Mixture):
        return MixedOrder(dataset, start, stop, seed, batch_size)
    return SampleOrder(len(dataset), start, stop, seed)


def combined_seed(*parts: int) -> int:
    """Hashes several numbers to one 63-bit seed, the same on every machine."""
    mixed = 0
    for part in parts:
        mixed = (mixed ^ part) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1
