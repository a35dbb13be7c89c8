"""Arrays and tensors as images: which are one, and what would make another one."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.images.samples import Samples

ArrayLike = Tensor | np.ndarray[Any, Any]


def read_array(image: ArrayLike) -> tuple[Tensor, bool]:
    """Reads the samples of an array (H, W) or (H, W, C), or of a tensor (H, W) or (C, H, W).

    Args:
        image: C is 1 (grey), 2 (grey and opacity), 3 (RGB) or 4 (RGB and opacity); uint8, uint16 in
            0..65535, or floating point in 0..1.

    Returns:
        (C, H, W), uint8; and whether there were more bits, as integers.

    Raises:
        ValueError: if shape, dtype or range is another; says what would do.
    """
    _check_dtype(image)
    shape = tuple(image.shape)
    if len(shape) == 4:
        raise ValueError(
            f"expected one image, not a batch of shape {shape}; pass a single one, such as x[0]"
        )
    if isinstance(image, np.ndarray):
        dtype = np.dtype(np.float64) if image.dtype.itemsize > 8 else image.dtype
        tensor = torch.from_numpy(np.array(image, dtype.newbyteorder("=")))
        tensor = tensor.movedim(-1, 0) if tensor.dim() == 3 else tensor
    else:
        tensor = image.detach()
    if tensor.dim() == 2:
        tensor = tensor[None]
    if tensor.dim() != 3 or tensor.shape[0] not in (1, 2, 3, 4) or 0 in shape:
        raise ValueError(_wrong_shape(image))
    return to_uint8(tensor), tensor.dtype == torch.uint16


def to_uint8(samples: Tensor) -> Tensor:
    """Returns samples in 0..255, of those, of uint16, or of floating point in 0..1.

    Raises:
        ValueError: if the dtype is another, or values are outside; says what would do.
    """
    _check_dtype(samples)
    if samples.is_floating_point():
        low, high = samples.min().item(), samples.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"a floating-point image must lie in 0..1, not {low:.6g}..{high:.6g}; "
                f"{_scaling(low, high)}"
            )
        return samples.mul(255).round().to(torch.uint8)
    if samples.dtype == torch.uint16:
        return (samples.to(torch.int32) >> 8).to(torch.uint8)
    return samples


def samples_of(pixels: Tensor, is_deep: bool) -> Samples:
    """Returns what `read_array` gives as the samples of a picture, with its opacity apart."""
    bands = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels.cpu().numpy()]
    alpha = bands.pop() if len(bands) in (2, 4) else None
    color = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
    return Samples(color, alpha, None, is_deep)


def _check_dtype(image: ArrayLike) -> None:
    name = str(image.dtype).removeprefix("torch.")
    is_array = isinstance(image, np.ndarray)
    if isinstance(image, np.ndarray):
        kind, is_known = image.dtype.kind, image.dtype.kind == "f" or image.dtype.char in "BH"
    else:
        is_known = image.is_floating_point() or image.dtype in (torch.uint8, torch.uint16)
        kind = "b" if name == "bool" else "i" if name.startswith(("int", "uint")) else "c"
    if is_known:
        return
    convert = "image.astype(numpy.{})" if is_array else "image.to(torch.{})"
    advice = "convert it to one of these"
    if kind == "b":
        advice = f"{convert.format('uint8')} * 255 makes True white"
    elif kind in "iu" and 0 not in image.shape:
        low, high = int(image.min()), int(image.max())
        fitting = [one for one, most in (("uint8", 255), ("uint16", 65535)) if high <= most]
        cure = convert.format(fitting[0]) if low >= 0 and fitting else "scale them to 0..1"
        advice = f"its values are {low}..{high}: {cure}"
    elif kind in "OUS":
        advice = "pass several images as a list, which list(image) makes"
    raise ValueError(f"an image must be uint8, uint16 or floating point, not {name}; {advice}")


def _wrong_shape(image: ArrayLike) -> str:
    is_array = isinstance(image, np.ndarray)
    noun = "array of shape (H, W, 3)" if is_array else "tensor of shape (3, H, W)"
    shape = tuple(image.shape)
    channels, other = (-1, 0) if is_array else (0, -1)
    if 0 in shape:
        advice = "it has no pixels"
    elif len(shape) == 1:
        advice = "if it holds the bytes of a file, pass image" + (
            ".tobytes()" if is_array else ".numpy().tobytes()"
        )
    elif len(shape) != 3:
        advice = "pass several images as a list, or as one batch of four axes"
    elif shape[other] <= 4:
        move = "transpose(1, 2, 0)" if is_array else "permute(2, 0, 1)"
        advice = f"image.{move} has its channels {'last' if is_array else 'first'}"
    else:
        three = "image[..., :3]" if is_array else "image[:3]"
        advice = f"choose three of its {shape[channels]} channels, such as {three}"
    return f"expected an RGB {noun}, not {shape}; {advice}"


def _scaling(low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "scale it without values that are not finite, as numpy.nan_to_num replaces them"
    for most in (255, 65535):
        if low >= 0 and high <= most:
            return f"scale it: image / {most} if its values are of 0..{most}"
    if low >= -1 and high <= 1:
        return "scale it: (image + 1) / 2 if its values are of -1..1"
    return "scale it, or pass uint8 in 0..255 (a normalised batch goes to model(x) instead)"
