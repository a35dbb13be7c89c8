"""Arrays and tensors as images: which are one, and what would make another one."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.images.samples import Samples

ArrayLike = Tensor | np.ndarray[Any, Any]

_OVERSHOOT = 0.25
"""How far interpolation or noise may take an image of 0..1 beyond it."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    planes = planes_of(image)
    if planes.dim() != 3 or planes.shape[0] not in (1, 2, 3, 4) or 0 in planes.shape:
        raise ValueError(_wrong_shape(image))
    return to_uint8(planes), planes.dtype == torch.uint16


def planes_of(image: ArrayLike) -> Tensor:
    """Returns an array (H, W, C), or a tensor (C, H, W), as a tensor (C, H, W); C is 1 for (H, W).

    Its dtype is one that `to_uint8` takes. Other numbers of axes stay, but there are not four.

    Raises:
        ValueError: if the dtype is another, it is a batch, or it has no values; says what would do.
    """
    _check_storage(image)
    _check_dtype(image)
    if image.ndim == 4:
        raise ValueError(
            f"expected one image, not a batch of shape {tuple(image.shape)}; pass a single one, "
            "such as x[0]"
        )
    if isinstance(image, np.ndarray):
        dtype = np.dtype(np.float64) if image.dtype.itemsize > 8 else image.dtype
        tensor = torch.from_numpy(np.array(image, dtype.newbyteorder("=")))
        tensor = tensor.movedim(-1, 0) if tensor.dim() == 3 else tensor
    else:
        tensor = image.detach().as_subclass(Tensor)
    return tensor[None] if tensor.dim() == 2 else tensor


def to_uint8(samples: Tensor) -> Tensor:
    """Returns samples in 0..255, of those, of uint16, or of floating point in 0..1.

    Raises:
        ValueError: if values are outside, by more than rounding; says what would do.
    """
    if samples.is_floating_point():
        low, high = samples.min().item(), samples.max().item()
        rounding = max(1e-5, torch.finfo(samples.dtype).eps)
        if not (low >= -rounding and high <= 1 + rounding):
            raise ValueError(
                f"a floating-point image must lie in 0..1, not {low:.8g}..{high:.8g}; "
                f"{_scaling(low, high)}"
            )
        return samples.mul(255).round_().clamp_(0, 255).to(torch.uint8)
    if samples.dtype == torch.uint16:
        return (samples.to(torch.int32) >> 8).to(torch.uint8)
    return samples


def samples_of(pixels: Tensor, is_deep: bool) -> Samples:
    """Returns what `read_array` gives as the samples of a picture, with its opacity apart."""
    bands = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels.cpu().numpy()]
    alpha = bands.pop() if len(bands) in (2, 4) else None
    color = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
    return Samples(color, alpha, None, is_deep)


def _check_storage(image: ArrayLike) -> None:
    if isinstance(image, np.ndarray):
        return
    if image.is_meta:
        raise ValueError("an image must have values, which a tensor on the meta device has not")
    if image.layout != torch.strided:
        raise ValueError(f"an image must be dense, not {image.layout}; pass image.to_dense()")


def _check_dtype(image: ArrayLike) -> None:
    name = str(image.dtype).removeprefix("torch.")
    is_array = isinstance(image, np.ndarray)
    if isinstance(image, np.ndarray):
        kind, is_known = image.dtype.kind, image.dtype.kind == "f" or image.dtype.char in "BH"
    else:
        is_known = image.dtype in (*_FLOATS, torch.uint8, torch.uint16)
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
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return "image.clip(0, 1) cuts off what is beyond"
    for most in (255, 65535):
        if low >= 0 and high <= most:
            return f"scale it: image / {most} if its values are of 0..{most}"
    if low >= -1 and high <= 1:
        return "scale it: (image + 1) / 2 if its values are of -1..1"
    return "scale it, or pass uint8 in 0..255 (a normalised batch goes to model(x) instead)"
