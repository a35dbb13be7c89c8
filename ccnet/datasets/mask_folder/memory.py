"""Memory: what an earlier run read in a folder, for files that have not changed since."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from huggingface_hub import constants
from PIL import __version__ as pillow_version

from ccnet.files import atomic_write, file_state

SETTLED = 2.0
"""Seconds after which a file counts as written: its time changes if it is written once more."""

_FORMAT = f"survey 3, Pillow {pillow_version}"

Facts = TypeVar("Facts")


class Memory(Generic[Facts]):
    """Facts about the files of a folder, kept in a file below `HF_HOME`.

    A file is known by its path in the folder, its size, and its times and number in the file
    system: a copy may bring along the time at which it was written, but no others. A memory that is
    damaged, or from another version, is as good as none; so is one that cannot be written.

    Args:
        root: the folder.
        make: builds facts, a dataclass of JSON-able fields, from these fields.
    """

    def __init__(self, root: Path, make: Callable[..., Facts]) -> None:
        self.root, self.make, self.began = root, make, time.time()
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self.path = Path(constants.HF_HOME, "ccnet", "surveys", f"{name}.json")
        self._before: dict[str, Any] = self._read()
        self._now: dict[str, Any] = {}
        self._states: dict[Path, tuple[str, list[int] | None]] = {}

    def recall(self, path: Path) -> Facts | None:
        """Returns the facts about a file; None if there are none, or it has changed."""
        name, state = self._states[path] = self._state(path)
        if state is None or self._before.get(name, [None])[0] != state:
            return None
        self._now[name] = self._before[name]
        fields = self._before[name][1]
        return self.make(**{key: _as_tuple(value) for key, value in fields.items()})

    def keep(self, path: Path, facts: Facts) -> None:
        """Keeps facts read in a file since it was recalled, unless it was just being written."""
        name, state = self._states[path]
        if state is not None and state[1] < (self.began - SETTLED) * 1e9:
            self._now[name] = [state, asdict(facts)]  # type: ignore[call-overload]

    def save(self) -> None:
        """Writes what was kept or recalled, if anything is new."""
        if self._now == self._before or not self._now:
            return
        content = json.dumps({"format": _FORMAT, "files": self._now}, separators=(",", ":"))
        try:
            with atomic_write(self.path) as temporary:
                temporary.write_text(f"{_digest(content)}\n{content}", encoding="utf-8")
        except OSError:
            pass  # as in a home folder that is read-only

    def _read(self) -> dict[str, Any]:
        try:
            digest, _, content = self.path.read_text(encoding="utf-8").partition("\n")
        except (OSError, ValueError):
            return {}
        if digest != _digest(content):
            return {}
        memory = json.loads(content)
        return memory["files"] if memory["format"] == _FORMAT else {}

    def _state(self, path: Path) -> tuple[str, list[int] | None]:
        return path.relative_to(self.root).as_posix(), list(file_state(path)) or None


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
