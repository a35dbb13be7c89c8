"""Families of published CCNet checkpoints: parameter names and implied configuration.

The families are the same network with different parameter names, stem, dilation, max-pool,
activations, pixel values and interpolation. The family determines some of these, the tensors tell
others; what neither does is assumed where the file does not record it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPTION = "backbone_options."
"""What stands before an option of the backbone where arguments are named one by one."""

_CAFFE_PIXELS = {
    "mean": [104.00698793, 116.66876762, 122.67891434],
    "std": [1.0, 1.0, 1.0],
    "channel_order": "BGR",
}
_STEM = {"conv1": "stem.0", "bn1": "stem.1", "conv2": "stem.3", "bn2": "stem.4"}
_AUTHORS_NAMES = {
    **{f"^{theirs}\\.": f"backbone.{ours}." for theirs, ours in _STEM.items()},
    r"^conv3\.": "backbone.stem.6.",
    r"^bn3\.": "backbone.stem.7.",
    r"^layer(?=[1-4]\.)": "backbone.layer",
    r"^head\.bottleneck\.[34]\.": "head.classifier.",
    r"^dsn\.[34]\.": "aux_head.classifier.",
    r"^dsn\.": "aux_head.conv.",
}
_OPENMMLAB_NAMES = {
    r"^backbone\.conv1\.": "backbone.stem.0.",
    r"^backbone\.bn1\.": "backbone.stem.1.",
    r"^decode_head\.convs\.0\.conv\.": "head.conva.0.",
    r"^decode_head\.convs\.0\.bn\.": "head.conva.1.",
    r"^decode_head\.convs\.1\.conv\.": "head.convb.0.",
    r"^decode_head\.convs\.1\.bn\.": "head.convb.1.",
    r"^decode_head\.cca\.gamma\.scale$": "head.cca.gamma",
    r"^decode_head\.cca\.": "head.cca.",
    r"^decode_head\.conv_cat\.conv\.": "head.bottleneck.0.",
    r"^decode_head\.conv_cat\.bn\.": "head.bottleneck.1.",
    r"^decode_head\.conv_seg\.": "head.classifier.",
    r"^auxiliary_head\.convs\.0\.conv\.": "aux_head.conv.0.",
    r"^auxiliary_head\.convs\.0\.bn\.": "aux_head.conv.1.",
    r"^auxiliary_head\.conv_seg\.": "aux_head.classifier.",
}


@dataclass(frozen=True)
class Family:
    """Properties that the checkpoints of one code base have in common.

    Attributes:
        name: name of the code base, for messages.
        marker: a parameter name that no other family's checkpoints have.
        names: regular expressions of the parameter names, and their replacements.
        config: the arguments of `CCNet` that the family implies.
        in_place_norm: whether normalisation scales by |w| + eps.
        assumed: the arguments of `CCNet` that neither the family nor the tensors tell; options of
            the backbone after `OPTION`.
    """

    name: str
    marker: str
    names: Mapping[str, str]
    config: Mapping[str, Any]
    in_place_norm: bool = False
    assumed: tuple[str, ...] = ("recurrence", "label_set")


_AUTHORS_CONFIG = {
    "backbone_options": {
        "stem_widths": [64, 64, 128],
        "contract_dilation": False,
        "ceil_mode": True,
    },
    "align_corners": True,
    "preprocessing": _CAFFE_PIXELS,
}
AUTHORS = Family(
    "the authors' CCNet (in-place ABN)",
    "head.bottleneck.3.weight",
    _AUTHORS_NAMES,
    {**_AUTHORS_CONFIG, "negative_slope": 0.01},
    in_place_norm=True,
)
PURE_PYTORCH = Family(
    "CCNet-Pure-Pytorch", "head.bottleneck.4.weight", _AUTHORS_NAMES, _AUTHORS_CONFIG
)
OPENMMLAB = Family(
    "OpenMMLab's CCNet",
    "decode_head.conv_seg.weight",
    _OPENMMLAB_NAMES,
    {
        "backbone_options": {
            "stem_widths": [32, 32, 64],
            "output_stride": 8,
            "contract_dilation": True,
            "ceil_mode": False,
        },
        "align_corners": False,
    },
    assumed=(
        *("recurrence", "label_set", "align_corners", "preprocessing"),
        *(f"{OPTION}output_stride", f"{OPTION}contract_dilation"),
    ),
)
OWN = Family(
    "this project",
    "head.classifier.weight",
    {},
    {
        "backbone_options": {
            "output_stride": 8,
            "contract_dilation": False,
            "ceil_mode": True,
            "negative_slope": 0.0,
        },
        "align_corners": True,
        "negative_slope": 0.0,
    },
    assumed=(
        *(*OPENMMLAB.assumed, "negative_slope"),
        *(f"{OPTION}ceil_mode", f"{OPTION}negative_slope"),
    ),
)
FAMILIES = (AUTHORS, PURE_PYTORCH, OPENMMLAB, OWN)

RESNETS = (Family("a ResNet", "layer4.1.conv2.weight", {}, {}),)
"""Backbones alone; the marker is in ResNets of every depth."""
