"""Training objective: preprocessing, forward pass and loss of a recipe."""

import logging

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ccnet import distributed
from ccnet.datasets import Sample
from ccnet.losses import CategoryConsistentLoss, OhemCrossEntropyLoss, SegmentationLoss
from ccnet.model import CCNet
from ccnet.norm import InPlaceABN, convert_inplace_abn, convert_sync_batchnorm
from ccnet.norm.conversion import NotInvertibleError
from ccnet.training.optimization import given_weights, log_balanced_weights
from ccnet.training.precision import autocast
from ccnet.training.recipes import Recipe

logger = logging.getLogger(__name__)

SMALL_GAIN = 0.03
"""Below it, `InPlaceABN` computes half-precision gradients of a gain with errors of some 10 %."""


class Objective(nn.Module):
    """Computes the loss of a batch of images and labels.

    Args:
        model: the network.
        loss: the loss of its outputs.
        recipe: gives the precision, not "auto", and whether to compile the model.
    """

    def __init__(self, model: CCNet, loss: SegmentationLoss, recipe: Recipe) -> None:
        super().__init__()
        self.preprocessing, self.recipe = model.preprocessing, recipe
        self.model = torch.compile(model) if recipe.compile else model
        self.loss = loss

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of images (N, 3, H, W), uint8, RGB, with labels (N, H, W), uint8."""
        parameter = next(self.parameters())
        batch = self.preprocessing(images.to(parameter.device, non_blocking=True))
        batch = batch.to(parameter.dtype).contiguous(memory_format=torch.channels_last)
        labels = labels.to(parameter.device, non_blocking=True)
        with autocast(parameter.device, self.recipe.precision):
            outputs = self.model(batch, return_rcca=self.loss.consistency is not None)
        loss: Tensor = self.loss({name: _at_least_float(x) for name, x in outputs.items()}, labels)
        return loss


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def prepare(model: CCNet, recipe: Recipe) -> CCNet:
    """Sets memory format, frozen stages, gradient checkpointing and norms of the model, in place.

    Raises:
        ValueError: if the backbone has fewer stages than the recipe freezes, or the recipe's norm
            is "inplace" and activations of the model that are not frozen are ReLU.
    """
    model.to(memory_format=torch.channels_last)
    model.backbone.gradient_checkpointing = recipe.gradient_checkpointing
    if recipe.freeze_backbone:
        stages = recipe.freeze_backbone
        try:
            model.freeze_backbone(stages if stages == "all" else int(stages))
        except ValueError as error:
            raise ValueError(f"freeze_backbone: {error}") from error
    if recipe.norm == "inplace":
        _convert_in_place(model)
        if recipe.precision != "float32":
            _warn_of_small_gains(model, recipe)
    if distributed.world_size() > 1:
        convert_sync_batchnorm(model)
    return model


def _convert_in_place(model: CCNet) -> None:
    names = {module: name for name, module in model.named_modules()}
    for part in model.unfrozen_parts():
        try:
            convert_inplace_abn(part)
        except NotInvertibleError as error:
            where = f"the activations of its {names[part]}" if names[part] else "activations"
            raise ValueError(
                f"norm 'inplace' needs a network of leaky ReLUs, and {where} are ReLU: give norm "
                "'batch', or start without weights, which keep their activations, and with "
                "negative_slope 0.01"
            ) from error


def _warn_of_small_gains(model: CCNet, recipe: Recipe) -> None:
    gains = [norm.weight.abs() for norm in model.modules() if isinstance(norm, InPlaceABN)]
    small = sum(int((gain < SMALL_GAIN).sum()) for gain in gains)
    if small:
        logger.warning(
            "%d channels have a gain below %g: in %s, norm 'inplace' computes the gradients of "
            "these gains inexactly; precision float32 does not, nor does gradient_checkpointing",
            small,
            SMALL_GAIN,
            recipe.precision,
        )


def make_objective(model: CCNet, train_set: Dataset[Sample], recipe: Recipe) -> Objective:
    """Builds the recipe's objective on the model's device; counts classes for `balance_classes`.

    Raises:
        ValueError: if `class_weights` do not fit the classes of the model.
    """
    joint = distributed.world_size() > 1
    weights, main, consistency = None, None, None
    if recipe.class_weights:
        weights = given_weights(recipe.class_weights, model.label_set.categories)
    elif recipe.balance_classes:
        weights = log_balanced_weights(train_set, len(model.label_set))
    if recipe.ohem:
        main = OhemCrossEntropyLoss(
            recipe.ohem_threshold, recipe.ohem_min_kept, class_weights=weights, joint=joint
        )
    if recipe.consistency_weight:
        torch.manual_seed(recipe.seed)
        consistency = CategoryConsistentLoss(model.head.channels)
    loss = SegmentationLoss(
        recipe.aux_weight,
        weights,
        main=main,
        consistency=consistency,
        consistency_weight=recipe.consistency_weight,
        joint=joint,
    )
    return Objective(model, loss.to(next(model.parameters())), recipe)
