"""Recipe: the hyper-parameters of a training run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction

from ccnet.backbones import check_name
from ccnet.inference.protocol import MOST_SCALE, InferenceProtocol
from ccnet.options import named_options
from ccnet.schema import shown
from ccnet.training.camera import blur_radius
from ccnet.training.recipe_fields import (
    as_shares,
    as_text,
    refuse_other_choices,
    settle_types,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "dataset": ("camvid", "cityscapes", "folder", "labelmefacade", "street-scenes"),
    "optimizer": ("adamw", "sgd"),
    "norm": ("batch", "inplace"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
"""The allowed values of fields that have only a few."""

_AT_LEAST_ONE = (
    *("steps", "batch_size", "accumulation"),
    *("crop_height", "crop_width", "validate_every"),
)


LATER = (
    *("freeze_backbone", "augmentation", "class_weights", "patience", "mix"),
    *("size_factor", "gamma", "blur", "noise", "average_decay"),
)
"""Fields that runs of older versions do not have: they ran with the defaults."""

MOST_PIXELS = 2**26
"""Most pixels of a training crop: 8192x8192, for which no device has the memory."""


@named_options()
@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of a training run.

    The options of the command line are these, in these groups, with these texts.

    Data:
        dataset: "camvid", "cityscapes", "folder" (your own `MaskFolder`), "labelmefacade" or
            "street-scenes".
        leave_out: parts of names, separated by commas, such as "0006R0,0001TP": the images of the
            training set whose names contain one are not trained but validated on; empty for the
            usual validation set. Those of `mix` are left out only.
        mix: other data sets of the same classes to train on as well, and the share of each in the
            crops, such as "labelmefacade=0.5,street-scenes=0.1"; `dataset` has the rest. Empty for
            none.
        scenes: number of rendered scenes (`StreetScenes`) added to the training set, which must
            have CamVid's classes; or that `mix` draws from (0 for 800).
        size_factor: factor on the size of all images: the network learns from them, is validated
            and predicts at that size, such as 1.5 for thin things in small images.

    Network and start:
        weights: initial weights of the network: a name such as "DEFAULT", the path of a file or of
            the folder of a run, or "hf://owner/name"; empty for none.
        backbone: the backbone of `CCNet`, such as "resnet18" or "timm:convnext_tiny".
        weights_backbone: initial weights of the backbone alone: "DEFAULT" (ImageNet), or a path.
        freeze_backbone: the first stages of the backbone that stay as they are, with their norms in
            evaluation mode: a number (of a ResNet 1 is the stem, 2 adds layer1, 5 is everything) or
            "all"; empty for none.
        output_stride: output stride of the backbone; weights fit every output stride.
        recurrence: number of criss-cross attention loops; 0 for no attention.
        negative_slope: slope of the leaky ReLU activations; 0 is ReLU. `weights` keep their own.

    Schedule and optimiser:
        steps: number of optimiser steps.
        batch_size: images per optimiser step, over all ranks and accumulated forward passes.
        learning_rate: the highest learning rate, reached after warmup.
        warmup_steps: steps of linear learning rate warmup from 0.
        validate_every: optimiser steps between validations; each validation has a checkpoint.
        patience: validations in a row without a new best mIoU after which the run ends early; 0
            for never.
        optimizer: "sgd" or "adamw".
        weight_decay: weight decay of convolution kernels.
        decay_all: apply weight decay to biases, norms and gamma too, as in the published code.
        momentum: momentum of SGD.
        power: exponent of the polynomial learning rate decay, (1 - progress) ** power.
        min_learning_rate: the learning rate at the end of the decay.
        average_decay: decay per step of the moving average of the weights, which is what is
            validated and written, such as 0.999; 0 for the weights themselves.

    Augmentation:
        crop_height: height of the training crops, in pixels.
        crop_width: width of the training crops, in pixels.
        scale_low: the smallest random factor on the size of an image.
        scale_high: the largest random factor on the size of an image.
        scale_step: step between possible factors; 0 for any factor in the range.
        color_jitter: strength of the colour jitter, 0..1.
        gamma: the largest random gamma less 1, as of dusk and of glaring light: 0.5 takes gammas
            from 1/1.5 to 1.5; 0 for none.
        blur: half of the crops are blurred by a Gaussian of at most this standard deviation, in
            pixels; 0 for none.
        noise: half of the crops get Gaussian noise of at most this standard deviation, in grey
            steps of 255; 0 for none.
        augmentation: your own, after the recipe's: a transform of torchvision.transforms.v2, such
            as "RandomRotation(15)", or an import path, such as "my_module:make_transform"; empty
            for none.
        max_class_share: redraw crops with a larger share of one class, up to ten times.

    Loss:
        balance_classes: weight classes in the loss by 1 / ln(1.02 + share of training pixels),
            unless there are `class_weights`.
        class_weights: weights of classes in the loss, by name or number, 1 for the others, such as
            "car=2,sky=0.5"; or one for each class, such as "1,2,0.5"; empty for none.
        aux_weight: factor on the auxiliary loss.
        ohem: online hard example mining: only hard pixels count in the main loss
            (`OhemCrossEntropyLoss`).
        ohem_threshold: pixels are hard up to this probability of the true class.
        ohem_min_kept: minimum number of hard pixels per rank and forward pass; the default is meant
            for two images.
        consistency_weight: factor on the category consistent loss; 0 for none.

    Precision and memory:
        precision: "float32"; "bfloat16" (autocast); "float16" (autocast with a loss scaler); or
            "auto": bfloat16 where the device is faster at it, else float32. A resumed run keeps its
            precision.
        accumulation: gradient accumulation: forward and backward passes per optimiser step.
        gradient_checkpointing: recompute the backbone in the backward pass, to save memory.
        norm: "batch" (batch normalisation, synchronised over ranks), or "inplace"
            (`norm.InPlaceABN`, which saves memory and needs `negative_slope` above 0).
        compile: compile the model with torch.compile.

    Run:
        seed: random seed of initial weights, data order, augmentation and dropout.

    Raises:
        ValueError: if a value is invalid, alone or in combination; names field and value.
    """

    dataset: str = "camvid"
    leave_out: str = ""
    mix: str = ""
    backbone: str = "resnet18"
    recurrence: int = 2
    output_stride: int = 8
    negative_slope: float = 0.0
    size_factor: float = 1.0
    weights: str = ""
    weights_backbone: str = ""
    freeze_backbone: str = ""
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
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    augmentation: str = ""
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    min_learning_rate: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.01
    decay_all: bool = False
    warmup_steps: int = 100
    power: float = 0.9
    average_decay: float = 0.0
    aux_weight: float = 0.4
    balance_classes: bool = True
    class_weights: str = ""
    ohem: bool = False
    ohem_threshold: float = 0.7
    ohem_min_kept: int = 100_000
    consistency_weight: float = 0.0
    norm: str = "batch"
    gradient_checkpointing: bool = False
    precision: str = "auto"
    compile: bool = False
    validate_every: int = 250
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("freeze_backbone", "class_weights", "mix"):
            object.__setattr__(self, name, as_text(name, getattr(self, name)))
        if not isinstance(self.augmentation, str):
            raise ValueError(
                f"augmentation must be text, '' for none, not {shown(self.augmentation)}: give a "
                "transform itself to the trainer, Trainer(augmentation=...)"
            )
        settle_types(self)
        refuse_other_choices(self, CHOICES)
        as_shares("mix", self.mix, CHOICES["dataset"])
        check_name(self.backbone)
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name in _AT_LEAST_ONE)
            if not isinstance(value, str) and not least <= value < math.inf:
                raise ValueError(f"{field.name} must be at least {least}, not {value}")
        if self.crop_height * self.crop_width > MOST_PIXELS:
            raise ValueError(
                f"crop_height {self.crop_height} x crop_width {self.crop_width} must be at most "
                f"{MOST_PIXELS} pixels"
            )
        shorter = min(self.crop_height, self.crop_width)
        if blur_radius(self.blur) > shorter - 1:
            raise ValueError(
                f"blur {self.blur:g} is too much for crops of {self.crop_height}x{self.crop_width} "
                f"pixels: at most {(shorter - 1) // 3}"
            )
        if self.noise > 255:
            raise ValueError(f"noise must be in 0..255, grey steps, not {self.noise:g}")
        if not 1 / MOST_SCALE <= self.size_factor <= MOST_SCALE:
            raise ValueError(
                f"size_factor must be in {1 / MOST_SCALE:g}..{MOST_SCALE:g}, not {self.size_factor}"
            )
        if self.average_decay >= 1:
            raise ValueError(f"average_decay must be in 0..1, less than 1: {self.average_decay}")
        if self.freeze_backbone not in ("", "all") and not self.freeze_backbone.isdecimal():
            raise ValueError(
                "freeze_backbone must be a number of stages, 'all', or empty, "
                f"not {self.freeze_backbone!r}"
            )
        if not 0 < self.learning_rate >= self.min_learning_rate:
            raise ValueError(
                "learning_rate must be above 0 and at least min_learning_rate "
                f"{self.min_learning_rate}, not {self.learning_rate}"
            )
        if self.weights and self.weights_backbone:
            raise ValueError(
                f"weights {self.weights!r} include a backbone: leave weights_backbone empty, "
                f'not {self.weights_backbone!r}, or weights (--weights "")'
            )
        if self.norm == "inplace" and self.gradient_checkpointing:
            raise ValueError(
                "norm 'inplace' and gradient_checkpointing exclude each other: "
                "both save activations; give one"
            )
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "compile and gradient_checkpointing exclude each other: give one; "
                "norm 'inplace' saves memory as well"
            )

    def shares(self) -> list[tuple[str, Fraction]]:
        """Returns the data sets to train on, `dataset` first, and the share of each: 1 together."""
        others = as_shares("mix", self.mix, CHOICES["dataset"])
        return [(self.dataset, 1 - sum((share for _, share in others), Fraction())), *others]

    def protocol(self) -> InferenceProtocol:
        """Returns how images are validated: whole, at `size_factor` times their size.

        They are reduced through a low-pass filter, as crops are and as `predict` reduces images.
        """
        return InferenceProtocol(scales=(self.size_factor,), antialias=self.size_factor < 1)


def with_later_fields(saved: Mapping[str, object]) -> dict[str, object]:
    """Adds fields that a version of this package before them has not saved."""
    return {**{name: getattr(Recipe, name) for name in LATER}, **saved}
