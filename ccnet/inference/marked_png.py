"""PNG files of results, marked: so they are told from files that must not be written over."""

import os
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ccnet.files import atomic_write
from ccnet.images import UNREADABLE

KEYWORD, PROGRAM = "Software", "ccnet"
"""The text in each file, by a keyword of the PNG specification."""


def save_marked(image: Image.Image, path: str | os.PathLike[str], **options: Any) -> None:
    """Writes a PNG that says what made it; `options` are those of Pillow's writer."""
    text = PngInfo()
    text.add_text(KEYWORD, PROGRAM)
    with atomic_write(path) as temporary:
        image.save(temporary, pnginfo=text, **options)


def check_replaceable(path: Path) -> None:
    """Raises ValueError if there is something at the path that `save_marked` has not written."""
    if os.path.lexists(path) and not _is_marked(path):
        raise ValueError(
            f"{path} is not replaced, since it is no result of this version's: move it away, or "
            "choose another folder for the results"
        )


def _is_marked(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return bool(image.info.get(KEYWORD) == PROGRAM)
    except UNREADABLE:
        return False
