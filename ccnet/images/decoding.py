"""Decoding of one image, given as a file, its content, array or tensor, to RGB."""

import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.files import irregularity, is_url, user_path
from ccnet.images.arrays import read_array, samples_of
from ccnet.images.content import BinaryFile, read_content
from ccnet.images.formats import UNREADABLE, quiet
from ccnet.images.profiles import to_srgb
from ccnet.images.samples import Samples, read_file, read_image
from ccnet.schema import reason_of, shown, shown_name

logger = logging.getLogger(__name__)

SIZE_LIMIT = "PIL.Image.MAX_IMAGE_PIXELS, or --memory-limit of ccnet predict"
"""What bounds the size of a picture."""

FileLike = Union[
    str, os.PathLike[str], Image.Image, bytes, bytearray, "memoryview[int]", BinaryFile
]
"""An image that is a file, its content, or what Pillow made of it."""

ImageLike = Union[FileLike, "np.ndarray[Any, Any]", Tensor]

_SINGLE = (str, os.PathLike, Image.Image, bytes, bytearray, memoryview, Mapping, Set)
"""Types that are no list of images, though some can be iterated over."""


def images_of(given: object) -> Iterable[Any] | None:
    """Returns the images of a list, an iterator or a batch; None if it is no such thing."""
    if isinstance(given, (Tensor, np.ndarray)):
        return given if given.ndim == 4 else None
    is_list = isinstance(given, Iterable) and not isinstance(given, _SINGLE)
    return given if is_list and not hasattr(given, "read") else None  # type: ignore[return-value]


def decode_image(image: ImageLike) -> Tensor:
    """Decodes one image into an RGB tensor, as a viewer shows it.

    Files are recognised by their content. The first frame is taken, EXIF orientation applied, and
    an embedded colour profile converted to sRGB. Transparent parts are blended over white; a fourth
    band that is not declared as opacity is left out, and so, with a warning, is one that is
    transparent everywhere. Grey, palette and CMYK become RGB, and 1 to 16
    bits per sample become 8: their full range, not the range of the values. If these use less than
    an eighth of it, a warning is logged, once per file: scale such values and pass the array.

    Args:
        image: a path or a file: URL; the bytes of a file; a file opened in binary mode, read from
            its start, or from where it is if it cannot seek; a PIL image; an array (H, W) or
            (H, W, C); or a tensor (H, W) or (C, H, W). C is 1 (grey), 3 (RGB), or with opacity 2
            or 4. Arrays and tensors are uint8 in 0..255, uint16 in 0..65535, or floating point in
            0..1, and give what a file of theirs would.

    Returns:
        (3, H, W), uint8, RGB in 0..255; on the device of `image` if it is a tensor, else the CPU.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the file cannot be read as an image; if it is a URL of another machine; or if
            the shape, dtype or range of an array or tensor is wrong.
    """
    if isinstance(image, (Tensor, np.ndarray)):
        pixels, is_deep = read_array(image)
        if not is_deep and len(pixels) in (1, 3):
            return pixels.expand(3, -1, -1)
        noun = "a tensor" if isinstance(image, Tensor) else "an array"
        return _from_samples(samples_of(pixels, is_deep), noun).to(pixels.device)
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or "the PIL image")
        return _decode(partial(read_image, image), name)
    if isinstance(image, (str, os.PathLike)):
        path = _picture_path(image)
        return _decode(partial(read_file, path), str(path))
    if isinstance(image, (bytes, bytearray, memoryview)):
        content = bytes(image)  # of a view that skips some, too
        return _decode(
            partial(read_file, io.BytesIO(content)), f"the content of {len(content)} bytes"
        )
    if hasattr(image, "read"):
        content, name = read_content(image)
        return _decode(partial(read_file, io.BytesIO(content)), name)
    raise ValueError(
        "an image must be a path, the bytes of a file, a binary file, a PIL image, an array or a "
        f"tensor, not {_advice(image)}"
    )


def check_is_file(path: Path) -> None:
    """Raises an error unless there is a regular file: a pipe would be waited for without end.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if there is something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"no image at {path}")
    if problem := irregularity(path):
        raise ValueError(f"{path} cannot be read as an image: {problem}")


def _picture_path(image: str | os.PathLike[str]) -> Path:
    """The path of a picture, which is there."""
    given = os.fsdecode(image)
    if not given:
        raise ValueError("the path of an image must not be empty")
    path = user_path(given)
    problem: OSError | ValueError | None = None
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # too long, with zeros in it, or not to be looked at
        exists, problem = False, error
    is_long = len(given) > 1000 or "\0" in given
    if not exists and (is_long or given.startswith("data:")):
        raise ValueError(
            f"{shown(given)} is no path; pass the content of a file as bytes, for example what "
            "base64.b64decode makes of a text, or of that after the comma of a data: URL"
        )
    if not exists and is_url(str(path)):
        raise ValueError(
            f"{shown_name(given)} is a URL: download the image first and pass its path, or pass "
            "its bytes, for example urllib.request.urlopen(url).read()"
        )
    if problem is not None:
        reason = getattr(problem, "strerror", None) or reason_of(problem)
        raise ValueError(f"{shown(given)} cannot be read as an image: {reason}") from problem
    if path.is_dir():
        raise ValueError(
            f"{path} cannot be read as an image: it is a folder; pass its pictures as a list, for "
            'example sorted(pathlib.Path(folder).glob("*.jpg"))'
        )
    check_is_file(path)
    return path


def _decode(read: Callable[[], Samples], name: str) -> Tensor:
    try:
        with quiet():
            return _from_samples(read(), name)
    except UNREADABLE as error:
        if isinstance(error, MemoryError):
            reason = "it takes more memory than there is"
        elif isinstance(error, Image.DecompressionBombError):
            reason = f"{str(error).rstrip('.')}: if you trust it, raise {SIZE_LIMIT}"
        else:
            reason = reason_of(error)
        raise ValueError(f"{name} cannot be read as an image: {reason}") from error


def _advice(image: object) -> str:
    """What a value is that is no image, and what to do."""
    kind = type(image).__name__
    if image is None:
        return "None, which cv2.imread gives where there is no file that it can read"
    if isinstance(image, Mapping):
        return f"{kind}; pass its images as a list, as list(images.values()) makes it"
    if isinstance(image, Set):
        return f"{kind}, which has no order; pass its images as a list"
    if isinstance(image, Iterable):
        return f"{kind}; pass the images of a list one by one"
    if hasattr(image, "read_bytes"):
        return f"{kind}; image.read_bytes() gives the bytes of its file"
    if hasattr(image, "__array__"):
        return f"{kind}; numpy.asarray(image) makes an array of it"
    return kind


def _from_samples(samples: Samples, name: str) -> Tensor:
    if 0 in samples.color.size:
        raise ValueError("it has no pixels: its size is {} x {}".format(*samples.color.size))
    color = to_srgb(samples.color, samples.profile)
    if samples.is_deep:
        extrema = np.array([band.getextrema() for band in samples.color.split()])
        low, high = extrema.min(), extrema.max()
        if high - low < 32:
            _warn_once(
                f"{name} has more than 8 bits per sample, but its values use less than an eighth "
                f"of their range: with 8 bits they are the levels {low} to {high} of 0 to 255; "
                "if it is not meant so, scale the values to 0..1 and pass the array"
            )
    opacities = samples.alpha.getextrema() if samples.alpha is not None else (255, 255)
    if opacities == (0, 0):
        _warn_once(
            f"{name} is transparent everywhere: its opacity is left out, and the colours are taken "
            "as they are stored; if that is right, save it without opacity"
        )
    elif samples.alpha is not None and opacities != (255, 255):
        color = color.copy() if color is samples.color else color
        color.putalpha(samples.alpha)
        color = Image.alpha_composite(Image.new("RGBA", color.size, "white"), color)
        color = color.convert("RGB")
    bands = color.split()  # faster than a transpose from HWC in torch
    return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))


@lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    logger.warning("%s", message)
