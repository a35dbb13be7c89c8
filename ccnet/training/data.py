"""Data loading: batches of augmented samples, reproducible from any step."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from ccnet.datasets import Sample, Transforms
from ccnet.distributed import rank, world_size
from ccnet.training.order import SampleOrder, combined_seed, sample_order
from ccnet.training.termination import ENDS


class SeededDataset(Dataset[Sample]):
    """Augments samples with random numbers that depend only on seed and sample number.

    Args:
        dataset: (image, mask) pairs.
        transforms: the augmentation of image and mask.
        seed: random seed of the augmentation.
    """

    def __init__(self, dataset: Dataset[Sample], transforms: Transforms, seed: int) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(combined_seed(self.seed, number))
            return self.transforms(*self.dataset[index])

    def __getitems__(self, keys: list[tuple[int, int]]) -> "list[Sample] | Failure":
        """Returns the samples of a batch; in a worker, the error of a file instead of raising it.

        `DataLoader` would make 20 lines of its message.
        """
        try:
            return [self[key] for key in keys]
        except (OSError, ValueError) as error:
            if get_worker_info() is None or not _survives(error):
                raise
            return Failure(error, traceback.format_exc())


@dataclass(frozen=True)
class Failure:
    """The error of a data set in a worker, in the place of a batch.

    Attributes:
        error: as it was raised.
        trace: its traceback, which does not travel with it.
    """

    error: Exception
    trace: str


def _survives(error: Exception) -> bool:
    """Whether an error is the same after its way to another process."""
    try:
        return str(ForkingPickler.loads(ForkingPickler.dumps(error))) == str(error)
    except Exception:  # whatever its class may raise
        return False


def _collate(samples: "list[Sample] | Failure") -> Any:
    return samples if isinstance(samples, Failure) else default_collate(samples)


class Portions(Sampler[list[tuple[int, int]]]):
    """Batch sampler: the samples of this rank in each forward pass of each step.

    Args:
        order: order of all samples; a step takes the next `batch_size` of them.
        batch_size: samples per step, over all ranks and forward passes.
        passes: forward passes per step.

    Raises:
        ValueError: if `batch_size` is less than the world size times `passes`.
    """

    def __init__(self, order: SampleOrder, batch_size: int, passes: int = 1) -> None:
        world = world_size()
        if batch_size < world * passes:
            raise ValueError(
                f"batch_size {batch_size} is too small for {world} processes and {passes} forward "
                f"passes a step: at least {world * passes}"
            )
        self.order, self.batch_size = order, batch_size
        parts = [range(part, batch_size, world * passes) for part in range(world * passes)]
        self.portions = parts[rank() * passes : (rank() + 1) * passes]

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
    """Loads batches for the steps `first_step` to `last_step`, the same for any number of workers.

    A batch is images (N, 3, H, W), uint8, RGB, and labels (N, H, W), uint8. Each step has `passes`
    consecutive batches, which are this rank's part of the step's `batch_size` samples. Of a
    `Mixture`, each step has its shares.
    """
    first, last = first_step * batch_size, last_step * batch_size
    order = sample_order(dataset, first, last, seed, batch_size)
    return DataLoader(
        SeededDataset(dataset, transforms, seed),
        batch_sampler=Portions(order, batch_size, passes),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_initialise_worker,
        pin_memory=torch.cuda.is_available(),
    )


@contextmanager
def iterate(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """Iterates over a loader inside a context that ends its workers, however it is left.

    Raises:
        ChildProcessError: anywhere inside, if a worker was killed.
        OSError: from the iterator, as the data set raised it in a worker; as is any ValueError.
    """
    try:
        with _iterating(loader) as batches:
            yield batches
    except (RuntimeError, OSError) as error:
        # A signal handler of DataLoader raises it, perhaps while a file is written.
        for one in (error, error.__cause__):
            if str(one).startswith("DataLoader worker (pid"):
                raise _loss(str(one)) from error
        raise


@contextmanager
def _iterating(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """Ends the workers.

    Without this a worker that misses the request to end keeps the interpreter from exiting: it
    ignores SIGTERM, and multiprocessing waits for it.
    """
    others = set(multiprocessing.active_children())
    with _signals_withheld():
        batches: Any = iter(loader)
    workers = set(multiprocessing.active_children()) - others
    try:
        yield _from_workers(batches) if workers else batches
    finally:
        if workers:
            batches._shutdown_workers()
        for worker in workers:
            worker.kill()
            worker.join()


def _from_workers(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (ConnectionError, EOFError) as error:  # a worker ended while it sent a batch
            raise _loss(type(error).__name__) from error
        if isinstance(batch, Failure):
            raise batch.error from RuntimeError(f"in a data-loading worker:\n{batch.trace}")
        yield batch


def _loss(reason: str) -> ChildProcessError:
    return ChildProcessError(
        "a data-loading worker ended before its time, perhaps for lack of memory "
        f"({' '.join(reason.split())}): give fewer --workers, and resume with --resume auto"
    )


@contextmanager
def _signals_withheld() -> Iterator[None]:
    """Has processes that start inside get none of `ENDS`; for this one they wait."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # which else happens inside, and lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialise_worker(_: int) -> None:
    """Leaves signals to the training process, and ends the worker once that process is gone.

    Ctrl-C, a scheduler's SIGTERM and the end of a terminal reach every process of a group.
    """
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
