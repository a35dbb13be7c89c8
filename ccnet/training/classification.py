"""Classification: recipe, network, augmentation and optimisation to pre-train a backbone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn, optim
from torchvision.transforms import v2

from ccnet.backbones import BACKBONES, OUTPUT_STRIDES, Backbone
from ccnet.options import named_options
from ccnet.training.precision import autocast
from ccnet.training.recipe_fields import refuse_other_choices, settle_types
from ccnet.transforms import Preprocessing
from ccnet.weights import ModelWeights


@named_options()
@dataclass(frozen=True)
class ClassificationRecipe:
    """The hyper-parameters of a classification run.

    The options of the command line are these, in these groups, with these texts.

    Network:
        backbone: the backbone that learns.
        output_stride: output stride of the backbone; its weights fit every output stride.

    Schedule and optimiser:
        steps: number of optimiser steps.
        batch_size: images per optimiser step, over all ranks.
        learning_rate: the highest learning rate; it rises linearly and falls to 0 with the cosine.
        warmup_steps: steps of its rise.
        validate_every: optimiser steps between validations; each has a checkpoint.
        weight_decay: weight decay of kernels, in AdamW.
        average_decay: decay per step of the moving average of the weights, which is what is
            validated and written.

    Augmentation:
        size: side of the images, and of the crops of them, in pixels.
        scale_low: the smallest share of an image that a crop covers.
        color_jitter: strength of the jitter of brightness, contrast and saturation, 0..1.

    Loss:
        label_smoothing: share of the target spread over all classes.

    Precision:
        precision: "float32"; "bfloat16" (autocast); or "auto": bfloat16 where the device is faster
            at it. A resumed run keeps its precision.

    Run:
        seed: random seed of initial weights, data order and augmentation.

    Raises:
        ValueError: if a value is invalid; names field and value.
    """

    backbone: str = "resnet18"
    output_stride: int = 16
    size: int = 64
    scale_low: float = 0.25
    color_jitter: float = 0.4
    steps: int = 25_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 1000
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average_decay: float = 0.999
    precision: str = "auto"
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        refuse_other_choices(self, CHOICES)
        for field in fields(self):
            low, high = _RANGES.get(field.name, (0, math.inf))
            value = getattr(self, field.name)
            if not isinstance(value, str) and not low <= value <= high:
                raise ValueError(f"{field.name} must be in {low}..{high}, not {value}")


CHOICES = {
    "backbone": BACKBONES,
    "output_stride": OUTPUT_STRIDES,
    "precision": ("auto", "float32", "bfloat16"),
}
"""The allowed values of fields that have only a few."""

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("size", "steps", "batch_size", "validate_every"), (1, math.inf)),
    **dict.fromkeys(("scale_low", "color_jitter", "label_smoothing", "average_decay"), (0, 1)),
}


class Classifier(nn.Module):
    """Backbone, global average pooling and a linear classifier of uint8 images (N, 3, H, W).

    Args:
        recipe: gives the backbone, and the precision, not "auto".
        num_classes: K.
    """

    def __init__(self, recipe: ClassificationRecipe, num_classes: int) -> None:
        super().__init__()
        self.preprocessing, self.precision = Preprocessing(), recipe.precision
        self.backbone = Backbone(recipe.backbone, output_stride=recipe.output_stride)
        self.classifier = nn.Linear(self.backbone.channels[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits (N, K), float32."""
        batch = self.preprocessing(images).contiguous(memory_format=torch.channels_last)
        with autocast(images.device, self.precision):
            logits: Tensor = self.classifier(self.backbone(batch)[1].mean((-2, -1)))
        return logits.float()


def backbone_weights(
    classifier: Classifier, recipe: ClassificationRecipe, details: Mapping[str, str]
) -> ModelWeights:
    """Returns the backbone of a classifier as weights, with these details for their card."""
    classes, backbone = classifier.classifier.out_features, classifier.backbone
    return ModelWeights(
        backbone.state_dict(),
        {
            "backbone": recipe.backbone,
            "backbone_options": {"stem_widths": list(backbone.stem_widths)},
        },
        {**details, "weights": f"a backbone that classifies {classes} kinds of images"},
    )


def augmentation(recipe: ClassificationRecipe) -> v2.Compose:
    """Random crop, flip and colour jitter of an image (3, H, W), uint8; the class passes."""
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(recipe.size, (recipe.scale_low, 1.0)),
        v2.RandomHorizontalFlip(),
    ]
    if jitter := recipe.color_jitter:
        steps.append(v2.ColorJitter(jitter, jitter, jitter))
    return v2.Compose(steps)


def one_cycle(step: int, recipe: ClassificationRecipe) -> float:
    """Returns the learning rate factor: linear to 1, then with the cosine to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(model: nn.Module, recipe: ClassificationRecipe) -> optim.Optimizer:
    """Builds AdamW, with weight decay of kernels alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
