"""Schema: the types and ranges of the fields of a configuration, as rules."""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
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
        return Rule(lambda value: value is None or self.accepts(value), f"None or {self.expected}")


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
            raise ValueError(f"{name} must be {rule.expected}, not {shown(values[name])}")


class _Short(reprlib.Repr):
    """Shows the start of a value without formatting all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 3, 8, 8, 8, 8
        self.maxstring = self.maxother = 60

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 128 else f"an integer of {x.bit_length()} bits"


def shown(value: Any) -> str:
    """Formats a value of any type and size in one short line, for an error."""
    try:
        text = _SHORT.repr(value)
    except Exception:  # a foreign type may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def shown_name(name: Any) -> str:
    """Returns a name as it is shown in an error: unchanged, if that is one short line."""
    is_plain = isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST
    return name if is_plain else shown(name)


def reason_of(error: BaseException) -> str:
    """Returns what an error of another program says, in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


_SHORT = _Short()
_LONGEST = 100
_LONGEST_REASON = 1000


def parts_of(value: Any) -> Iterable[Any]:
    """Returns what a list, a tuple, a set or a mapping holds, keys and values; else nothing."""
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    return value if isinstance(value, (list, tuple, set, frozenset)) else ()


def check_nesting(
    value: Any,
    deepest: int = 64,
    most: int = 1_000_000,
    parts: Callable[[Any], Iterable[Any]] = parts_of,
) -> None:
    """Checks that plain values can be walked through, compared and printed.

    A few bytes of a pickle can describe values that hold one another many times over, which take
    forever to walk through though they take no memory.

    Args:
        value: made of lists, mappings and the like.
        deepest: levels that may be inside one another.
        most: number of values that there may be, each counted wherever it is; a text counts as one
            for each hundred characters.
        parts: gives what a value holds.

    Raises:
        ValueError: if there are more, or a value holds itself.
    """
    known: dict[int, tuple[int, int]] = {}
    too_deep = ValueError(f"its values are nested more than {deepest} deep")

    def measure(part: Any, left: int) -> tuple[int, int]:
        if isinstance(part, (str, bytes)):
            return 1 + len(part) // 100, 0
        if id(part) not in known:
            size, height = 1, 0
            for inner in parts(part):
                if left == 0:
                    raise too_deep
                inner_size, inner_height = measure(inner, left - 1)
                size, height = size + inner_size, max(height, 1 + inner_height)
            known[id(part)] = size, height
        if known[id(part)][1] > left:
            raise too_deep
        return known[id(part)]

    if measure(value, deepest)[0] > most:
        raise ValueError(f"it holds more than {most} values")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
