"""Pins: where registered weights are on the Hugging Face Hub, to the commit and the hash.

They are all in pins.json beside this module. The registry reads it, and publishing writes it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

PINS = Path(__file__).with_name("pins.json")

Pin: TypeAlias = dict[str, str]
"""`repo_id`, `revision`, `filename` and `sha256` of a file."""

REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

FIELDS = {
    "repo_id": (REPO_ID, '"owner/name"'),
    "revision": (re.compile("[0-9a-f]{40}"), "a commit: 40 hexadecimal digits, no branch"),
    "filename": (re.compile(r"[\w./-]+\.safetensors", re.ASCII), "a .safetensors file"),
    "sha256": (re.compile("[0-9a-f]{64}"), "the whole hash: 64 hexadecimal digits"),
}


def read_pins(path: Path = PINS) -> dict[str, Pin]:
    """Reads the pins of a file, by the full names of the weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file does not hold pins; names the wrong value.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping by names, not a {type(content).__name__}")
    for name, pin in content.items():
        try:
            check_pin(pin)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return content


def check_pin(pin: Any) -> None:
    """Raises a ValueError, with the wrong value and the right form, unless this is a pin."""
    if not isinstance(pin, Mapping) or pin.keys() != FIELDS.keys():
        raise ValueError(f"a pin has {', '.join(FIELDS)}, not {pin!r}")
    for field, (form, words) in FIELDS.items():
        value = pin[field]
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ValueError(f"{field} must be {words}, not {value!r}")
