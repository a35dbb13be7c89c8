"""One of several processes: which, and what they do together. A lone process is number 0 of 1."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")

START_SECONDS = 300
"""How long the first of several processes waits for the others."""


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
    store, rank, count = next(rendezvous("env://"))
    store = _store_of_this_start(store, rank, count)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield chosen
    finally:
        distributed.destroy_process_group()


def _store_of_this_start(store: Store, rank: int, count: int) -> Store:
    """The part of the store that the processes of one start share, and none before them wrote to.

    After a restart the store still has the addresses of the processes that were lost, and nothing
    that all nodes know tells the starts apart. So process 0 makes up a name for this one, and
    repeats it to whatever announces itself until all of its own start have answered.

    Raises:
        TimeoutError: if they do not in `START_SECONDS`.
    """
    own = uuid.uuid4().hex
    store.set(f"announced/{rank}", own)
    if rank:
        name = store.get(f"invited/{own}").decode()
        store.set(f"answered/{name}/{rank}", "")
        return PrefixStore(name, store)
    missing, end = set(range(1, count)), time.monotonic() + START_SECONDS
    while missing:
        for other in missing.copy():
            if store.check([f"answered/{own}/{other}"]):
                missing.remove(other)
            elif store.check([f"announced/{other}"]):
                store.set("invited/" + store.get(f"announced/{other}").decode(), own)
        if time.monotonic() > end:
            raise TimeoutError(f"the processes {sorted(missing)} of {count} did not start")
        time.sleep(0.01)
    return PrefixStore(own, store)


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
