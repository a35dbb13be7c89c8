"""The networks by name, untrained or with pretrained weights."""

from typing import Any

from ccnet.model import CCNet
from ccnet.pretrained import WeightsLike, build
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)


def ccnet_resnet18(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-18, with the 7x7 stem: 13 million parameters.

    Args:
        weights: a member of `CCNet_ResNet18_Weights` or its name; the path of a .safetensors file
            or of a checkpoint of another code base (`ccnet.conversion`); "hf://owner/name@revision"
            for a repository on the Hugging Face Hub; or None for an untrained network.
        weights_backbone: ImageNet weights of the backbone alone: a member of `BackboneWeights` or
            of torchvision's enum for this ResNet, a name of one, or "DEFAULT".
        num_classes: if it is not that of the weights, the classifiers start fresh; without weights
            the default is 19.
        recurrence: the loops of criss-cross attention; by default those of the weights, or 2.
        progress: show a progress bar of a download.
        config: further arguments of `CCNet`, which replace those of the weights, or `categories`:
            the names of one's own classes.

    Returns:
        The network, in evaluation mode if it has weights.

    Raises:
        FileNotFoundError: if the weights were not found; names the places tried.
        ValueError: if there are no such weights, or they do not fit the network.
    """
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return build("resnet18", CCNet_ResNet18_Weights, weights, weights_backbone, progress, config)


def ccnet_resnet50(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-50: 50 million parameters. Arguments as in `ccnet_resnet18`."""
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return build("resnet50", CCNet_ResNet50_Weights, weights, weights_backbone, progress, config)


def ccnet_resnet101(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsLike | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """CCNet on ResNet-101, the published network. Arguments as in `ccnet_resnet18`."""
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return build("resnet101", CCNet_ResNet101_Weights, weights, weights_backbone, progress, config)


NETWORKS = {make.__name__: make for make in (ccnet_resnet18, ccnet_resnet50, ccnet_resnet101)}
"""The builders by name."""
