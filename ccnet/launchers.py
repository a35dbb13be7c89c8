"""Launchers: what they say, in environment variables, of the processes that they started."""

import logging
import os
import socket
from typing import NamedTuple

import torch

logger = logging.getLogger(__name__)


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


def started_processes() -> int:
    """The number of processes that were started together, whether or not they have joined.

    Raises:
        ValueError: if a launcher started several and the variables to join them are missing or
            wrong: each would do all the work alone.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE") if not os.environ.get(name)]
    if len(missing) == 2 or (missing == ["RANK"] and number_of("WORLD_SIZE") == 1):
        _refuse_several()
        return 1
    if not missing:
        rank, size = number_of("RANK"), number_of("WORLD_SIZE")
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
    if not 0 < (port := number_of("MASTER_PORT")) < 2**16:
        raise ValueError(f"MASTER_PORT is {port}: it must be from 1 to 65535")
    return size


def local_rank() -> int:
    """The index of this process's CUDA device."""
    if "LOCAL_RANK" in os.environ:
        return number_of("LOCAL_RANK")
    for launcher in LAUNCHERS:
        if os.environ.get(launcher.local_rank):
            return number_of(launcher.local_rank)
    if (count := torch.cuda.device_count()) > 1:
        raise ValueError(f"there are {count} CUDA devices: set LOCAL_RANK, or name one (cuda:0)")
    return 0


def warn_of_unknown_address() -> None:
    """Warns of an address without a computer, which may get one: those of clusters start late."""
    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError) as error:
        logger.warning("MASTER_ADDR is %r, which is not found (%s): waiting", address, error)


def check_restarts() -> None:
    """Refuses restarts that would hang: restarted workers find the addresses of lost ones."""
    name = "TORCHELASTIC_MAX_RESTARTS"
    may_restart = os.environ.get(name) and number_of(name) > 0
    if may_restart and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ValueError(
            "torchrun --max-restarts needs a new store for every restart: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun, and use "
            "--standalone or --rdzv-backend c10d, not --master-addr and --master-port"
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


def number_of(name: str) -> int:
    """Reads a variable of the environment that is set.

    Raises:
        ValueError: if it is no number, 0 or more.
    """
    value = os.environ[name].strip()
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}: it must be a number, 0 or more")
    return int(value)
