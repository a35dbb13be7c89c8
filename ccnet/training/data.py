"""The order of training samples and the randomness of each, as functions of seed and number."""

import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ccnet.datasets import Sample, Transforms
from ccnet.processes import rank_and_count


class SampleOrder(Sampler[tuple[int, int]]):
    """Numbers samples from `start` to `stop`: pass after pass over the data, each newly shuffled.

    Yields pairs of the sample's number and its index in the data set. Number and seed decide the
    index, so a run that starts in the middle goes on exactly as one that came from the beginning.

    Args:
        size: the length of the data set.
        start: the first number.
        stop: one past the last.
        seed: of the shuffling.
    """

    def __init__(self, size: int, start: int, stop: int, seed: int) -> None:
        self.size, self.start, self.stop, self.seed = size, start, stop, seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: list[int] = []
        shuffled = -1
        for number in range(self.start, self.stop):
            epoch, position = divmod(number, self.size)
            if epoch != shuffled:
                generator = torch.Generator().manual_seed(combined_seed(self.seed, epoch))
                order = torch.randperm(self.size, generator=generator).tolist()
                shuffled = epoch
            yield number, order[position]


class SeededDataset(Dataset[Sample]):
    """Augments sample by sample, the randomness decided by seed and number alone.

    Args:
        dataset: of (image, mask).
        transforms: the augmentation of both.
        seed: of its randomness.
    """

    def __init__(self, dataset: Dataset[Sample], transforms: Transforms, seed: int) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(combined_seed(self.seed, number))
            return self.transforms(*self.dataset[index])


class Portions(Sampler[list[tuple[int, int]]]):
    """The samples that this process gets in each forward pass of each step.

    Args:
        order: of all samples; a step takes the next `batch_size` of them.
        batch_size: samples a step, over all processes and passes.
        passes: forward passes a step.

    Raises:
        ValueError: if there are fewer samples than processes times passes.
    """

    def __init__(self, order: SampleOrder, batch_size: int, passes: int = 1) -> None:
        rank, world = rank_and_count()
        if batch_size < world * passes:
            raise ValueError(
                f"a batch of {batch_size} is too small for {world} processes and {passes} forward "
                f"passes a step: at least {world * passes}"
            )
        self.order, self.batch_size = order, batch_size
        parts = [range(part, batch_size, world * passes) for part in range(world * passes)]
        self.portions = parts[rank * passes : (rank + 1) * passes]

    def __len__(self) -> int:
        return len(self.order) // self.batch_size * len(self.portions)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = iter(self.order)
        while batch := list(islice(samples, self.batch_size)):
            for portion in self.portions:
                yield [batch[position] for position in portion]


def training_loader(
    dataset: Dataset[Sample],
    transforms: Transforms,
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    workers: int,
    passes: int = 1,
) -> DataLoader[Any]:
    """Batches for the steps `first_step` to `last_step`, the same for any number of workers.

    Each is (N, 3, H, W), uint8, RGB, and (N, H, W), uint8 labels: this process's share of a step's
    `batch_size` samples, in `passes` parts one after the other.
    """
    size = len(dataset)  # type: ignore[arg-type]
    order = SampleOrder(size, first_step * batch_size, last_step * batch_size, seed)
    return DataLoader(
        SeededDataset(dataset, transforms, seed),
        batch_sampler=Portions(order, batch_size, passes),
        num_workers=workers,
        worker_init_fn=_ignore_sigterm,
        pin_memory=torch.cuda.is_available(),
    )


def _ignore_sigterm(_: int) -> None:
    """Leaves it to the training process, which ends its workers, to answer SIGTERM to them all."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def combined_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, well mixed, the same on every machine."""
    mixed = 0
    for part in parts:
        mixed = (mixed ^ part) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1
