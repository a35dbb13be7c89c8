"""Fields of recipes: their types, and those that have only a few values."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from ccnet.schema import shown

_ROUNDING = Fraction(1, 10**9)
"""By how much shares that are 1 together may be more, when they are written as decimals."""


def settle_types(recipe: Any) -> None:
    """Gives the fields of a frozen recipe Python's own types: int, float, bool or str.

    Numbers of NumPy become Python's, paths text.

    Raises:
        ValueError: if a value is of another type; names field and value.
    """
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        kind: Any = field.type
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        accepted, expected = _ACCEPTED[kind]
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            empty = ", '' for none" if field.default == "" else ""
            raise ValueError(f"{field.name} must be {expected}{empty}, not {shown(value)}")
        object.__setattr__(recipe, field.name, kind(value))


_ACCEPTED: dict[Any, tuple[type, str]] = {
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "text"),
}


def as_text(name: str, value: Any) -> str:
    """Writes numbers, lists and mappings as a command line has them.

    Args:
        name: of the field, for errors.
        value: text, an integer, or a mapping or a list, array or tensor of numbers.

    Raises:
        ValueError: if it is nothing of that kind.
    """
    value = _plain(value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_plain(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ",".join(str(_plain(one)) for one in value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{name} must be text, '' for none, a number or several, not {shown(value)}")


def _plain(value: Any) -> Any:
    """Returns the numbers of an array or a tensor, and anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def as_shares(name: str, text: str, choices: Sequence[str]) -> list[tuple[str, Fraction]]:
    """Reads "a=0.5,b=0.1": names, which may come again, and the share of each.

    Args:
        name: of the field, for errors.
        text: of the field; empty for none.
        choices: the allowed names.

    Raises:
        ValueError: if it is nothing of that kind, or the shares are more than 1 together.
    """
    shares = []
    for pair in text.split(",") if text else []:
        choice, _, number = (part.strip() for part in pair.partition("="))
        if choice not in choices:
            raise ValueError(
                f"{name} {text!r} must be such as '{choices[0]}=0.5' or several, separated by "
                f"commas, of {', '.join(choices)}: {choice!r} is none of these"
            )
        try:
            exponent = re.search(r"e[+-]?([\d_]+)$", number, re.IGNORECASE)
            is_huge = exponent is not None and int(exponent[1]) > 999  # an endless power of 10
            share = Fraction(0 if is_huge else number)
        except (ValueError, ZeroDivisionError):
            share = Fraction(0)
        if not 0 < share <= 1:
            raise ValueError(
                f"{name}: the share of {choice} must be a number above 0 and at most 1, "
                f"such as '{choice}=0.5', not {number!r}"
            )
        shares.append((choice, share))
    if (total := sum(share for _, share in shares)) > 1 + _ROUNDING:
        raise ValueError(
            f"{name} {text!r}: the shares must be at most 1 together, not {float(total):.9g}"
        )
    return [(choice, share / max(total, 1)) for choice, share in shares]


def refuse_other_choices(recipe: object, choices: Mapping[str, Sequence[object]]) -> None:
    """Refuses values of fields that are not among those allowed.

    Raises:
        ValueError: names field, values and value.
    """
    for name, allowed in choices.items():
        if (value := getattr(recipe, name)) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
