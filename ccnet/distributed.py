"""Distributed helpers: devices, torchrun's process group, rank, world size, collectives.

A process without a process group has rank 0 in a world of size 1.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


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
    """Initialises torchrun's process group, if torchrun started this process; destroys it at exit.

    A nested call changes nothing.

    Args:
        device: "cuda" becomes the device of this process's local rank. The backend is NCCL for CUDA
            devices and gloo for all others.

    Yields:
        The device of this process.

    Raises:
        ValueError: if the device cannot be used, or torchrun may restart workers in a store that
            still holds the addresses of lost ones.
    """
    is_worker = "TORCHELASTIC_RUN_ID" in os.environ
    if is_worker and device.startswith("cuda"):
        chosen = usable_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    else:
        chosen = usable_device(device)
    if not is_worker or dist.is_initialized():
        yield chosen
        return
    _check_restarts()
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def _check_restarts() -> None:
    """Refuses restarts that would hang: restarted workers find the addresses of lost ones."""
    may_restart = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if may_restart and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ValueError(
            "torchrun --max-restarts needs a new store for every restart: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun, and use "
            "--standalone or --rdzv-backend c10d, not --master-addr and --master-port"
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
