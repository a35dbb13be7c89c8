"""Lines of records: what each says of itself, and which of several stay."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

_STRING = rb'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    rb'\{"name": (?P<name>%b), "picture": (?P<picture>%b), '
    rb'(?:"made_by": "(?P<made_by>[0-9a-f]*)", )?(?:"written": (?P<written>\d+\.\d+), )?'
    rb'(?P<error>"error")?.*\}\n' % (_STRING, _STRING)
)
"""A line, whose first fields are always these."""

_SHORTEST = b'{"name": "", "picture": "", }\n'
"""Its end completes every line that was cut."""

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What some programs take for the end of a line, or no text encodes."""


def encode(value: Any) -> bytes:
    """Encodes a value as JSON, in UTF-8 and in one line."""
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


@dataclass(frozen=True)
class Line:
    """A line, by what it says first.

    Attributes:
        content: all of it.
        name: of the results, encoded.
        picture: its path, encoded.
        made_by: `Origin.digest` of the results; empty if it does not say so, as of an error.
        written: when they were, in seconds since 1970; 0 if it does not say so.
        is_error: whether there are no results.
    """

    content: bytes
    name: bytes
    picture: bytes
    made_by: bytes
    written: float
    is_error: bool

    @classmethod
    def parse(cls, content: bytes) -> "Line | None":
        """Reads a line; None if it is none of these, or was cut."""
        if (found := _LINE.fullmatch(content)) is None:
            return None
        name, picture, made_by, written, error = found.groups()
        return cls(content, name, picture, made_by or b"", float(written or 0), bool(error))


def read_lines(file: IO[bytes]) -> Iterator[tuple[int, Line]]:
    """Yields every line with its place in a file, but the last one if it was cut.

    Raises:
        ValueError: if there is a line that is none of these.
    """
    place = 0
    for content in file:
        if (line := Line.parse(content)) is not None:
            yield place, line
        elif not _may_be_cut(content):
            raise ValueError("is no record of results of this version's")
        place += len(content)


def _may_be_cut(content: bytes) -> bool:
    """Whether a line of these can begin so."""
    if content.endswith(b"\n"):
        return False
    ends = (_SHORTEST[place:] for place in range(len(_SHORTEST)))
    return any(_LINE.fullmatch(content + end) for end in ends)


def newest(lines: Iterable[Line]) -> list[Line]:
    """Returns the lines that stay: the newest results, and errors since, one for each picture.

    Args:
        lines: all of one name; of two of one time the latter is newer.
    """
    stay: list[Line] = []
    for line in sorted(lines, key=lambda line: line.written):
        others = [one for one in stay if line.is_error and one.picture != line.picture]
        stay = [*others, line]
    return stay
