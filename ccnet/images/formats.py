"""Which files are pictures, and how Pillow opens them: by content, quietly, with named errors."""

import ctypes
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError, _imaging

NOT_PICTURES = {
    *("EPS", "WMF"),  # programs and drawings, which other programs would have to run
    *("MPEG", "IPTC"),  # video; metadata, from which Pillow opens further files of any format
    *("BUFR", "FITS", "GRIB", "HDF5", "MCIDAS", "SPIDER"),  # measurements, without a white
}
"""Formats of Pillow that are never opened."""

ISO_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIF"),
    **dict.fromkeys((b"mif1", b"msf1"), "HEIF"),
}
"""Formats by the major brand of the file, its bytes 8 to 12."""

MISSING = {
    "AVIF": "AVIF pictures need Pillow 11.3 or newer: pip install --upgrade pillow",
    "HEIF": "HEIC pictures need the package pillow-heif: pip install 'ccnet-pytorch[heif]'",
}
"""What to do where a format of `ISO_BRANDS` has no reader."""

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, AssertionError, AttributeError, EOFError),
    *(LookupError, MemoryError, RuntimeError, TypeError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""Exceptions that Pillow raises for an unreadable file.

Its readers meet damaged files with whatever their code happens to raise, so these are all built-in
errors: of memory too, which a damaged size claims. What ends the process is none of them.
"""


def picture_formats() -> list[str]:
    """Pillow's names of the formats that are opened, in the order in which they are tried."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_PICTURES]


@cache
def picture_suffixes() -> frozenset[str]:
    """File name suffixes of pictures, in lower case: those of `picture_formats`, HEIC and AVIF."""
    formats = {*picture_formats(), "MPO"}  # which Pillow opens as JPEG
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    return frozenset(known | {".avif", ".heic", ".heif", ".hif"})


def is_picture_name(path: str | Path) -> bool:
    """Whether a file name has the suffix of a picture, in upper or lower case."""
    return Path(path).suffix.lower() in picture_suffixes()


def open_picture(picture: Path | io.BytesIO) -> Image.Image:
    """Opens a picture by its content, whatever its suffix; its pixels are not read yet.

    Args:
        picture: its path, or the content of its file.

    Raises:
        ValueError: if the format needs a package that is missing.
        UnidentifiedImageError: if the file is no picture.
    """
    try:
        return Image.open(picture, formats=picture_formats())
    except UnidentifiedImageError:
        with picture.open("rb") if isinstance(picture, Path) else nullcontext(picture) as file:
            file.seek(0)
            head = file.read(12)
        kind = ISO_BRANDS.get(head[8:]) if head[4:8] == b"ftyp" else None
        if kind == "HEIF":
            _register_heif()
        if kind is None:
            reason = "it has no format of a picture that Pillow knows" if head else "it is empty"
            raise UnidentifiedImageError(reason) from None
        if not _has_reader(kind):
            raise ValueError(MISSING[kind]) from None
        try:
            return Image.open(picture, formats=[kind])
        except UnidentifiedImageError:
            reason = f"it is damaged, or {kind} of a kind that Pillow does not read"
            raise UnidentifiedImageError(reason) from None


def _has_reader(kind: str) -> bool:
    """Whether Pillow reads a format; it knows AVIF without its suffix where it is built without."""
    return kind in picture_formats() and kind in Image.registered_extensions().values()


def _register_heif() -> None:
    """Adds the reader of HEIC to Pillow's, on the first such file, if it is installed."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        if "HEIF" not in Image.OPEN:
            register_heif_opener()


class _Quiet:
    """Silences what Pillow and libtiff say of damaged files, for as long as any thread is inside.

    They name no file, and the error that follows does. Filters of warnings are of the whole
    process, so that they are set by the first thread that enters and restored by the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                self._undo.enter_context(_silent_libtiff())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._undo.close()


quiet = _Quiet()


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Takes away the handler with which Pillow's libtiff writes errors to the standard error."""
    set_handler = _libtiff_set_handler()
    previous = set_handler(None) if set_handler else None
    try:
        yield
    finally:
        if set_handler:
            set_handler(previous)


@cache
def _libtiff_set_handler() -> Any:
    """The function TIFFSetErrorHandler; None where Pillow has libtiff without names in it."""
    try:
        library = ctypes.CDLL(_imaging.__file__)  # finds what it is linked with, too
        set_handler = library.TIFFSetErrorHandler
    except (AttributeError, OSError):
        return None
    set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    return set_handler
