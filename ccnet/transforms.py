"""Image decoding and preprocessing: from a file, array or tensor to the network's input."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ccnet.schema import check, mapping, number, one_of, several

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Exceptions that Pillow raises for an unreadable file."""

ImageLike = Union[str, os.PathLike[str], Image.Image, "np.ndarray[Any, Any]", Tensor]


def decode_image(image: ImageLike) -> Tensor:
    """Decodes one image into an RGB tensor.

    EXIF orientation is applied. Greyscale, palette and 16-bit images become 8-bit RGB. Transparent
    images are blended over white.

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
        return _from_pil(image)
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            "an image must be a path, a PIL image, an array or a tensor, "
            f"not {type(image).__name__}; pass the images of a list one by one"
        )
    if str(image).startswith(("http://", "https://")):
        raise ValueError(f"{image} is a URL: download the image first and pass its path")
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"no image at {path}")
    try:
        with warnings.catch_warnings():  # above 179 megapixels Pillow still raises
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                return _from_pil(file)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"an image of mode {image.mode!r} has no defined value range; "
            "convert it to 8 or 16 bits per channel"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    bands = image.convert("RGB").split()  # faster than a transpose from HWC in torch
    return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))


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


_RULES = {
    "mean": several(3, 3, number(-1e6, 1e6)),
    "std": several(3, 3, number(1e-6, 1e6)),
    "channel_order": one_of("RGB", "BGR"),
}


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for the network: `(pixels - mean) / std`, per channel.

    Args:
        mean: mean of each channel, in `channel_order`, in pixel values 0..255.
        std: standard deviation of each channel, likewise.
        channel_order: "RGB" or "BGR", the channel order that the network was trained on.

    Raises:
        ValueError: if mean or std is not three numbers up to a million, a std is not positive, or
            the channel order is neither.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        check(vars(self), _RULES)
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(map(float, getattr(self, field))))

    def __call__(self, image: ImageLike) -> Tensor:
        """Preprocesses an image, or a batch of images of one size.

        Args:
            image: anything that `decode_image` accepts, or a batch (N, 3, H, W), uint8, RGB.

        Returns:
            (N, 3, H, W), float32, normalised; N is 1 for a single image.
        """
        is_batch = isinstance(image, Tensor) and image.dim() == 4 and image.dtype == torch.uint8
        batch = image if is_batch else decode_image(image)[None]
        assert isinstance(batch, Tensor)
        if self.channel_order == "BGR":
            batch = batch.flip(1)
        mean = torch.tensor(self.mean, device=batch.device)[:, None, None]
        std = torch.tensor(self.std, device=batch.device)[:, None, None]
        return (batch.as_subclass(Tensor).float() - mean) / std

    def to_config(self) -> dict[str, Any]:
        """Returns JSON-able values, which `from_config` accepts."""
        fields = asdict(self)
        return {**fields, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_config(cls, config: "Mapping[str, Any] | Preprocessing | None") -> "Preprocessing":
        """Builds preprocessing from a mapping of its fields; None gives ImageNet's statistics.

        Raises:
            ValueError: if a field is unknown or its value is wrong.
        """
        if isinstance(config, Preprocessing):
            return config
        config = {} if config is None else config
        check({"preprocessing": config}, {"preprocessing": mapping()})
        unknown = set(config) - {"mean", "std", "channel_order"}
        if unknown:
            raise ValueError(
                "preprocessing has only mean, std and channel_order, "
                f"not {', '.join(sorted(unknown))}"
            )
        return cls(**config)
