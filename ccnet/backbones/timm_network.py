"""Networks of timm as backbones: dilated where timm can, with two outputs."""

import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from ccnet.backbones.resnet import OUTPUT_STRIDES
from ccnet.console import require_extra
from ccnet.norm import activation_slopes
from ccnet.options import named_options
from ccnet.schema import Rule, check, integer, number, reason_of, several, shown
from ccnet.transforms import MAX_CHANNELS, Preprocessing

logger = logging.getLogger(__name__)

TIMM = "timm:"
"""Prefix of the names of these backbones, before timm's own, as in "timm:convnext_tiny"."""

_RULES = {
    "name": Rule(
        lambda name: isinstance(name, str) and name.startswith(TIMM),
        f"a name such as {TIMM}resnet26",
    ),
    "in_channels": integer(1, MAX_CHANNELS),
    "output_stride": integer(1, 256),
    "image_size": several(2, 2, integer(1, 2**15)).or_none(),
    "drop_path_rate": number(0, 1),
}

_WISHES = {"strict_img_size": False, "dynamic_img_size": True, "dynamic_img_pad": True}
"""Arguments with which those networks of timm that have them take pictures of any size."""


class TimmBackbone(nn.Module):
    """Network of timm without classifier, of which the last two feature maps are taken.

    Args:
        name: "timm:" and a name of timm's, with or without the tag of its weights, such as
            "timm:convnext_tiny" or "timm:convnext_tiny.fb_in1k".
        in_channels: number of channels of the input.
        output_stride: input pixels per pixel of the last feature map that are wanted. Where timm
            cannot dilate the network that far, it keeps a larger stride, and a warning in the log
            says so.
        image_size: height and width, in pixels, for networks that are built for one size; None for
            that of timm's weights.
        drop_path_rate: probability of leaving out a residual branch in training, for those networks
            that can.

    Attributes:
        network: timm's, whose state dict has timm's names.
        channels: number of channels (C3, C4) of the two outputs.
        output_stride: input pixels per pixel of the last feature map, as it is.
        image_size: height and width, in pixels, that it was built for.
        preprocessing: mean and std of timm's weights, for three channels.
        settled: the arguments that it changed to what it can do.
        slopes: of its activations, see `norm.activation_slopes`.

    Raises:
        ValueError: if timm is not installed, has no such network, or cannot take maps from it; or
            if an argument is of the wrong type or out of range.
    """

    @named_options()
    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        output_stride: int = 8,
        image_size: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        check(locals(), _RULES)
        super().__init__()
        self.name = name
        options: dict[str, Any] = {"in_chans": in_channels}
        if image_size is not None:
            options["img_size"] = tuple(image_size)
        if drop_path_rate:
            options["drop_path_rate"] = drop_path_rate
        self.network, self.arguments = _create_dilated(name, options, output_stride)
        info, facts = self.network.feature_info, self.network.pretrained_cfg
        self.channels = tuple(info.channels())
        self.output_stride: int = info.reduction()[-1]
        self.image_size = tuple(image_size or facts["input_size"][1:])
        mean, std = (tuple(255 * value for value in facts[field]) for field in ("mean", "std"))
        self.preprocessing = Preprocessing(mean, std)
        self.settled = {"output_stride": self.output_stride}
        self.slopes = activation_slopes(self.network)
        self._is_channels_last = str(getattr(self.network, "output_fmt", "")).endswith("NHWC")
        if self.output_stride != output_stride:
            logger.warning(
                "%s works at output stride %d: timm cannot build it with %d",
                *(name, self.output_stride, output_stride),
            )

    @property
    def gradient_checkpointing(self) -> bool:
        """Always off: see `Backbone` for what it is."""
        return False

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, is_wanted: bool) -> None:
        if is_wanted:
            raise ValueError(
                f"gradient checkpointing is for the ResNets of this package, not for {self.name}: "
                "leave it off (timm's own, where a network has it, moves the running statistics of "
                "batch norms twice)"
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the last two feature maps.

        Args:
            x: (N, C, H, W), normalised.

        Returns:
            (N, C3, h, w) and (N, C4, h', w').

        Raises:
            ValueError: if the network cannot take pictures of this size.
        """
        try:
            maps = self.network(x)
        except (AssertionError, RuntimeError) as error:
            if not _is_of_shapes(error):
                raise
            raise ValueError(self._refusal(x, error)) from error
        stage3, stage4 = (one.movedim(-1, 1) if self._is_channels_last else one for one in maps)
        return stage3, stage4

    def _refusal(self, x: Tensor, error: Exception) -> str:
        height, width = self.image_size
        reason = f" ({reason_of(error)})" if str(error) else ""
        return (
            f"{self.name} cannot take {x.shape[-1]} x {x.shape[-2]} pixels{reason}; it is built "
            f"for {width} x {height}. Multiples of 32 may do (fit, crop); else predict with "
            f'mode="slide", crop=({height}, {width}), or build it for another size: '
            'backbone_options={"image_size": [height, width]}'
        )


def _create_dilated(
    name: str, options: Mapping[str, Any], output_stride: int
) -> tuple[Any, dict[str, Any]]:
    """Builds a network of the wanted stride, or else of the next larger one that timm can.

    Returns:
        The network, and the arguments that `create` made it with.
    """
    larger = [stride for stride in OUTPUT_STRIDES if stride > output_stride]
    for stride in (output_stride, *larger):
        dilated = {**options, "output_stride": stride}
        try:
            return create(name, dilated)
        except ValueError:  # not only of the stride: without it the last try tells the reason
            continue
    return create(name, options)


def create(name: str, options: Mapping[str, Any], **weights: Any) -> tuple[Any, dict[str, Any]]:
    """Builds a network of timm that gives its last two feature maps, from its own registry only.

    Args:
        name: with `TIMM`.
        options: arguments of its constructor.
        weights: arguments of `timm.create_model` that say which weights it takes; none by default.

    Returns:
        The network, and those of its arguments that say what it is.

    Raises:
        ValueError: if timm is not installed or cannot build it; says why.
    """
    require_extra("timm", ["timm"])
    import timm

    own = name.removeprefix(TIMM)
    if not (own.replace("_", "").replace(".", "").isalnum() and timm.is_model(own)):
        similar = get_close_matches(own.partition(".")[0], timm.list_models(), n=5)
        hint = f", but {', '.join(similar)}" if similar else ""
        raise ValueError(f"timm {timm.__version__} has no network {shown(own)}{hint}")
    arguments = {**_WISHES, **options}
    while True:
        try:
            network = _built(timm.create_model, own, {"pretrained": False, **weights, **arguments})
        except Exception as error:  # of many kinds: every network checks in its own way
            refused = [wish for wish in _WISHES if wish in arguments and repr(wish) in str(error)]
            if not (isinstance(error, TypeError) and refused):
                raise ValueError(f"timm cannot build {name}: {reason_of(error)}") from error
            arguments = {key: arguments[key] for key in arguments if key not in refused}
        else:
            return network, arguments


def _built(create_model: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Calls timm; on the meta device, where some constructors cannot compute, by way of the CPU."""
    arguments = {"features_only": True, "out_indices": (-2, -1), **arguments}
    try:
        return create_model(name, **arguments)
    except (NotImplementedError, RuntimeError):
        if torch.empty(0).device.type != "meta":
            raise
        with torch.device("cpu"):
            return create_model(name, **arguments).to("meta")


def _is_of_shapes(error: Exception) -> bool:
    """Whether an error of a network says that shapes do not fit, rather than, say, memory."""
    if isinstance(error, torch.OutOfMemoryError) or "alloc" in str(error):
        return False
    words = ("shape", "size", "dimension")
    return isinstance(error, AssertionError) or any(word in str(error).lower() for word in words)
