"""One of several processes: which, and what they do together. A lone process is number 0 of 1."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


def usable_device(name: str) -> torch.device:
    """The device of that name, once a tensor could be made on it.

    Raises:
        ValueError: if that cannot be; says why.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return device


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, if it did, and leaves them at the end.

    Within another such block it does nothing.

    Args:
        device: "cuda" becomes one of the machine's devices for each of its processes. Devices other
            than CUDA are joined by gloo.

    Raises:
        ValueError: if there is no such device.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and device.startswith("cuda"):
        chosen = usable_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    else:
        chosen = usable_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ or distributed.is_initialized():
        yield chosen
        return
    # After a restart the store still has the addresses of the processes that were lost.
    store, rank, count = next(rendezvous("env://"))
    store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield chosen
    finally:
        distributed.destroy_process_group()


def rank_and_count() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def first_one_first() -> Iterator[None]:
    """Lets process 0 through before the others: they find in the cache what it fetched."""
    rank, count = rank_and_count()
    if rank > 0:
        distributed.barrier()
    try:
        yield
    finally:
        if rank == 0 and count > 1:
            distributed.barrier()


def gather(value: T) -> list[T]:
    """The values of all processes, in their order; every process must call this."""
    values = [value] * rank_and_count()[1]
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without a gradient; every process must call this."""
    if not distributed.is_initialized():
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
