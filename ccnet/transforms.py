"""Preprocessing: from a decoded image to the network's input."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ccnet.images import ImageLike, decode_image
from ccnet.options import named_options
from ccnet.schema import check, mapping, number, one_of, several, shown_name

_RULES = {
    "mean": several(3, 3, number(-1e6, 1e6)),
    "std": several(3, 3, number(1e-6, 1e6)),
    "channel_order": one_of("RGB", "BGR"),
}


@named_options()
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
            names = ", ".join(map(shown_name, sorted(unknown)[:5]))
            raise ValueError(f"preprocessing has only mean, std and channel_order, not {names}")
        return cls(**config)
