"""From a file to the network's input, and the augmentation of images together with their masks."""

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
from torchvision.transforms import v2

from ccnet.random_crop import RandomScaledCrop

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""

ImageLike = Union[str, os.PathLike[str], Image.Image, "np.ndarray[Any, Any]", Tensor]


def decode_image(image: ImageLike) -> Tensor:
    """Reads one picture, whatever it comes as.

    A photograph is turned upright by its EXIF orientation; grey, palette and 16-bit pictures become
    8-bit RGB; transparent parts show white, as on a page.

    Args:
        image: a path; a PIL image; an array (H, W), (H, W, 1) or (H, W, 3), RGB; or a tensor
            (H, W), (1, H, W) or (3, H, W), RGB. Arrays and tensors are uint8 in 0..255, or
            floating point in 0..1.

    Returns:
        (3, H, W), uint8, RGB in 0..255, on the device of a tensor that came in.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the file is no readable image, or an array or tensor is no such picture.
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
            "an image is a path, a PIL image, an array or a tensor, "
            f"not {type(image).__name__}; take the images of a list one by one"
        )
    if str(image).startswith(("http://", "https://")):
        raise ValueError(f"{image} is an address: fetch the picture first, and give its path")
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"no image at {path}")
    try:
        with warnings.catch_warnings():  # Pillow's own error, above 179 megapixels, stays
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
            f"a picture of mode {image.mode!r} has no known range of values; "
            "convert it to 8 or 16 bits per channel"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    bands = image.convert("RGB").split()  # faster than to turn pixels into planes in torch
    return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))


def _from_tensor(image: Tensor, expected: str, shape: Sequence[int] | None = None) -> Tensor:
    shape = tuple(shape or image.shape)
    if image.dim() == 4:
        raise ValueError(f"expected one image, not a batch of shape {shape}; take one, as in x[0]")
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
        raise ValueError(f"an image is uint8 or floating point, not {image.dtype}")
    return image.expand(3, -1, -1)


@dataclass(frozen=True)
class Preprocessing:
    """The network's input from a picture: `(pixels - mean) / std`, per channel.

    Args:
        mean: one number per channel, in `channel_order`, in pixel values 0..255.
        std: likewise.
        channel_order: "RGB" or "BGR", the order of the channels that the network was trained on.

    Raises:
        ValueError: if these are no three numbers each, a std is not positive, or the order is
            neither.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, field))
            if len(values) != 3:
                raise ValueError(f"{field} must be three numbers, not {values}")
            object.__setattr__(self, field, values)
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order must be 'RGB' or 'BGR', not {self.channel_order!r}")

    def __call__(self, image: ImageLike) -> Tensor:
        """Prepares a picture, or a batch of pictures of one size.

        Args:
            image: what `decode_image` takes, or a batch (N, 3, H, W), uint8, RGB.

        Returns:
            (N, 3, H, W), float32, normalised; N is 1 for a single picture.
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
        """The JSON-able values that `from_config` reads back."""
        fields = asdict(self)
        return {**fields, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_config(cls, config: "Mapping[str, Any] | Preprocessing | None") -> "Preprocessing":
        """Preprocessing from a mapping of its fields; None for the default: ImageNet's statistics.

        Raises:
            ValueError: if a field is unknown or its value is wrong.
        """
        if isinstance(config, Preprocessing):
            return config
        config = config or {}
        unknown = set(config) - {"mean", "std", "channel_order"}
        if unknown:
            raise ValueError(
                f"preprocessing has mean, std and channel_order, not {', '.join(sorted(unknown))}"
            )
        return cls(**config)


def training_augmentation(
    crop_size: tuple[int, int],
    *,
    scale_range: tuple[float, float] = (0.5, 2.0),
    scale_step: float = 0.0,
    max_class_share: float = 1.0,
    color_jitter: float = 0.4,
    preprocessing: Preprocessing | None = None,
) -> v2.Compose:
    """Random scale, crop, horizontal flip and colour jitter of an image together with its mask.

    Where the scaled image is smaller than the crop, the image is padded with the preprocessing's
    mean and the mask with the label that the loss ignores. Only what the crop shows is resampled
    (`RandomScaledCrop`).

    Args:
        crop_size: height and width of the result, in pixels.
        scale_range: the smallest and the largest factor on the size of the image.
        scale_step: the distance of the factors that are drawn from; 0 for every one in the range.
        max_class_share: the share of one class above which a crop is drawn anew, up to ten times.
        color_jitter: the strength of the change of brightness, contrast and saturation, 0..1. The
            hue changes by an eighth of it.
        preprocessing: where the padding colour comes from; the default is ImageNet's mean.

    Returns:
        A transform of (image, mask): `tv_tensors.Image` (3, H, W), uint8, RGB, and
        `tv_tensors.Mask` (H, W), uint8.

    Raises:
        ValueError: if one of these makes no sense.
    """
    if not 0 <= color_jitter <= 1:
        raise ValueError(f"color_jitter must be in 0..1, not {color_jitter}")
    preprocessing = preprocessing or Preprocessing()
    mean = tuple(round(value) for value in preprocessing.mean)
    crop = RandomScaledCrop(
        crop_size,
        scale_range,
        scale_step=scale_step,
        max_class_share=max_class_share,
        fill=mean if preprocessing.channel_order == "RGB" else mean[::-1],
    )
    steps: list[v2.Transform] = [crop, v2.RandomHorizontalFlip()]
    if color_jitter:
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter, color_jitter / 8))
    return v2.Compose(steps)
