"""Distributed helpers: devices, the group of the processes, rank, world size, collectives.

A process without a process group has rank 0 in a world of size 1.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

logger = logging.getLogger(__name__)

T = TypeVar("T")

_left: list[object] = []
"""Groups that this process has left."""


class Launcher(NamedTuple):
    """Variables that a launcher sets, "" for those that it does not.

    Attributes:
        size: the number of processes that it started.
        rank: the number of this one among them.
        local_rank: the number of this one among those of its node.
    """

    size: str
    rank: str
    local_rank: str


LAUNCHERS = (
    Launcher("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    Launcher("SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID"),
    Launcher("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    Launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    Launcher("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    Launcher("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    Launcher("MPI_LOCALNRANKS", "MPI_LOCALRANKID", "MPI_LOCALRANKID"),  # those of the node
    Launcher("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK"),
    Launcher("FLUX_JOB_SIZE", "FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID"),
    Launcher("HOROVOD_SIZE", "HOROVOD_RANK", "HOROVOD_LOCAL_RANK"),
    Launcher("", "PALS_RANKID", "PALS_LOCAL_RANKID"),
    Launcher("", "PMIX_RANK", ""),
)


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
        device = f"cuda:{_local_rank()}"
    chosen = usable_device(device)
    if started > 1 and chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        yield chosen
        return
    _check_restarts()
    if started == 1:
        yield chosen
        return
    _warn_of_unknown_address()
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


def started_processes() -> int:
    """The number of processes that were started together, whether or not they have joined.

    Raises:
        ValueError: if a launcher started several and the variables to join them are missing or
            wrong: each would do all the work alone.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE") if not os.environ.get(name)]
    if len(missing) == 2 or (missing == ["RANK"] and _number("WORLD_SIZE") == 1):
        _refuse_several()
        return 1
    if not missing:
        rank, size = _number("RANK"), _number("WORLD_SIZE")
        if not rank < size:
            raise ValueError(f"RANK is {rank}: it must be below WORLD_SIZE, which is {size}")
        if size == 1:
            return 1
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be set as well: processes that are started together "
            "need RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which torchrun sets"
        )
    if not 0 < (port := _number("MASTER_PORT")) < 2**16:
        raise ValueError(f"MASTER_PORT is {port}: it must be from 1 to 65535")
    return size


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


def _refuse_several() -> None:
    """Refuses several processes that a launcher started without the variables to join them."""
    for launcher in LAUNCHERS:
        # The tasks of a Slurm job may be started by later steps, of which this may be a single one.
        if launcher.rank == "SLURM_PROCID" and os.environ.get("SLURM_STEP_NUM_TASKS") == "1":
            continue
        for name, of_one in ((launcher.size, 1), (launcher.rank, 0)):
            value = os.environ.get(name, "").strip()
            if value.isdecimal() and int(value) > of_one:
                sources = zip(
                    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
                    (launcher.rank, launcher.size, launcher.local_rank),
                    strict=True,
                )
                needed = ", ".join(f"{ours}=${its}" if its else ours for ours, its in sources)
                raise ValueError(
                    f"{name} is {value}, but RANK and WORLD_SIZE are not both set, and several "
                    f"processes would each work alone: set {needed}, MASTER_ADDR and MASTER_PORT "
                    "in each of them, or start them with torchrun; RANK=0 WORLD_SIZE=1 means that "
                    "this process is the only one"
                )


def _local_rank() -> int:
    """The index of this process's CUDA device."""
    if "LOCAL_RANK" in os.environ:
        return _number("LOCAL_RANK")
    for launcher in LAUNCHERS:
        if os.environ.get(launcher.local_rank):
            return _number(launcher.local_rank)
    if (count := torch.cuda.device_count()) > 1:
        raise ValueError(f"there are {count} CUDA devices: set LOCAL_RANK, or name one (cuda:0)")
    return 0


def _number(name: str) -> int:
    value = os.environ[name].strip()
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}: it must be a number, 0 or more")
    return int(value)


def _warn_of_unknown_address() -> None:
    """Warns of an address without a computer, which may get one: those of clusters start late."""
    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError) as error:
        logger.warning("MASTER_ADDR is %r, which is not found (%s): waiting", address, error)


def _check_restarts() -> None:
    """Refuses restarts that would hang: restarted workers find the addresses of lost ones."""
    name = "TORCHELASTIC_MAX_RESTARTS"
    may_restart = os.environ.get(name) and _number(name) > 0
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
