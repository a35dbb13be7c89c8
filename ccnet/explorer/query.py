"""Queries: the values in the address of a request."""

from collections.abc import Mapping


class Query:
    """What a request asks for, checked.

    Args:
        given: values by their names, as in the address.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        """Returns a value; ValueError if it is not given."""
        if name not in self._given:
            raise ValueError(f"the request does not say {name}")
        return self._given[name]

    def number(self, name: str) -> int:
        """Returns a whole number; ValueError if it is none."""
        text = self.text(name)
        if not (text.isascii() and text.removeprefix("-").isdecimal()) or len(text) > 9:
            raise ValueError(f"{name} must be a whole number, not {text[:20]!r}")
        return int(text)

    def network(self) -> tuple[str, int | None]:
        """Returns the name of weights and a number of loops, None for theirs."""
        loops = self.number("loops") if self._given.get("loops") else None
        return self.text("weights"), loops
