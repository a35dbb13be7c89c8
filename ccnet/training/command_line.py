"""Command lines of training: their options, and how such a script runs and ends."""

import argparse
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from ccnet import distributed
from ccnet.console import (
    ending_on_second_interrupt,
    ending_on_signals,
    require_extra,
)
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.training.run_log import RunLog
from ccnet.training.termination import ENDS, Terminated


def add_run_options(parser: argparse.ArgumentParser, *, workers: int) -> None:
    """Adds the options that say where and how to run.

    Args:
        parser: gets the options.
        workers: default number of data-loading processes.
    """
    parser.add_argument("--run-dir", type=user_path, required=True, help="folder of the run")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        nargs="?",
        const="auto",
        default="never",
        help="auto: resume from the newest intact checkpoint in the run folder, if it holds a run",
    )
    parser.add_argument(
        "--accept-changed-data", action="store_true", help="resume with other data too"
    )
    parser.add_argument("--workers", type=int, default=workers, help="data-loading processes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def run_script(
    parse: Callable[[], argparse.Namespace],
    train: Callable[[argparse.Namespace, torch.device, FolderLock, RunLog], None],
    packages: Sequence[str] = (),
) -> None:
    """Runs a script that trains in a folder, on all ranks; errors and signals give one line.

    Args:
        parse: returns the arguments, with those of `add_run_options`.
        train: called with them, the device of this process, and the lock and log of the folder.
        packages: those that are needed, of the extra "train".

    Raises:
        SystemExit: on errors.
    """
    arguments = parse()
    try:
        require_extra("train", packages)
        # Only then Python sees to SIGTERM: to wait for other processes may take long.
        with (
            ending_on_second_interrupt(),
            distributed.process_group(arguments.device) as device,
            ending_on_signals(ENDS),
            FolderLock(arguments.run_dir) as lock,
        ):
            is_first = distributed.rank() == 0
            level = logging.INFO if is_first else logging.ERROR
            logging.basicConfig(level=level, format="%(asctime)s %(message)s")
            try:
                with RunLog(arguments.run_dir).attached() as log:
                    train(arguments, device, lock, log)
            except Terminated as stop:
                if is_first:
                    print(f"{stop}; resume with --resume auto")  # noqa: T201
    except (OSError, ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


def add_recipe_options(
    parser: argparse.ArgumentParser, recipe: type[Any], choices: Mapping[str, Sequence[Any]]
) -> None:
    """Adds an option for every field of a recipe, such as --batch-size for `batch_size`.

    Args:
        parser: gets the options, None by default.
        recipe: a dataclass whose docstring describes its fields.
        choices: the allowed values of fields that have only a few.
    """
    group, texts = parser.add_argument_group("fields of the recipe"), _field_texts(recipe)
    for field in fields(recipe):
        flag, text = f"--{field.name.replace('_', '-')}", texts[field.name]
        if field.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            allowed: Any = choices.get(field.name)
            kind: Any = field.type
            group.add_argument(flag, type=kind, choices=allowed, help=text)


def given_fields(arguments: argparse.Namespace, recipe: type[Any]) -> dict[str, Any]:
    """Returns the fields of a recipe that the command line gives."""
    given = {field.name: getattr(arguments, field.name) for field in fields(recipe)}
    return {name: value for name, value in given.items() if value is not None}


def _field_texts(recipe: type[Any]) -> dict[str, str]:
    """Returns the texts for the fields in the docstring of a recipe."""
    documentation = inspect.getdoc(recipe) or ""
    attributes = documentation.partition("Attributes:")[2].partition("Raises:")[0]
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()).replace("%", "%%") for name, text in entries}
