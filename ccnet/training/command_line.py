"""Command lines of training: their options, and how such a script runs and ends."""

import argparse
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any, TypeAlias

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from ccnet import distributed
from ccnet.console import (
    ending_on_second_interrupt,
    ending_on_signals,
)
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.training.run_log import RunLog
from ccnet.training.termination import ENDS, Terminated

Group: TypeAlias = argparse._ArgumentGroup

_KINDS = {int: "N", float: "X", str: "TEXT"}
"""How values of a type are shown in the help."""


def add_run_options(group: Group, *, workers: int) -> None:
    """Adds the options that say where and how to run.

    Args:
        group: gets the options.
        workers: default number of data-loading processes.
    """
    group.add_argument(
        "--run-dir",
        type=user_path,
        required=True,
        metavar="FOLDER",
        help="folder of the run, which is created.",
    )
    group.add_argument(
        "--resume",
        choices=("auto", "never"),
        nargs="?",
        const="auto",
        default="never",
        help="auto: go on from the newest intact checkpoint in the folder of the run, or start if "
        "it holds none. (default: %(default)s)",
    )
    group.add_argument(
        "--accept-changed-data", action="store_true", help="go on with other data too."
    )
    group.add_argument(
        "--accept-changed-recipe",
        action="store_true",
        help="go on with another recipe too, such as more steps after the end.",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=workers,
        metavar="N",
        help="data-loading processes. (default: %(default)s)",
    )
    group.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1, ... (default: %(default)s)",
    )


def run_script(
    parse: Callable[[], argparse.Namespace],
    train: Callable[[argparse.Namespace, torch.device, FolderLock, RunLog], None],
    check: Callable[[argparse.Namespace], None] = lambda _: None,
) -> None:
    """Runs a script that trains in a folder, on all ranks; errors and signals give one line.

    Args:
        parse: returns the arguments, with those of `add_run_options`.
        train: called with them, the device of this process, and the lock and log of the folder.
        check: called with the arguments before anything is waited for or created; raises
            ValueError or OSError if they cannot be used.

    Raises:
        SystemExit: on errors.
    """
    arguments = parse()
    try:
        check(arguments)
        # Only then Python sees to SIGTERM: to wait for other processes may take long.
        with (
            ending_on_second_interrupt(),
            distributed.process_group(arguments.device) as device,
            ending_on_signals(ENDS),
            FolderLock(arguments.run_dir) as lock,
        ):
            is_first = distributed.rank() == 0
            level = logging.INFO if is_first else logging.ERROR
            logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
            # Lines of the log do not break the progress bar of a terminal.
            above_bar = logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext()
            try:
                with RunLog(arguments.run_dir).attached() as log, above_bar:
                    train(arguments, device, lock, log)
            except Terminated as stop:
                if is_first:
                    print(f"{stop}; resume with --resume auto")  # noqa: T201
    except (OSError, ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


def option_groups(parser: argparse.ArgumentParser, recipe: type[Any]) -> dict[str, Group]:
    """Adds a group of options for each section of a recipe's docstring; returns them by title."""
    return {title: parser.add_argument_group(title) for title in _sections(recipe)}


def add_recipe_options(
    groups: Mapping[str, Group],
    recipe: type[Any],
    choices: Mapping[str, Sequence[Any]],
    shown: Any = None,
) -> None:
    """Adds an option for every field of a recipe, such as --batch-size for `batch_size`.

    Group, order and text of each are those of the docstring of the recipe.

    Args:
        groups: the groups of `option_groups`; the options are None by default.
        recipe: a dataclass whose docstring describes its fields, in sections.
        choices: the allowed values of fields that have only a few.
        shown: the recipe whose values the help shows; None for none.
    """
    kinds = {field.name: field.type for field in fields(recipe)}
    for title, texts in _sections(recipe).items():
        for name, text in texts.items():
            kind: Any = kinds[name]
            flag, allowed = f"--{name.replace('_', '-')}", choices.get(name)
            if allowed and not all(str(choice) in text for choice in allowed):
                text = f"{text} One of {', '.join(map(str, allowed))}."
            if shown is not None:
                text = f"{text} (default: {_in_words(getattr(shown, name))})"
            text = text.replace("%", "%%")
            if kind is bool:
                groups[title].add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            else:
                options: Any = {"choices": allowed, "metavar": _KINDS[kind], "help": text}
                groups[title].add_argument(flag, type=kind, **options)


def given_fields(arguments: argparse.Namespace, recipe: type[Any]) -> dict[str, Any]:
    """Returns the fields of a recipe that the command line gives."""
    given = {field.name: getattr(arguments, field.name) for field in fields(recipe)}
    return {name: value for name, value in given.items() if value is not None}


def _sections(recipe: type[Any]) -> dict[str, dict[str, str]]:
    """Returns the texts for the fields of a recipe by the sections of its docstring."""
    names = {field.name for field in fields(recipe)}
    documentation = inspect.getdoc(recipe) or ""
    sections = re.findall(r"^(\S.*):\n((?:\n*    .+)+)", documentation, re.MULTILINE)
    texts = {
        title: {
            name: " ".join(text.replace("`", "").split())
            for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", body, re.MULTILINE)
            if name in names
        }
        for title, body in sections
    }
    return {title: section for title, section in texts.items() if section}


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)
