"""JPEG 2000: what its header says, and Pillow does not.

Source: ITU-T T.800 (JPEG 2000 core coding system), annexes A and I.
"""

import struct
from typing import IO

HEADER_BYTES = 2**16
START = b"\xff\x4f\xff\x51"
"""The markers with which the coded picture starts, the second of which gives its size."""


def has_opacity(file: IO[bytes]) -> bool:
    """Whether a channel is defined as opacity; a fourth band may be near infrared, too."""
    header, _, _ = _parts(file)
    definitions = header.partition(b"cdef")[2]
    count = int.from_bytes(definitions[:2], "big")
    channels = struct.iter_unpack(">HHH", definitions[2 : 2 + 6 * count])
    return any(kind in (1, 2) for _, kind, _ in channels)


def check_depth(file: IO[bytes]) -> None:
    """Refuses colours of more than 8 bits: Pillow rounds white up to the next number, 0: black.

    Raises:
        ValueError: if a picture of several bands has more than 8 bits per sample.
    """
    _, _, size = _parts(file)
    if len(size) < 39:
        return
    (bands,) = struct.unpack(">H", size[36:38])
    bits = (size[38] & 0x7F) + 1
    if bands > 1 and bits > 8:
        raise ValueError(
            f"JPEG 2000 of {bands} bands with {bits} bits per sample is not supported; "
            "save it with 8 bits, or as a TIFF or PNG of 16"
        )


def _parts(file: IO[bytes]) -> tuple[bytes, bytes, bytes]:
    """The beginning of a file: before the coded picture, its markers, and what follows them."""
    file.seek(0)
    return file.read(HEADER_BYTES).partition(START)
