"""Checkpoints of other code bases as this project's configuration and state dict.

Three families of the same network are known. They differ in names, stem, dilation, max-pool,
activations, pixel values and interpolation; all of it is decided by the family, so that converted
weights compute what they computed at home. What can be folded into the weights is:

- In-place batch normalisation scales by |w| + 1e-5: that becomes the weight of a plain one.
- A convolution's bias before a normalisation is subtracted from the running mean.
"""

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.classes import CITYSCAPES, LabelSet

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
_TIMM_BACKBONE_NAMES = {
    r"^conv1\.0\.": "stem.0.",
    r"^conv1\.1\.": "stem.1.",
    r"^conv1\.3\.": "stem.3.",
    r"^conv1\.4\.": "stem.4.",
    r"^conv1\.6\.": "stem.6.",
    r"^bn1\.": "stem.7.",
}
_TORCHVISION_BACKBONE_NAMES = {r"^conv1\.": "stem.0.", r"^bn1\.": "stem.1."}
_OPENMMLAB_NAMES = {
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
    """What the checkpoints of one code base have in common.

    Attributes:
        name: whose they are.
        marker: a name that no other family's checkpoints have.
        names: regular expressions of their names, and what replaces them.
        config: the arguments of `CCNet` that the family implies.
        in_place_norm: whether normalisation scales by |w| + eps.
    """

    name: str
    marker: str
    names: Mapping[str, str]
    config: Mapping[str, Any]
    in_place_norm: bool = False


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
            "contract_dilation": True,
            "ceil_mode": False,
        },
        "align_corners": False,
    },
)
FAMILIES = (AUTHORS, PURE_PYTORCH, OPENMMLAB)

_DEPTHS = {2: "resnet18", 6: "resnet50", 23: "resnet101"}


@dataclass(frozen=True)
class Converted:
    """A checkpoint in this project's terms.

    Attributes:
        state_dict: for `CCNet(**config)`, every name and shape.
        config: the arguments of `CCNet`.
        source: whose checkpoint it was.
    """

    state_dict: dict[str, Tensor]
    config: dict[str, Any]
    source: str


def read_pickle(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads a PyTorch checkpoint without running any code in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds more than tensors and plain values, or would unpack to
            much more than its size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("it is compressed, which torch.save never does")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"{path} is no intact checkpoint of tensors and plain values: {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def convert(checkpoint: Mapping[str, Any]) -> Converted:
    """Recognises whose checkpoint it is and converts it.

    Args:
        checkpoint: what `read_pickle` gives: a state dict, or one under "state_dict" or "model",
            its names perhaps with the prefix "module.".

    Returns:
        With a recurrence of 2 where the network has attention: no foreign checkpoint states it.

    Raises:
        ValueError: if the checkpoint is of no known family, or its network of no known depth.
    """
    tensors = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(f"no state dict among {sorted(map(str, checkpoint))[:10]}")
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} {tuple(tensor.shape)} is larger than what is stored of it")
    config = checkpoint.get("config")
    if "model" in checkpoint and isinstance(config, Mapping):
        return Converted(dict(tensors), dict(config), "this project's training")
    theirs = _renamed(tensors, lambda name: name.removeprefix("module."))
    families = [family for family in FAMILIES if family.marker in theirs]
    if len(families) != 1:
        raise ValueError(
            "a checkpoint of no known family: it has names like "
            f"{', '.join(sorted(theirs)[:5])}; known are "
            + ", ".join(f"{family.name} (with {family.marker})" for family in FAMILIES)
        )
    family = families[0]
    state_dict = _renamed(theirs, lambda name: _rename(name, family.names))
    _fold(state_dict, family.in_place_norm)
    recurrence = 2 if any(name.startswith("head.cca.") for name in state_dict) else 0
    config = {**family.config, **_measure(state_dict), "recurrence": recurrence}
    recorded = checkpoint.get("meta")
    if family is OPENMMLAB and isinstance(recorded, Mapping):
        config["align_corners"] = "align_corners=True" in str(recorded.get("config", ""))
    return Converted(state_dict, config, family.name)


def convert_backbone(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet weights of a ResNet, by torchvision's or timm's names, as those of a `Backbone`."""
    names = _TIMM_BACKBONE_NAMES if "conv1.0.weight" in state_dict else _TORCHVISION_BACKBONE_NAMES
    converted = {
        _rename(name, names): tensor
        for name, tensor in state_dict.items()
        if not name.startswith("fc.")
    }
    norms = [name.removesuffix("running_mean") for name in converted if "running_mean" in name]
    return {**{f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}, **converted}


def _renamed(state_dict: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    origins: dict[str, str] = {}
    for name in state_dict:
        other = origins.setdefault(rename(name), name)
        if other != name:
            raise ValueError(f"the checkpoint has {rename(name)} twice: as {other} and as {name}")
    return {new: state_dict[name] for new, name in origins.items()}


def _rename(name: str, names: Mapping[str, str]) -> str:
    for pattern, replacement in names.items():
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _fold(state_dict: dict[str, Tensor], in_place_norm: bool) -> None:
    """Makes every normalisation a plain one and every convolution before one unbiased."""
    norms = [name.removesuffix(".running_mean") for name in state_dict if "running_mean" in name]
    for norm in norms:
        scale = state_dict.get(f"{norm}.weight")
        if in_place_norm and scale is not None:
            state_dict[f"{norm}.weight"] = scale.abs() + 1e-5
        state_dict.setdefault(f"{norm}.num_batches_tracked", torch.tensor(0))
        parent, _, index = norm.rpartition(".")
        bias = f"{parent}.{int(index) - 1}.bias" if index.isdigit() else ""
        mean = f"{norm}.running_mean"
        if bias in state_dict and state_dict[bias].shape == state_dict[mean].shape:
            state_dict[mean] = state_dict[mean] - state_dict.pop(bias)
    gamma = state_dict.get("head.cca.gamma")
    if gamma is not None and gamma.dim() == 0:
        state_dict["head.cca.gamma"] = gamma[None]


def _measure(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `CCNet` that show in the shapes."""
    blocks = {
        int(found[1])
        for name in state_dict
        if (found := re.match(r"backbone\.layer3\.(\d+)\.", name))
    }
    if len(blocks) not in _DEPTHS:
        raise ValueError(f"a backbone with {len(blocks)} blocks in its third stage is not known")
    num_classes = state_dict["head.classifier.weight"].shape[0]
    is_cityscapes = num_classes == len(CITYSCAPES)
    label_set = CITYSCAPES if is_cityscapes else LabelSet.numbered(num_classes)
    auxiliary = state_dict.get("aux_head.classifier.weight")
    return {
        "backbone": _DEPTHS[len(blocks)],
        "num_classes": num_classes,
        "aux_channels": 0 if auxiliary is None else auxiliary.shape[1],
        "label_set": label_set.to_config(),
    }
