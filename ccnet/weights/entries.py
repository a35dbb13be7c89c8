"""Entries of the registry: what is known of weights, and what those of one origin have in common.

Figures, dates and hashes of OpenMMLab's files are those of the table in mmsegmentation's
configs/ccnet. Of a file's SHA-256 only the first eight digits are published, in its name.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torchvision.models import Weights

from ccnet.classes import ADE20K, CITYSCAPES, VOC, LabelSet
from ccnet.inference import InferenceProtocol
from ccnet.transforms import Preprocessing
from ccnet.weights.families import AUTHORS, OPENMMLAB

_OPENMMLAB_URL = "https://download.openmmlab.com/mmsegmentation/v0.5/ccnet"
_NUM_PARAMS = {"resnet50": 49_811_425, "resnet101": 68_803_553}
"""Of OpenMMLab's networks without classes; each class has 770 more, in both classifiers."""

WHOLE = InferenceProtocol()
SLIDING = InferenceProtocol("slide", crop=769, stride=513)
FITTED = InferenceProtocol(fit=(2048, 512))


@dataclass(frozen=True)
class _Data:
    """What OpenMMLab's networks for a data set have in common.

    Attributes:
        label_set: the classes.
        training_size: height and width of the images, in pixels, as the protocols show them: of
            images of many sizes those of the box.
        trained_on: the images that they were trained on.
        measured_on: the title of the images that they were measured on, as in `evaluation.data`.
        batch: number of crops in a training step.
    """

    label_set: LabelSet
    training_size: list[int]
    trained_on: str
    measured_on: str
    batch: int


_DATA = {
    "cityscapes": _Data(CITYSCAPES, [1024, 2048], "Cityscapes train", "Cityscapes val", 8),
    "ade20k": _Data(ADE20K, [512, 2048], "ADE20K train", "ADE20K val", 16),
    "voc12aug": _Data(VOC, [512, 2048], "Pascal VOC 2012 train and SBD", "Pascal VOC 2012 val", 16),
}
"""By their names in those of the files."""

_PROTOCOLS = {"512x1024": WHOLE, "769x769": SLIDING, "512x512": FITTED}
"""By the training crop."""


def entry(*, config: dict[str, Any], label_set: LabelSet, **meta: Any) -> Weights:
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


def openmmlab_entry(
    data: str,
    backbone: str,
    crop: str,
    schedule: str,
    stamp: str,
    miou: float,
    multi_scale_miou: float,
) -> Weights:
    """Makes an entry of OpenMMLab's table, in mmsegmentation's configs/ccnet.

    Args:
        data: a name in `_DATA`.
        backbone: "resnet50" or "resnet101".
        crop: of training, as in the file's name.
        schedule: number of training steps, likewise.
        stamp: date, and the first digits of the SHA-256, likewise.
        miou: in percent, with the protocol.
        multi_scale_miou: likewise, with the scales 0.5, 0.75, 1, 1.25, 1.5 and 1.75, and flip.
    """
    name = f"ccnet_r{backbone.removeprefix('resnet')}-d8_{crop}_{schedule}_{data}"
    url = f"{_OPENMMLAB_URL}/{name}/{name}_{stamp}.pth"
    known = _DATA[data]
    num_classes = len(known.label_set)
    return entry(
        config={
            **OPENMMLAB.config,
            "backbone": backbone,
            "num_classes": num_classes,
            "recurrence": 2,
            "aux_channels": 256,
            "align_corners": crop == "769x769",
            "training_size": known.training_size,
        },
        label_set=known.label_set,
        num_params=_NUM_PARAMS[backbone] + 770 * num_classes,
        dataset=known.trained_on,
        metrics={known.measured_on: {"mIoU": miou, "mIoU, multi-scale and flip": multi_scale_miou}},
        whose="OpenMMLab",
        protocol=_PROTOCOLS[crop],
        recipe=f"batch {known.batch}, {schedule} steps, crop {crop}, SGD 0.01, weight decay 5e-4, "
        "poly 0.9",
        license="Apache-2.0",
        source="https://github.com/open-mmlab/mmsegmentation/tree/main/configs/ccnet",
        file=f"ccnet_{backbone}_openmmlab_{data}_{crop}_{schedule}.safetensors",
        origin={"url": url, "sha256_prefix": url[-12:-4]},
    )


def authors_entry(recurrence: int, miou: list[float], ohem: bool = False) -> Weights:
    """Makes an entry of the authors' Cityscapes models: README of speedinghzl/CCNet, three runs."""
    suffix = "_ohem" if ohem else ""
    return entry(
        config={
            **AUTHORS.config,
            "backbone": "resnet101",
            "num_classes": 19,
            "recurrence": recurrence,
            "aux_channels": 512,
            "training_size": [1024, 2048],
        },
        label_set=CITYSCAPES,
        num_params=71_287_399,
        dataset="Cityscapes train",
        metrics={"Cityscapes val": {"mIoU": max(miou), "mIoU of three runs": miou}},
        whose="the authors",
        protocol=SLIDING,
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
