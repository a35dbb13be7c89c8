"""Classes file: what `classes.json` says of a folder's classes and masks."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ccnet.class_fields import FIELDS, check_fields, colors_of, whole_numbers
from ccnet.classes import IGNORE_INDEX, Color, LabelSet
from ccnet.files import irregularity
from ccnet.schema import reason_of, shown

ORIENTATION = "mask_orientation"
"""The field that tells which pixels masks are drawn on."""

ORIENTATIONS = ("upright", "stored")
"""Its values: the image as viewers turn it by its EXIF orientation, or the pixels as stored."""

IGNORE_COLORS = "ignore_colors"
"""The field of the colours that mean "no class", in masks that hold colours."""

_FIELDS = (*FIELDS, IGNORE_COLORS, ORIENTATION)

LARGEST = 2**20
"""Bytes that are read; 255 names of some thousand letters fit."""


@dataclass(frozen=True)
class ClassesFile:
    """What the file says; nothing, if there is none.

    Attributes:
        fields: of a label set, all optional: categories, colors, label_ids, ignore.
        orientation: one of `ORIENTATIONS`, or None if the file does not say.
        ignore_colors: colours of masks that mean "no class".
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    orientation: str | None = None
    ignore_colors: tuple[Color, ...] = ()

    @classmethod
    def read(cls, root: Path) -> "ClassesFile":
        """Reads `classes.json` in a folder.

        Raises:
            ValueError: if the file cannot be read or its fields are wrong.
        """
        path = root.expanduser() / "classes.json"
        if not path.exists() and not path.is_symlink():
            return cls()
        try:
            content = _read_json(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} cannot be read as JSON: {reason_of(error)}") from error
        try:
            return cls._parse(content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {reason_of(error)}") from error

    @classmethod
    def _parse(cls, content: Any) -> "ClassesFile":
        if isinstance(content, list):
            content = {"categories": content}
        if isinstance(content, str):
            content = LabelSet.from_config(content).to_config()
        if not isinstance(content, Mapping):
            raise ValueError(
                'it must be a list of names, or an object such as {"categories": [...], '
                f'"colors": [...]}}, not {shown(content)}'
            )
        check_fields("it", content, _FIELDS)
        fields = dict(content)
        orientation = fields.pop(ORIENTATION, None)
        if orientation not in (*ORIENTATIONS, None):
            raise ValueError(
                f"{ORIENTATION} must be 'upright' or 'stored', not {shown(orientation)}"
            )
        found = cls(fields, orientation, colors_of(IGNORE_COLORS, fields.pop(IGNORE_COLORS, ())))
        label_ids, colors = fields.get("label_ids", ()), fields.get("colors")
        count = len(whole_numbers("label_ids", label_ids))
        if not count and isinstance(colors, list):
            count = len(colors)
        found.label_set([f"class {number}" for number in range(count or 1)])
        return found

    @property
    def names_classes(self) -> bool:
        """Whether the file has categories."""
        return "categories" in self.fields

    @property
    def ignore(self) -> tuple[int, ...]:
        """The numbers that mean "no class"."""
        return tuple(self.fields.get("ignore", (IGNORE_INDEX,)))

    def label_set(self, categories: Sequence[str] = (), label_ids: Sequence[int] = ()) -> LabelSet:
        """The label set of the file; the arguments are for what it does not say.

        Raises:
            ValueError: if the fields do not fit together.
        """
        usual = {"categories": categories, "label_ids": label_ids, "ignore": [IGNORE_INDEX]}
        if "categories" in self.fields:
            del usual["label_ids"]
        return LabelSet.from_config({**usual, **self.fields})

    def changed(self, **fields: Any) -> str:
        """Says what to write into the file: all that it says, but for these fields.

        Args:
            fields: new values by names; None leaves a field out.
        """
        own = {IGNORE_COLORS: self.ignore_colors or None, ORIENTATION: self.orientation}
        said = {**self.fields, **own, **fields}
        said = {name: said[name] for name in _FIELDS if said.get(name) is not None}
        return f"{json.dumps(said, ensure_ascii=False)} in classes.json"


def _read_json(path: Path) -> Any:
    """Reads JSON in which nothing is said twice, and numbers are numbers.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is too large, or holds anything else.
    """
    if problem := irregularity(path):
        raise ValueError(problem)
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    try:
        return json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_once,
            parse_int=_whole_number,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text: {error}") from error
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise ValueError(f"it has {twice[0]!r} twice")
    return dict(pairs)


def _whole_number(digits: str) -> int:
    if len(digits) > 10:
        raise ValueError(f"{digits[:10]}... is no number of a class, with {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
