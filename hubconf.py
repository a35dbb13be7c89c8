"""torch.hub entry points: the criss-cross module and the CCNet models."""

dependencies = ["torch", "torchvision", "huggingface_hub", "safetensors", "numpy", "PIL"]

import logging as _logging  # noqa: E402
from pathlib import Path as _Path  # noqa: E402

import ccnet as _ccnet  # noqa: E402

_imported = _Path(_ccnet.__file__ or "a namespace package").resolve()
_own = _Path(__file__).resolve().parent / "ccnet" / "__init__.py"
if _imported != _own:
    raise ImportError(
        f"this process has already imported a package 'ccnet' from {_imported}, which is not the "
        f"one in {_own}. Load this repository in a separate process, or before the other one."
    )

from ccnet import attention as _attention  # noqa: E402
from ccnet import zoo as _zoo  # noqa: E402
from ccnet.options import named_options as _named_options  # noqa: E402

_logger = _logging.getLogger("ccnet")


def _chosen(weights, config):
    """Returns the weights; takes the option `pretrained` of other hubs out of the config."""
    pretrained = config.pop("pretrained", None)
    if pretrained is None:
        return weights
    if pretrained not in (True, False):
        raise ValueError(f"pretrained must be True or False, not {pretrained!r}: name the weights")
    if weights != "DEFAULT" and (weights is not None) != pretrained:
        raise ValueError(
            f"pretrained={pretrained!r} contradicts weights={weights!r}: give weights alone"
        )
    chosen = weights if pretrained else None
    _logger.warning(
        "pretrained=%r is taken as weights=%r, as it is called here", pretrained, chosen
    )
    return chosen


@_named_options()
def criss_cross_attention_2d(in_channels, reduction=8):
    """Criss-cross attention module for 2-D feature maps, for use in other networks.

    Every position attends to the H + W - 1 positions of its row and column. Applied twice with the
    same weights, the module gives every position the context of the whole map. The cost grows as
    H W (H + W), not as (H W) ** 2.

    The module maps (N, C, H, W) to (N, C, H, W), in any floating-point dtype, on any device and for
    any H and W. It is the identity until its `gamma`, which starts at 0, has been trained.

    Args:
        in_channels (int): C, the number of channels of input and output.
        reduction (int): query and key have C // reduction channels.

    Returns:
        ccnet.CrissCrossAttention2d, untrained.

    Example:
        >>> import torch
        >>> attention = torch.hub.load(".", "criss_cross_attention_2d", source="local",
        ...                            in_channels=64)
        >>> features = torch.randn(2, 64, 48, 80)
        >>> attention(attention(features)).shape    # two loops see the whole map
        torch.Size([2, 64, 48, 80])
    """
    return _attention.CrissCrossAttention2d(in_channels, reduction)


@_named_options()
def criss_cross_attention_3d(in_channels, reduction=8):
    """Criss-cross attention module for volumes and video clips, for use in other networks.

    Every position attends to the T + H + W - 2 positions that share at least two of its three
    coordinates. Applied three times with the same weights, the module gives every position the
    context of the whole volume. With T = 1 it is the two-dimensional module.

    The module maps (N, C, T, H, W) to (N, C, T, H, W), in any floating-point dtype, on any device
    and for any T, H and W. It is the identity until its `gamma`, which starts at 0, has been
    trained.

    Args:
        in_channels (int): C, the number of channels of input and output.
        reduction (int): query and key have C // reduction channels.

    Returns:
        ccnet.CrissCrossAttention3d, untrained.

    Example:
        >>> import torch
        >>> attention = torch.hub.load(".", "criss_cross_attention_3d", source="local",
        ...                            in_channels=32)
        >>> clip = torch.randn(1, 32, 5, 12, 20)
        >>> attention(clip).shape
        torch.Size([1, 32, 5, 12, 20])
    """
    return _attention.CrissCrossAttention3d(in_channels, reduction)


def ccnet_resnet18(*, weights="DEFAULT", **config):
    """CCNet on ResNet-18, pretrained on CamVid's eleven classes: 25 MB, bundled, loads offline.

    The model card, `weights/ccnet_resnet18_camvid.md`, states the mean IoU on CamVid val, the
    command that measures it, and the licence: for research and non-commercial use.

    The model takes a normalised batch (N, 3, H, W) from `model.transforms()`, of any H and W, and
    returns {"out": logits (N, K, H, W)}; in training mode, with an auxiliary head, also "aux".
    `model.predict(image)` segments a file, a PIL image, an array or a tensor in one call.

    Args:
        weights (str): a member of `ccnet.CCNet_ResNet18_Weights`, its name, the path of a
            .safetensors file, "hf://owner/name@revision", or None for an untrained network.
        pretrained (bool): as other hubs call it: True is weights="DEFAULT", False is weights=None.
        num_classes (int): K. If it is not that of the weights, the classifiers start untrained.
        recurrence (int): number of loops of criss-cross attention; 0 for none.
        config: further arguments of `ccnet.CCNet`, such as `aux_channels=128` for fine-tuning with
            an auxiliary head, which the bundled weights lack, or `categories`, the names of other
            classes.

    Returns:
        ccnet.CCNet, in evaluation mode if it has weights: to train it, call `model.train()`.

    Example:
        >>> import torch
        >>> model = torch.hub.load(".", "ccnet_resnet18", source="local")
        >>> result = model.predict("docs/sample.jpg")
        >>> result.labels.shape
        torch.Size([360, 480])
        >>> result.overlay().size
        (480, 360)
    """
    return _zoo.ccnet_resnet18(weights=_chosen(weights, config), **config)


def ccnet_resnet50(*, weights="DEFAULT", **config):
    """CCNet on ResNet-50, with Cityscapes weights of OpenMMLab: 79.29 mIoU on val, as they report.

    The first call downloads the weights, checks their hash and caches them; later calls need no
    network. Input and output are as in `ccnet_resnet18`.

    Args:
        weights (str): a member of `ccnet.CCNet_ResNet50_Weights`, its name, the path of a
            .safetensors file or of a checkpoint of the authors, CCNet-Pure-Pytorch or OpenMMLab,
            "hf://owner/name@revision", or None for an untrained network.
        weights_backbone (str): weights of the backbone alone, for `weights=None`: ImageNet's
            ("DEFAULT") or the path of a file.
        pretrained (bool): as other hubs call it: True is weights="DEFAULT", False is weights=None.
        num_classes (int): K. If it is not that of the weights, the classifiers start untrained.
        recurrence (int): number of loops of criss-cross attention; 0 for none.
        config: further arguments of `ccnet.CCNet`.

    Returns:
        ccnet.CCNet, in evaluation mode if it has weights: to train it, call `model.train()`.

    Example:
        >>> import torch
        >>> model = torch.hub.load(".", "ccnet_resnet50", source="local", weights=None)
        >>> model.eval()(torch.randn(1, 3, 65, 97))["out"].shape
        torch.Size([1, 19, 65, 97])
    """
    return _zoo.ccnet_resnet50(weights=_chosen(weights, config), **config)


def ccnet_resnet101(*, weights="DEFAULT", **config):
    """CCNet on ResNet-101, the network of the paper, with Cityscapes weights of OpenMMLab.

    OpenMMLab report 79.45 mIoU on Cityscapes val for the default weights (windows of 769, stride
    513); the authors report 79.74, 79.22 and 78.40 for three of their runs. The first call
    downloads the weights, checks their hash and caches them; later calls need no network. Input and
    output are as in `ccnet_resnet18`.

    Args:
        weights (str): a member of `ccnet.CCNet_ResNet101_Weights`, its name, the path of a
            .safetensors file or of a checkpoint of the authors, CCNet-Pure-Pytorch or OpenMMLab,
            "hf://owner/name@revision", or None for an untrained network.
        weights_backbone (str): weights of the backbone alone, for `weights=None`: ImageNet's
            ("DEFAULT") or the path of a file.
        pretrained (bool): as other hubs call it: True is weights="DEFAULT", False is weights=None.
        num_classes (int): K. If it is not that of the weights, the classifiers start untrained.
        recurrence (int): number of loops of criss-cross attention; 0 for none.
        config: further arguments of `ccnet.CCNet`.

    Returns:
        ccnet.CCNet, in evaluation mode if it has weights: to train it, call `model.train()`.

    Example:
        >>> import torch
        >>> model = torch.hub.load(".", "ccnet_resnet101", source="local", weights=None,
        ...                        num_classes=5, recurrence=1)
        >>> model.eval()(torch.randn(1, 3, 65, 97))["out"].shape
        torch.Size([1, 5, 65, 97])
    """
    return _zoo.ccnet_resnet101(weights=_chosen(weights, config), **config)
