"""The networks by name, untrained or with pretrained weights."""

import logging
import os
from pathlib import Path
from typing import Any, TypeAlias

from torchvision.models import WeightsEnum

from ccnet.classes import LabelSet
from ccnet.download import find_weights
from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_weights
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)

logger = logging.getLogger(__name__)

WeightsLike: TypeAlias = WeightsEnum | str | os.PathLike[str]


def ccnet_resnet18(
    *,
    weights: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-18, with the 7x7 stem: 13 million parameters.

    Args:
        weights: a member of `CCNet_ResNet18_Weights`, its name, the path of a .safetensors file, or
            None for an untrained network.
        num_classes: if it is not that of the weights, the classifiers start fresh; without weights
            the default is 19.
        recurrence: the loops of criss-cross attention; by default those of the weights, or 2.
        config: further arguments of `CCNet`, which replace those of the weights.

    Returns:
        The network, in evaluation mode if it has weights.

    Raises:
        FileNotFoundError: if the weights were not found; names the places tried.
        ValueError: if there are no such weights, or they do not fit the network.
    """
    choice = CCNet_ResNet18_Weights
    return _build("resnet18", choice, weights, num_classes, recurrence, config)


def ccnet_resnet50(
    *,
    weights: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-50; arguments as in `ccnet_resnet18`."""
    choice = CCNet_ResNet50_Weights
    return _build("resnet50", choice, weights, num_classes, recurrence, config)


def ccnet_resnet101(
    *,
    weights: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-101, the published network; arguments as in `ccnet_resnet18`."""
    choice = CCNet_ResNet101_Weights
    return _build("resnet101", choice, weights, num_classes, recurrence, config)


def _build(
    backbone: str,
    choice: type[WeightsEnum],
    weights: WeightsLike | None,
    num_classes: int | None,
    recurrence: int | None,
    config: dict[str, Any],
) -> CCNet:
    arguments = {"num_classes": num_classes, "recurrence": recurrence, **config}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if "label_set" in arguments:
        arguments.setdefault("num_classes", len(LabelSet.from_config(arguments["label_set"])))
    if weights is None:
        return CCNet(backbone, **arguments)
    path = _locate(choice, weights)
    state_dict, trained = read_weights(path)
    if trained.get("backbone") != backbone:
        raise ValueError(f"{path} holds weights for {trained.get('backbone')}, not for {backbone}")
    absent = {"num_classes", "recurrence", "aux_channels", "label_set"} - trained.keys()
    if absent:
        raise ValueError(f"{path} does not say its {', '.join(sorted(absent))}")
    if arguments.get("num_classes", trained["num_classes"]) != trained["num_classes"]:
        arguments.setdefault("label_set", None)
    model = CCNet(**{**trained, **arguments})
    changed = _changed_parts(model.config, trained)
    names = list(model.state_dict())
    fresh = [part for part in changed if any(name.startswith(part) for name in names)]
    if fresh:
        logger.warning("%s: these parts start untrained: %s", path.name, ", ".join(fresh))
    kept = {name: value for name, value in state_dict.items() if not name.startswith(changed)}
    load_strictly(model, kept, fresh=changed)
    return model.eval()


def _changed_parts(config: dict[str, Any], trained: dict[str, Any]) -> tuple[str, ...]:
    """Prefixes of the parameters for which the weights of another configuration are of no use."""
    parts = []
    if config["label_set"]["categories"] != trained["label_set"]["categories"]:
        parts += ["head.classifier", "aux_head.classifier"]
    if bool(config["recurrence"]) != bool(trained["recurrence"]):
        parts.append("head.cca")
    if config["aux_channels"] != trained["aux_channels"]:
        parts.append("aux_head")
    return tuple(parts)


def _locate(choice: type[WeightsEnum], weights: WeightsLike) -> Path:
    if isinstance(weights, choice):
        return find_weights(weights)
    names = list(choice.__members__)
    if isinstance(weights, WeightsEnum):
        raise ValueError(f"{weights} is for another network; for this one there are {names}")
    name = os.fspath(weights).removeprefix(f"{choice.__name__}.")
    if name in names:
        return find_weights(choice[name])
    if name.endswith(".safetensors"):
        return Path(weights)
    known = f"one of {', '.join(names)}" if names else "no name: none are bundled for this network"
    raise ValueError(
        f"no weights {name!r}: expected {known}, or the path of a .safetensors file "
        "(weights=None makes an untrained network)"
    )
