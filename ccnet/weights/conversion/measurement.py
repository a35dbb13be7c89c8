"""Measurement: what names and shapes of the tensors tell of a network."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_DEPTHS = {(2, False): "resnet18", (6, True): "resnet50", (23, True): "resnet101"}
"""Backbones by the number of blocks in their third stage, and whether these are bottlenecks."""


def measure(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the arguments of `CCNet` that names and shapes of the tensors imply."""
    found = [re.match(r"backbone\.layer3\.(\d+)\.(conv3)?", name) for name in state_dict]
    blocks = {int(match[1]) for match in found if match}
    depth = (len(blocks), any(match and match[2] for match in found))
    if depth not in _DEPTHS:
        kind = "bottlenecks" if depth[1] else "basic blocks"
        raise ValueError(
            f"a backbone with {depth[0]} blocks in its third stage, {kind}, is not known; "
            f"this project has {', '.join(_DEPTHS.values())}"
        )
    classifier = state_dict["head.classifier.weight"]
    auxiliary = state_dict.get("aux_head.classifier.weight")
    for tensor in (classifier, auxiliary):
        if tensor is not None and tensor.dim() < 2:
            raise ValueError(f"a classifier has the shape {tuple(tensor.shape)}")
    channels = _input_channels(state_dict)
    return {
        **({"in_channels": channels} if channels != 3 else {}),
        "backbone": _DEPTHS[depth],
        "num_classes": classifier.shape[0],
        "recurrence": 2 if any(name.startswith("head.cca.") for name in state_dict) else 0,
        "aux_channels": 0 if auxiliary is None else auxiliary.shape[1],
    }


def measure_stem(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the widths of the stem's convolutions; none for a single one of 7x7."""
    found = _stem(state_dict)
    if not found:
        return {}
    is_plain = len(found) == 1 and found[0].shape[-1] == 7
    return {"stem_widths": [] if is_plain else [kernels.shape[0] for kernels in found]}


def _input_channels(state_dict: Mapping[str, Tensor]) -> int:
    return next((kernels.shape[1] for kernels in _stem(state_dict)), 3)


def _stem(state_dict: Mapping[str, Tensor]) -> list[Tensor]:
    """The kernels of the stem's convolutions, in their order."""
    found = {
        int(match[1]): tensor
        for name, tensor in state_dict.items()
        if (match := re.fullmatch(r"backbone\.stem\.(\d+)\.weight", name)) and tensor.dim() == 4
    }
    return [found[number] for number in sorted(found)]
