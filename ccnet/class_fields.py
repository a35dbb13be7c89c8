"""Class fields: what the fields of a label set may hold."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from numbers import Integral
from typing import Any

from ccnet.schema import shown, shown_name

Color = tuple[int, int, int]

MAX_CLASSES = 255
"""Label maps are stored in 8 bits, and one of their 256 values is for pixels without a class."""

_IDS = range(-(2**31), 2**32)
"""Ids that a data set's files may have: those of 32 bits."""

_MAX_IDS = 65_536
_MAX_NAME = 500
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of what would break a line of text, or cannot be written at all."""


def whole_numbers(field: str, values: Any) -> tuple[int, ...]:
    """Returns the whole numbers that a field of a label set holds.

    Raises:
        ValueError: if it holds anything else, or numbers of more than 32 bits.
    """
    if not is_list(values) or not all(map(_is_whole, values)):
        raise ValueError(f"{field} must be a list of whole numbers, not {shown(values)}")
    if len(values) > _MAX_IDS or not all(int(value) in _IDS for value in values):
        raise ValueError(
            f"{field} must be up to {_MAX_IDS} numbers of 32 bits, not {len(values)}: "
            f"{shown(values)}"
        )
    return tuple(int(value) for value in values)


def class_names(values: Any) -> tuple[str, ...]:
    """Returns the names of classes; a number is one too.

    Raises:
        ValueError: if there are none, too many, or one that is no text or cannot be printed.
    """
    if not is_list(values):
        raise ValueError(f"categories must be a list of names, not {shown(values)}")
    if not 1 <= len(values) <= MAX_CLASSES:
        raise ValueError(f"a label set has 1 to {MAX_CLASSES} classes, not {len(values)}")
    for value in values:
        if not isinstance(value, str) and not (_is_whole(value) and value in _IDS):
            raise ValueError(f"the name of a class must be a text, not {shown(value)}")
    names = tuple(str(value) for value in values)
    for name in names:
        if not 1 <= len(name) <= _MAX_NAME or not _UNPRINTABLE.isdisjoint(
            map(unicodedata.category, name)
        ):
            raise ValueError(
                f"the name of a class must be 1 to {_MAX_NAME} characters that can be printed, "
                f"not {shown(name)}"
            )
    return names


def colors_of(field: str, values: Any) -> tuple[Color, ...]:
    """Returns the colours that a field holds.

    Raises:
        ValueError: if it holds anything else.
    """
    if not is_list(values):
        raise ValueError(f"{field} must be a list of colours, not {shown(values)}")
    for color in values:
        if not is_list(color) or [_is_whole(one) and 0 <= one <= 255 for one in color] != (
            [True] * 3
        ):
            raise ValueError(f"a colour must be three whole numbers in 0..255, not {shown(color)}")
    return tuple((int(r), int(g), int(b)) for r, g, b in values)


FIELDS: Mapping[str, Callable[[Any], tuple[Any, ...]]] = {
    "categories": class_names,
    "colors": partial(colors_of, "colors"),
    "label_ids": partial(whole_numbers, "label_ids"),
    "ignore": partial(whole_numbers, "ignore"),
}
"""The fields of a label set, and what checks each."""


def check_fields(what: str, given: Iterable[Any], known: Sequence[str]) -> None:
    """Checks that fields exist.

    Args:
        what: whose fields they are, for the error.
        given: their names.
        known: the names that there are.

    Raises:
        ValueError: names the first that does not exist, the nearest one, and all.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(str(name)[:100].lower(), known, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{what} has no field {shown_name(name)!r}: {meant}The fields are "
                f"{', '.join(known)}"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_list(values: Any) -> bool:
    """Whether a value is a list, a tuple or the like, but no text."""
    return isinstance(values, Sequence) and not isinstance(values, str)
