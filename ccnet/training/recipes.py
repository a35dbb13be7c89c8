"""Named sets of hyper-parameters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes.

    Attributes:
        dataset: "camvid" or "street-scenes".
        backbone: that of `CCNet`.
        recurrence: the loops of criss-cross attention.
        output_stride: of the backbone while it trains; the parameters are those of every stride.
        scenes: rendered scenes (`StreetScenes`) that are mixed into every pass over the data.
        steps: optimiser steps.
        batch_size: images a step.
        crop_height: of the training crops, in pixels.
        crop_width: likewise.
        scale_low: the smallest random factor on the size of an image.
        scale_high: the largest.
        color_jitter: strength of the random change of colours, 0..1.
        optimizer: "sgd" or "adamw".
        learning_rate: at its highest.
        momentum: of SGD.
        weight_decay: on convolution kernels; biases, norms and gamma have none.
        warmup_steps: over which the learning rate rises linearly from 0.
        power: the learning rate falls as (1 - progress) ** power.
        aux_weight: the factor on the auxiliary loss.
        balance_classes: weigh rare classes more: 1 / ln(1.02 + share of the training pixels).
        precision: "float32" or "bfloat16" (autocast).
        validate_every: steps between two validations.
        seed: of the initial weights, the order of the data, augmentation and dropout.
    """

    dataset: str = "camvid"
    backbone: str = "resnet18"
    recurrence: int = 2
    output_stride: int = 8
    scenes: int = 0
    steps: int = 2000
    batch_size: int = 8
    crop_height: int = 360
    crop_width: int = 480
    scale_low: float = 0.5
    scale_high: float = 2.0
    color_jitter: float = 0.4
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    warmup_steps: int = 100
    power: float = 0.9
    aux_weight: float = 0.4
    balance_classes: bool = True
    precision: str = "bfloat16"
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "dataset": ("camvid", "street-scenes"),
            "optimizer": ("sgd", "adamw"),
            "precision": ("float32", "bfloat16"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is one of {allowed}, not {getattr(self, field)!r}")
        for field in ("steps", "batch_size", "crop_height", "crop_width", "validate_every"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)}")


RECIPES = {
    "camvid-r18": Recipe(scenes=64),
    "street-scenes-r18": Recipe(dataset="street-scenes", steps=400),
}
