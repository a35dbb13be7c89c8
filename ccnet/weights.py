"""Which pretrained weights there are, and what is known of them."""

from functools import partial

from torchvision.models import Weights, WeightsEnum

from ccnet.classes import CAMVID
from ccnet.transforms import Preprocessing


class CCNet_ResNet18_Weights(WeightsEnum):  # noqa: N801 - torchvision's way of naming
    """Weights of `ccnet_resnet18`."""

    CAMVID = Weights(
        url="ccnet_resnet18_camvid.safetensors",
        transforms=partial(Preprocessing),
        meta={
            "file": "ccnet_resnet18_camvid.safetensors",
            "sha256": "",
            "num_params": 0,
            "categories": CAMVID.categories,
            "dataset": "CamVid train and rendered StreetScenes",
            "metrics": {"CamVid val": {"mIoU": 0.0}},
            "protocol": "whole image, 360x480, single scale, no flip",
            "license": "CC BY-NC 4.0, that of the CamVid labels",
            "card": "weights/ccnet_resnet18_camvid.md",
        },
    )
    DEFAULT = CAMVID


class CCNet_ResNet50_Weights(WeightsEnum):  # noqa: N801
    """Weights of `ccnet_resnet50`: none yet."""


class CCNet_ResNet101_Weights(WeightsEnum):  # noqa: N801
    """Weights of `ccnet_resnet101`: none yet."""
