"""Criss-cross attention and CCNet in pure PyTorch (https://arxiv.org/abs/1811.11721)."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccnet.attention import (
        CrissCrossAttention2d,
        CrissCrossAttention3d,
        attention_map,
        criss_cross_attention,
    )
    from ccnet.deployment.exported.export import export_network
    from ccnet.deployment.exported.network import load_exported
    from ccnet.deployment.optimized.optimization import optimize_for_inference
    from ccnet.inference import InferenceProtocol, Segmentation
    from ccnet.model import CCNet
    from ccnet.weights import (
        CCNet_ResNet18_Weights,
        CCNet_ResNet50_Weights,
        CCNet_ResNet101_Weights,
    )
    from ccnet.zoo import build_ccnet, ccnet_resnet18, ccnet_resnet50, ccnet_resnet101

__version__ = "0.1.0"

__all__ = [
    "CCNet",
    "CCNet_ResNet18_Weights",
    "CCNet_ResNet50_Weights",
    "CCNet_ResNet101_Weights",
    "CrissCrossAttention2d",
    "CrissCrossAttention3d",
    "InferenceProtocol",
    "Segmentation",
    "attention_map",
    "build_ccnet",
    "ccnet_resnet18",
    "ccnet_resnet50",
    "ccnet_resnet101",
    "criss_cross_attention",
    "export_network",
    "load_exported",
    "optimize_for_inference",
]

_HOMES = (
    *("attention", "inference", "model", "weights", "zoo"),
    *(
        "deployment.optimized.optimization",
        "deployment.exported.export",
        "deployment.exported.network",
    ),
)
"""The modules that have these names."""


if not TYPE_CHECKING:  # which would take it to have any name

    def __getattr__(name: str) -> Any:
        """Imports what has a name at its first use: `ccnet --help` takes no PyTorch."""
        if name in __all__:
            for home in _HOMES:
                found = vars(import_module(f"{__name__}.{home}"))
                if name in found:
                    return globals().setdefault(name, found[name])
        elif name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
