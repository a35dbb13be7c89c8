"""PNG files of results, marked: with what made them, and of what, so that none passes for another.

Source: PNG (https://www.w3.org/TR/png-3/), chunks IHDR, tEXt and IEND.
"""

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ccnet.files import atomic_write

KEYWORD, PROGRAM = "Software", "ccnet"
"""The text in each file, by a keyword of the PNG specification."""

SIGNATURE, END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
"""The first and the last bytes of a PNG."""

MOST_CHUNKS, MOST_TEXT = 64, 2**16
"""How many chunks before the pixels, and bytes in one, are read: results have far fewer."""


@dataclass(frozen=True)
class Origin:
    """What a result is of, and what made it; no paths, since results get published.

    Attributes:
        picture: the SHA-256 of the picture's file; empty if that is not known.
        weights: the SHA-256 of tensors and configuration of the network, likewise.
        protocol: the options of inference, likewise.
    """

    picture: str = ""
    weights: str = ""
    protocol: str = ""

    @property
    def digest(self) -> str:
        """Hexadecimal digits that stand for all of it: of the SHA-256 of its lines the first 16."""
        return hashlib.sha256("\n".join(astuple(self)).encode()).hexdigest()[:16]


ORIGIN_KEYWORDS = ("Picture SHA-256", "Weights SHA-256", "Inference")
"""The texts with the fields of `Origin`."""


def texts_of(origin: Origin | None) -> dict[str, str]:
    """What a result says by keyword: which program made it, and of what."""
    values = zip(ORIGIN_KEYWORDS, astuple(origin or Origin()), strict=True)
    return {KEYWORD: PROGRAM} | {keyword: value for keyword, value in values if value}


def origin_in(texts: Mapping[str, object], path: Path) -> Origin:
    """Reads what `texts_of` made.

    Raises:
        ValueError: if the texts of the file at this path are of no result.
    """
    if texts.get(KEYWORD) != PROGRAM:
        raise ValueError(
            f"{path} is not replaced, since it is no result of this version's: move it away, or "
            "choose another folder for the results"
        )
    return Origin(*(str(texts.get(keyword, "")) for keyword in ORIGIN_KEYWORDS))


def save_marked(
    image: Image.Image,
    path: str | os.PathLike[str],
    origin: Origin | None = None,
    *,
    replace: bool = True,
    **options: Any,
) -> None:
    """Writes a PNG that says what made it.

    Args:
        image: to write.
        path: of the file.
        origin: which the file tells; `read_origin` reads it.
        replace: whether to replace a file at `path`.
        options: of Pillow's writer.

    Raises:
        FileExistsError: if there is something at `path`, and it is not to be replaced.
    """
    text = PngInfo()
    for keyword, value in texts_of(origin).items():
        text.add_text(keyword, value)
    with atomic_write(path, replace=replace) as temporary:
        image.save(temporary, pnginfo=text, **options)


def read_origin(path: Path) -> Origin | None:
    """Reads what a file of `save_marked` is of, in some 50 microseconds: no pixels are read.

    Returns:
        None if there is nothing at the path.

    Raises:
        ValueError: if there is something else, or such a file is not complete.
    """
    if not os.path.lexists(path):
        return None
    try:
        texts = _texts(path)
    except FileNotFoundError:  # gone meanwhile
        return None
    except OSError:
        texts = {}
    return origin_in(texts, path)


def _texts(path: Path) -> dict[str, str]:
    """The texts before the pixels of a complete PNG, by keyword; none of any other file."""
    if not path.is_file():  # a pipe would be waited for without end
        return {}
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return {}
        texts = _texts_before_pixels(file)
        file.seek(-min(len(END), file.seek(0, os.SEEK_END)), os.SEEK_END)
        return texts if file.read() == END else {}


def _texts_before_pixels(file: IO[bytes]) -> dict[str, str]:
    texts = {}
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" or size > MOST_TEXT:
            break
        content = file.read(size + 4)[:-4]
        if kind == b"tEXt":
            keyword, _, text = content.decode("latin-1").partition("\0")
            texts[keyword] = text
    return texts
