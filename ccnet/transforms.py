"""Preprocessing: from a decoded image to the network's input."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ccnet.images import ImageLike, decode_channels
from ccnet.options import named_options
from ccnet.schema import check, integer, mapping, number, one_of, several, shown_name

MAX_CHANNELS = 256
"""Largest number of channels of an image."""

_RULES = {
    "mean": several(1, MAX_CHANNELS, number(-1e6, 1e6)),
    "std": several(1, MAX_CHANNELS, number(1e-6, 1e6)),
    "channel_order": one_of("RGB", "BGR"),
}


@named_options()
@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for the network: `(pixels - mean) / std`, per channel.

    Args:
        mean: mean of each channel, in `channel_order`, in pixel values 0..255.
        std: standard deviation of each channel, likewise.
        channel_order: "RGB" or "BGR", the channel order that the network was trained on. Channels
            that are not three are taken in the order in which they are given.

    Raises:
        ValueError: if mean and std are not as many numbers up to a million, a std is not positive,
            or the channel order is neither, or "BGR" for other than three channels.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        check(vars(self), _RULES)
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must be of as many channels, not {len(self.mean)} and "
                f"{len(self.std)}"
            )
        if self.channel_order == "BGR" and self.channels != 3:
            raise ValueError(f"channel_order BGR is of 3 channels, not of {self.channels}")
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(map(float, getattr(self, field))))

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return len(self.mean)

    def for_channels(self, count: int) -> "Preprocessing":
        """Returns this preprocessing for another number of channels.

        One channel has the mean of all values; more of them have those of the first channels again.

        Raises:
            ValueError: if there are to be other channels than the three of "BGR", or too many.
        """
        check({"in_channels": count}, {"in_channels": integer(1, MAX_CHANNELS)})
        if count == self.channels:
            return self
        if self.channel_order == "BGR" and count != 1:
            raise ValueError(
                f"preprocessing with channel_order BGR has no order for {count} channels: give "
                "preprocessing with mean and std of each channel, in the order of the images"
            )

        def adapted(values: Sequence[float]) -> tuple[float, ...]:
            if count == 1:
                return (sum(values) / len(values),)
            return tuple(values[index % len(values)] for index in range(count))

        return Preprocessing(adapted(self.mean), adapted(self.std))

    def decode(self, image: ImageLike) -> Tensor:
        """Decodes one image of that many channels, (C, H, W), uint8: see `decode_channels`."""
        return decode_channels(image, self.channels)

    def __call__(self, image: ImageLike) -> Tensor:
        """Preprocesses an image, or a batch of images of one size.

        Args:
            image: anything that `decode` accepts, or a batch (N, C, H, W), uint8, RGB.

        Returns:
            (N, C, H, W), float32, normalised; N is 1 for a single image.
        """
        is_batch = isinstance(image, Tensor) and image.dim() == 4 and image.dtype == torch.uint8
        batch = image if is_batch else self.decode(image)[None]
        assert isinstance(batch, Tensor)
        if batch.shape[1] != self.channels:
            raise ValueError(
                f"the network takes images of {self.channels} channels, not a batch of shape "
                f"{tuple(batch.shape)}"
            )
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
    def from_config(
        cls,
        config: "Mapping[str, Any] | Preprocessing | None",
        default: "Preprocessing | None" = None,
    ) -> "Preprocessing":
        """Builds preprocessing from a mapping of the fields that differ from a default.

        Args:
            config: the fields; None for none.
            default: also says how many channels there are; None for ImageNet's statistics.

        Raises:
            ValueError: if a field is unknown or its value is wrong.
        """
        default = default or cls()
        if isinstance(config, Preprocessing):
            config = config.to_config()
        config = {} if config is None else config
        check({"preprocessing": config}, {"preprocessing": mapping()})
        unknown = set(config) - {"mean", "std", "channel_order"}
        if unknown:
            names = ", ".join(map(shown_name, sorted(unknown)[:5]))
            raise ValueError(f"preprocessing has only mean, std and channel_order, not {names}")
        found = replace(default, **config)
        if found.channels != default.channels:
            raise ValueError(
                f"preprocessing must have mean and std of {default.channels} channels, not of "
                f"{found.channels}"
            )
        return found


def check_batch(x: Tensor, channels: int) -> None:
    """Checks a batch that is given to a network.

    Raises:
        ValueError: if it is not (N, C, H, W), floating point, with C `channels`.
    """
    if x.dim() != 4 or x.shape[1] != channels or not x.is_floating_point():
        raise ValueError(
            f"expected a normalised floating-point batch (N, {channels}, H, W), as "
            f"model.transforms() gives, not {x.dtype} {tuple(x.shape)}"
        )
