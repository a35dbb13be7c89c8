"""Pinning: writes what was uploaded into the file of pins that the registry reads."""

import json
from collections.abc import Mapping
from pathlib import Path

from ccnet.files import atomic_write
from ccnet.locks import FolderLock
from ccnet.weights.pins import FIELDS, PINS, check_pin, read_pins


def write_pin(name: str, pin: Mapping[str, str], path: Path = PINS) -> None:
    """Adds a pin to a file, which may be a new one, or replaces the one of these weights.

    Several programs may do so at once.

    Raises:
        OSError: if the file cannot be written; the older one stays.
        ValueError: if this is no pin, or the file has none.
    """
    check_pin(pin)
    with FolderLock(path.parent):
        pins = {
            **(read_pins(path) if path.exists() else {}),
            name: {field: pin[field] for field in FIELDS},
        }
        text = json.dumps(pins, indent=2, sort_keys=True) + "\n"
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
