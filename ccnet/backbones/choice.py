"""Choice of a backbone by its name."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from ccnet.backbones.resnet import BACKBONES, Backbone
from ccnet.backbones.timm_network import TIMM, TimmBackbone
from ccnet.schema import shown

AnyBackbone: TypeAlias = Backbone | TimmBackbone


def check_name(name: Any) -> None:
    """Checks that a backbone may have this name; whether timm has a network, timm alone knows.

    Raises:
        ValueError: if it is not in `BACKBONES` and does not begin with "timm:".
    """
    if name not in BACKBONES and not (isinstance(name, str) and name.startswith(TIMM)):
        known = ", ".join(map(repr, BACKBONES))
        raise ValueError(
            f"backbone must be one of {known}, or 'timm:' and the name of a network of timm, "
            f"not {shown(name)}"
        )


def build_backbone(name: str, in_channels: int, options: Mapping[str, Any]) -> AnyBackbone:
    """Builds a backbone with untrained weights.

    Args:
        name: one of `BACKBONES`, or "timm:" and the name of a network of timm.
        in_channels: number of channels of the input.
        options: further arguments of `Backbone` or `TimmBackbone`.

    Raises:
        TypeError: if an option does not exist.
        ValueError: if there is no such backbone, or an option is out of range.
    """
    check_name(name)
    kind = TimmBackbone if name.startswith(TIMM) else Backbone
    return kind(name, in_channels=in_channels, **options)
