"""Images of other channels than RGB: given as arrays or tensors, for networks that take them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.images.arrays import planes_of, to_uint8
from ccnet.images.decoding import ImageLike, decode_image


def decode_channels(image: ImageLike, channels: int) -> Tensor:
    """Decodes one image of a number of channels; three are RGB, as for `decode_image`.

    Args:
        image: for three channels, anything that `decode_image` accepts. Else an array (H, W, C), or
            a tensor (C, H, W), uint8 in 0..255, uint16 in 0..65535, or floating point in 0..1. For
            one channel also (H, W), and any file, content of a file or PIL image, which is taken as
            grey: the luminance of what `decode_image` gives.
        channels: C.

    Returns:
        (C, H, W), uint8; on the device of `image` if it is a tensor, else the CPU.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if it is not an image of that many channels.
    """
    if channels == 3:
        return decode_image(image)
    noun = f"{channels} channel{'' if channels == 1 else 's'}"
    expected = f"a tensor ({channels}, H, W) or an array (H, W, {channels})"
    if isinstance(image, (np.ndarray, Tensor)):
        planes = planes_of(image)
        if planes.dim() != 3 or planes.shape[0] != channels or 0 in planes.shape:
            raise ValueError(
                f"the network takes images of {noun}: expected {expected}, not {tuple(image.shape)}"
            )
        return to_uint8(planes)
    rgb = decode_image(image)
    if channels == 1:
        return _luminance(rgb)
    raise ValueError(
        f"the network takes images of {noun}: pass {expected}; files and PIL images are read as RGB"
    )


def _luminance(rgb: Tensor) -> Tensor:
    """The luminance (1, H, W) of (3, H, W), uint8; grey stays as it is."""
    picture = Image.fromarray(np.ascontiguousarray(rgb.movedim(0, -1).numpy()))
    return torch.from_numpy(np.array(picture.convert("L")))[None]
