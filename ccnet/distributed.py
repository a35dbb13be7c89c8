"""Distributed helpers: devices, the group of the processes, rank, world size, collectives.

A process without a process group has rank 0 in a world of size 1.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ccnet.launchers import (
    check_restarts,
    local_rank,
    started_processes,
    warn_of_unknown_address,
)

T = TypeVar("T")

_left: list[object] = []
"""Groups that this process has left."""


def usable_device(name: str) -> torch.device:
    """Returns the device of that name after allocating a tensor on it.

    Raises:
        ValueError: if the device does not exist or cannot be used; says why.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return device


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the processes that were started together, if there are several; leaves them at exit.

    Their variables are those of PyTorch's `env://`: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT,
    which torchrun and Kubernetes' operators set, and scripts for Slurm or MPI can. A nested call
    changes nothing.

    Args:
        device: of several processes, "cuda" becomes the device of the local rank. The backend is
            NCCL for CUDA devices and gloo for all others.

    Yields:
        The device of this process.

    Raises:
        ConnectionError: if the other processes are not found.
        ValueError: if the device cannot be used, variables are missing or wrong, or torchrun may
            restart workers in a store that still holds the addresses of lost ones.
    """
    started = world_size() if dist.is_initialized() else started_processes()
    if started > 1 and device == "cuda":
        device = f"cuda:{local_rank()}"
    chosen = usable_device(device)
    if started > 1 and chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        yield chosen
        return
    check_restarts()
    if started == 1:
        yield chosen
        return
    warn_of_unknown_address()
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConnectionError(
            f"rank {os.environ['RANK']} of {started} cannot join the others "
            f"at MASTER_ADDR:MASTER_PORT, {address}: {reason}"
        ) from error
    try:
        yield chosen
    finally:
        leave()


def leave() -> None:
    """Leaves the group of the processes."""
    # Gloo's threads may hold the last reference to a tensor, and need Python's lock to drop it. The
    # destructor of the group waits for them with that lock: both may wait for ever (seen with
    # PyTorch 2.6). So they get the lock for a while, and the destructor runs at the very end.
    time.sleep(0.2)
    _left.append(dist.group.WORLD)
    dist.destroy_process_group()


def refuse_stray() -> None:
    """Refuses to go on alone where several processes were started and have not joined.

    Raises:
        ValueError: says which.
    """
    if not dist.is_initialized() and (count := started_processes()) > 1:
        raise ValueError(
            f"{count} processes were started together and each would train alone: "
            "enter ccnet.distributed.process_group first"
        )


def rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Lets rank 0 run the body before the other ranks, which then find its downloads in the cache.

    Every rank must enter.
    """
    if rank() > 0:
        dist.barrier()
    try:
        yield
    finally:
        if rank() == 0 and world_size() > 1:
            dist.barrier()


def all_gather(value: T) -> list[T]:
    """Gathers a picklable value from all ranks, in rank order. Every rank must call this."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def from_rank_zero(make: Callable[[], T]) -> T:
    """Calls a function on rank 0 alone; all ranks get its picklable value, or raise its error.

    Every rank must call this.
    """
    outcome: tuple[Any, Exception | None] = None, None
    if rank() == 0:
        try:
            outcome = make(), None
        except Exception as error:
            outcome = None, error
    value, problem = all_gather(outcome)[0]
    if problem is not None:
        raise problem
    made: T = value
    return made


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sums a tensor over all ranks, without a gradient. Every rank must call this."""
    total = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def all_reduce_mean(value: Tensor) -> Tensor:
    """Averages a tensor over all ranks, without a gradient. Every rank must call this."""
    return all_reduce_sum(value) / world_size()
