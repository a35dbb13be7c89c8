"""Schema: the types and ranges of the fields of a configuration, as rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        accepts: whether a value, of any type, conforms.
        expected: what conforms, as it continues "must be ...".
    """

    accepts: Callable[[Any], bool]
    expected: str

    def or_none(self) -> "Rule":
        """Returns a rule that also accepts None."""
        return Rule(lambda value: value is None or self.accepts(value), f"{self.expected} or None")


def integer(least: int, most: int) -> Rule:
    """Accepts integers from `least` to `most`; no booleans."""
    return Rule(
        lambda value: _is(value, int) and least <= value <= most,
        f"an integer in {least}..{most}",
    )


def number(least: float, most: float) -> Rule:
    """Accepts numbers from `least` to `most`; no booleans."""
    return Rule(
        lambda value: _is(value, (int, float)) and least <= value <= most,
        f"a number in {least:g}..{most:g}",
    )


def flag() -> Rule:
    """Accepts True and False."""
    return Rule(lambda value: isinstance(value, bool), "True or False")


def one_of(*choices: Any) -> Rule:
    """Accepts these values, of their types: True is not 1."""
    return Rule(
        lambda value: any(type(value) is type(one) and value == one for one in choices),
        f"one of {', '.join(map(repr, choices))}",
    )


def mapping() -> Rule:
    """Accepts mappings from names."""
    return Rule(
        lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),
        "a mapping from names",
    )


def several(least: int, most: int, rule: Rule) -> Rule:
    """Accepts lists and tuples of `least` to `most` values that conform to a rule."""
    count = f"{least}" if least == most else f"{least}..{most}"
    return Rule(
        lambda value: (
            isinstance(value, (list, tuple))
            and least <= len(value) <= most
            and all(map(rule.accepts, value))
        ),
        f"a list of {count}, each {rule.expected}",
    )


def check(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Checks the values that there are rules for.

    Raises:
        ValueError: if one does not conform; names it and what would.
    """
    for name, rule in rules.items():
        if not rule.accepts(values[name]):
            shown = repr(values[name])
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            raise ValueError(f"{name} must be {rule.expected}, not {shown}")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
