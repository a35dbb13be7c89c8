"""Command line: the fields of a recipe as options."""

import argparse
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any


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
