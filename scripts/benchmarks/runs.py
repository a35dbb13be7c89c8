"""What benchmarks of whole training runs share: their options, errors, and figures over seeds."""

import argparse
import logging
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ccnet.console import prepare_console
from ccnet.distributed import usable_device
from ccnet.files import atomic_write, user_path
from ccnet.training.command_line import add_recipe_options, option_groups
from ccnet.training.recipes import CHOICES, Recipe
from ccnet.training.termination import Terminated


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the folder, the number of seeds, and every field of a recipe."""
    add = parser.add_argument
    add("--output", type=user_path, required=True, help="folder of the runs and what is made of it")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each row (default: 3)")
    add("--workers", type=int, default=1, metavar="N", help="data-loading processes (default: 1)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_recipe_options(option_groups(parser, Recipe), Recipe, CHOICES)


def parse_run_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parses arguments with those of `add_run_options`.

    Raises:
        ValueError: if there is no such device, or no seed.
    """
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, not {arguments.seeds}")
    arguments.device = usable_device(arguments.device)
    return arguments


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Logs the progress of runs inside, and ends them and their errors in one line."""
    prepare_console()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        yield
    except (Terminated, KeyboardInterrupt) as stop:
        print(f"{stop or 'stopped'}; the same command goes on")
    except (OSError, ValueError, FloatingPointError) as error:
        advice = ", or go on with these"  # by options of `ccnet train`, which these scripts lack
        raise SystemExit(f"error: {str(error).partition(advice)[0]}") from error


def in_short(values: Sequence[float]) -> str:
    """Formats figures over seeds: mean (lowest - highest)."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "-"
    return f"{statistics.mean(values):.2f} ({min(values):.2f} - {max(values):.2f})"


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
