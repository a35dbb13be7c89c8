"""Command-line options of a run on many pictures."""

import argparse
import os

from ccnet.jobs.outputs import OUTPUTS, USUAL, named_outputs
from ccnet.launchers import number_of
from ccnet.prediction_run.sharing import Shard

MOST_WORKERS = 8
"""Threads that read and write, unless told otherwise: more of them hold more pictures."""


def default_workers() -> int:
    """Two for each core that this process has, since they wait for the disk as well.

    Raises:
        ValueError: if the number of processes that were started here is none.
    """
    processes = number_of("LOCAL_WORLD_SIZE") if os.environ.get("LOCAL_WORLD_SIZE") else 1
    if processes < 1:
        raise ValueError("LOCAL_WORLD_SIZE is 0: it must be 1 or more")
    return max(2, min(MOST_WORKERS, 2 * (os.cpu_count() or 1) // processes))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds options for which pictures are segmented, how many at a time, and what is written."""
    kinds = (
        f"what to write, of {', '.join(OUTPUTS)}: legend is an overlay with outlines and the names "
        "of its classes, the last two are COCO's (default: %(default)s)"
    )
    add = parser.add_argument_group("run on many images").add_argument
    add("--save", default=",".join(USUAL), metavar="KINDS", help=kinds)
    add("--shard", metavar="K/N", help="take the Kth of N parts of the images, K from 1 to N")
    add("--limit", type=int, metavar="N", help="end when N images went through the network")
    together = "how many images seen at one size go through the network together (default: 1)"
    add("--batch-size", type=int, default=1, metavar="N", help=together)
    beside = f"threads that read and write (default: two for each core, at most {MOST_WORKERS})"
    add("--workers", type=int, metavar="N", help=beside)


def refuse_run_options(arguments: argparse.Namespace) -> None:
    """Refuses the options of a run on many images where there is one video.

    Raises:
        ValueError: names the option.
    """
    defaults = argparse.ArgumentParser(add_help=False)
    add_run_options(defaults)
    for name, value in vars(defaults.parse_args([])).items():
        if getattr(arguments, name) != value:
            raise ValueError(f"--{name.replace('_', '-')} is for images, not for a video")
    if (processes := os.environ.get("WORLD_SIZE") or "1") != "1":
        raise ValueError(f"a video is for one process, not for {processes} that share images out")


def settle_run_options(arguments: argparse.Namespace) -> None:
    """Checks these options, and turns texts into what they mean.

    Raises:
        ValueError: names the option that is wrong.
    """
    for name in ("limit", "batch_size", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
    if arguments.workers is None:
        arguments.workers = default_workers()
    try:
        arguments.save = named_outputs(arguments.save.split(","))
    except ValueError as error:
        raise ValueError(f"--save: {error}") from error
    if arguments.shard is None:
        return
    try:
        arguments.shard = Shard.parse(arguments.shard)
    except ValueError as error:
        raise ValueError(f"--shard: {error}") from error
    if not arguments.images:
        raise ValueError("--shard needs images to share out")
    processes = os.environ.get("WORLD_SIZE") or "1"
    if processes != "1":
        raise ValueError(
            f"--shard is for processes that do not know each other; these {processes} were started "
            "together and share the images out by themselves: remove it"
        )
