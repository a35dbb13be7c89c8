"""Decoding of one image, given as a file, array or tensor, to RGB."""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.files import irregularity, user_path
from ccnet.images.formats import UNREADABLE, quiet
from ccnet.images.profiles import to_srgb
from ccnet.images.samples import Samples, read_file, read_image
from ccnet.schema import reason_of

logger = logging.getLogger(__name__)

SIZE_LIMIT = "PIL.Image.MAX_IMAGE_PIXELS, or --memory-limit of scripts/predict.py"
"""What bounds the size of a picture."""

ImageLike = Union[str, os.PathLike[str], Image.Image, "np.ndarray[Any, Any]", Tensor]


def decode_image(image: ImageLike) -> Tensor:
    """Decodes one image into an RGB tensor, as a viewer shows it.

    Files are recognised by their content. The first frame is taken, EXIF orientation applied, and
    an embedded colour profile converted to sRGB. Transparent parts are blended over white; a fourth
    band that is not declared as opacity is left out, and so, with a warning, is one that is
    transparent everywhere. Grey, palette and CMYK become RGB, and 1 to 16
    bits per sample become 8: their full range, not the range of the values. If these use less than
    an eighth of it, a warning is logged, once per file: scale such values and pass the array.

    Args:
        image: a path; a PIL image; an array (H, W), (H, W, 1) or (H, W, 3), RGB; or a tensor
            (H, W), (1, H, W) or (3, H, W), RGB. Arrays and tensors are uint8 in 0..255, or
            floating point in 0..1.

    Returns:
        (3, H, W), uint8, RGB in 0..255; on the device of `image` if it is a tensor, else the CPU.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the file cannot be read as an image, or the shape, dtype or range of an
            array or tensor is wrong.
    """
    if isinstance(image, Tensor):
        return _from_tensor(image, "tensor of shape (3, H, W)")
    if isinstance(image, np.ndarray):
        tensor = torch.from_numpy(np.array(image))
        channels_first = tensor.movedim(-1, 0) if tensor.dim() == 3 else tensor
        return _from_tensor(channels_first, "array of shape (H, W, 3)", shape=image.shape)
    if isinstance(image, Image.Image):
        return _from_samples(read_image(image), getattr(image, "filename", "") or "an image")
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            "an image must be a path, a PIL image, an array or a tensor, "
            f"not {type(image).__name__}; pass the images of a list one by one"
        )
    if str(image).startswith(("http://", "https://")):
        raise ValueError(f"{image} is a URL: download the image first and pass its path")
    path = user_path(image)
    check_is_file(path)
    try:
        with quiet():
            return _from_samples(read_file(path), str(path))
    except UNREADABLE as error:
        if isinstance(error, MemoryError):
            reason = "it takes more memory than there is"
        elif isinstance(error, Image.DecompressionBombError):
            reason = f"{str(error).rstrip('.')}: if you trust it, raise {SIZE_LIMIT}"
        else:
            reason = reason_of(error)
        raise ValueError(f"{path} cannot be read as an image: {reason}") from error


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
                "if it is not meant so, scale the values to 0..1 and pass the array instead of the "
                "file"
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


def _from_tensor(image: Tensor, expected: str, shape: Sequence[int] | None = None) -> Tensor:
    shape = tuple(shape or image.shape)
    if image.dim() == 4:
        raise ValueError(
            f"expected one image, not a batch of shape {shape}; pass a single one, such as x[0]"
        )
    if image.dim() == 2:
        image = image[None]
    if image.dim() != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"expected an RGB {expected}, not {shape}")
    image = image.detach()
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"a floating-point image must lie in 0..1, not {low:.6g}..{high:.6g}; "
                "scale it, or pass uint8 in 0..255 (a normalised batch goes to model(x) instead)"
            )
        image = image.mul(255).round().to(torch.uint8)
    elif image.dtype != torch.uint8:
        raise ValueError(f"an image must be uint8 or floating point, not {image.dtype}")
    return image.expand(3, -1, -1)
