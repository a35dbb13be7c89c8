"""Named sets of hyper-parameters."""

import math
from dataclasses import dataclass, fields, replace

from ccnet.backbone import BACKBONES

CHOICES: dict[str, tuple[str, ...]] = {
    "dataset": ("camvid", "cityscapes", "folder", "street-scenes"),
    "backbone": BACKBONES,
    "optimizer": ("adamw", "sgd"),
    "norm": ("batch", "inplace"),
    "precision": ("float32", "bfloat16", "float16"),
}
"""What the fields take that are one of a few words."""

_AT_LEAST_ONE = (
    *("steps", "batch_size", "accumulation"),
    *("crop_height", "crop_width", "validate_every"),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes.

    Attributes:
        dataset: "camvid", "cityscapes", "folder" (a `MaskFolder` of one's own) or "street-scenes".
        backbone: that of `CCNet`.
        recurrence: the loops of criss-cross attention.
        output_stride: of the backbone while it trains; the parameters are those of every stride.
        negative_slope: of all activations; 0 is ReLU. With `weights` it is theirs.
        weights: where the network starts: what the builders of `ccnet.zoo` take; empty for none.
        weights_backbone: likewise, of the backbone alone: ImageNet's, "DEFAULT".
        scenes: rendered scenes (`StreetScenes`) that are mixed into every pass over the data; for
            data sets with CamVid's classes.
        steps: optimiser steps.
        batch_size: images a step, over all processes and accumulated passes.
        accumulation: forward and backward passes a step, each on its share of the batch.
        crop_height: of the training crops, in pixels.
        crop_width: likewise.
        scale_low: the smallest random factor on the size of an image.
        scale_high: the largest.
        scale_step: between the factors drawn from; 0 for any factor in the range.
        max_class_share: crops with a larger share of one class are drawn again, up to ten times.
        color_jitter: strength of the random change of colours, 0..1.
        optimizer: "sgd" or "adamw".
        learning_rate: at its highest.
        min_learning_rate: below which it does not fall.
        momentum: of SGD.
        weight_decay: on convolution kernels.
        decay_all: biases, norms and gamma decay likewise, as in the published code.
        warmup_steps: over which the learning rate rises linearly from 0.
        power: the learning rate falls as (1 - progress) ** power.
        aux_weight: the factor on the auxiliary loss.
        balance_classes: weigh rare classes more: 1 / ln(1.02 + share of the training pixels).
        ohem: the main loss counts hard pixels alone (`OhemCrossEntropyLoss`).
        ohem_threshold: up to which probability of the true class a pixel is hard.
        ohem_min_kept: pixels kept at least, in each process and pass: it goes with two images.
        consistency_weight: the factor on the category consistent loss; 0 for none.
        norm: "batch", over all processes if there are several, or "inplace": `norm.InPlaceABN`,
            which saves memory and needs a negative slope.
        gradient_checkpointing: compute the backbone twice to keep less of it.
        precision: "float32"; "bfloat16" (autocast); or "float16" (autocast, with a loss scaler).
        compile: let torch.compile have the network.
        validate_every: steps between two validations, each with a checkpoint.
        seed: of the initial weights, the order of the data, augmentation and dropout.

    Raises:
        ValueError: if a field's value makes no sense; names both.
    """

    dataset: str = "camvid"
    backbone: str = "resnet18"
    recurrence: int = 2
    output_stride: int = 8
    negative_slope: float = 0.0
    weights: str = ""
    weights_backbone: str = ""
    scenes: int = 0
    steps: int = 2000
    batch_size: int = 8
    accumulation: int = 1
    crop_height: int = 360
    crop_width: int = 480
    scale_low: float = 0.5
    scale_high: float = 2.0
    scale_step: float = 0.0
    max_class_share: float = 1.0
    color_jitter: float = 0.4
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    min_learning_rate: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.01
    decay_all: bool = False
    warmup_steps: int = 100
    power: float = 0.9
    aux_weight: float = 0.4
    balance_classes: bool = True
    ohem: bool = False
    ohem_threshold: float = 0.7
    ohem_min_kept: int = 100_000
    consistency_weight: float = 0.0
    norm: str = "batch"
    gradient_checkpointing: bool = False
    precision: str = "bfloat16"
    compile: bool = False
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name in _AT_LEAST_ONE)
            if not isinstance(value, str) and not least <= value < math.inf:
                raise ValueError(f"{field.name} must be at least {least}, not {value}")
        if not 0 < self.learning_rate >= self.min_learning_rate:
            raise ValueError(
                "learning_rate must be above 0 and at least min_learning_rate "
                f"{self.min_learning_rate}, not {self.learning_rate}"
            )
        if self.weights and self.weights_backbone:
            raise ValueError(
                f"weights {self.weights!r} hold a backbone: give no weights_backbone beside them, "
                f"not {self.weights_backbone!r}"
            )
        if self.norm == "inplace" and self.gradient_checkpointing:
            raise ValueError("norm 'inplace' and gradient_checkpointing save the same: give one")
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "torch.compile does not take gradient_checkpointing as it is here: give one; "
                "norm 'inplace' saves memory as well"
            )


_AUTHORS = Recipe(
    dataset="cityscapes",
    backbone="resnet101",
    weights_backbone="DEFAULT",
    steps=60_000,
    crop_height=769,
    crop_width=769,
    scale_low=0.7,
    scale_high=2.1,
    scale_step=0.1,
    color_jitter=0.0,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=1e-4,
    decay_all=True,
    warmup_steps=0,
    balance_classes=False,
    precision="float32",
    validate_every=5000,
)
"""The command in the README of speedinghzl/CCNet (https://arxiv.org/abs/1811.11721)."""

RECIPES = {
    "cityscapes-r101": _AUTHORS,
    "cityscapes-r101-ohem": replace(_AUTHORS, ohem=True),
    # mmsegmentation's configs/ccnet, 769x769, 80k, on the backbone that has ImageNet weights here.
    "cityscapes-r101-openmmlab": replace(
        _AUTHORS,
        steps=80_000,
        scale_low=0.5,
        scale_high=2.0,
        scale_step=0.0,
        max_class_share=0.75,
        color_jitter=0.5,
        weight_decay=5e-4,
        min_learning_rate=1e-4,
        validate_every=8000,
    ),
    "camvid-r18": Recipe(scenes=64),
    # Every scene whole and small: what comes of some minutes without a GPU.
    "street-scenes-r18": Recipe(
        dataset="street-scenes",
        output_stride=16,
        steps=800,
        batch_size=4,
        crop_height=180,
        crop_width=240,
        scale_low=1.0,
        scale_high=1.0,
        color_jitter=0.0,
        learning_rate=2e-3,
        weight_decay=0.001,
        warmup_steps=20,
    ),
    "finetune": Recipe(
        dataset="folder",
        weights="DEFAULT",
        output_stride=16,
        steps=200,
        batch_size=4,
        learning_rate=5e-4,
        warmup_steps=20,
        validate_every=50,
    ),
}
