"""Images of other channels than RGB: given as arrays or tensors, for networks that take them."""

import numpy as np
import torch
from torch import Tensor

from ccnet.images.arrays import to_uint8
from ccnet.images.decoding import ImageLike, decode_image


def decode_channels(image: ImageLike, channels: int) -> Tensor:
    """Decodes one image of a number of channels; three are RGB, as for `decode_image`.

    Args:
        image: for three channels, anything that `decode_image` accepts. Else an array (H, W, C), or
            a tensor (C, H, W), uint8 in 0..255 or floating point in 0..1; (H, W) for one channel.
        channels: C.

    Returns:
        (C, H, W), uint8; on the device of `image` if it is a tensor, else the CPU.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if it is not an image of that many channels.
    """
    if channels == 3:
        return decode_image(image)
    if isinstance(image, np.ndarray):
        tensor = torch.from_numpy(np.array(image))
        pixels = tensor.movedim(-1, 0) if tensor.dim() == 3 else tensor
    elif isinstance(image, Tensor):
        pixels = image.as_subclass(Tensor)
    else:
        raise ValueError(
            f"the network takes images of {channels} channels: pass a tensor ({channels}, H, W) or "
            f"an array (H, W, {channels}), not a {type(image).__name__}, which is read as RGB"
        )
    if pixels.dim() == 2:
        pixels = pixels[None]
    if pixels.dim() != 3 or pixels.shape[0] != channels or 0 in pixels.shape:
        raise ValueError(
            f"the network takes images of {channels} channels: expected a tensor "
            f"({channels}, H, W) or an array (H, W, {channels}), not {tuple(image.shape)}"
        )
    return to_uint8(pixels.detach())
