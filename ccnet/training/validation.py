"""Validation: scores of a network in training, and the size at which it sees the images."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from ccnet import distributed
from ccnet.evaluation import Scores
from ccnet.evaluation.evaluate import own_confusion
from ccnet.inference import Segmentation
from ccnet.model import CCNet
from ccnet.training.learnt_size import learn_size
from ccnet.training.precision import autocast
from ccnet.training.recipes import Recipe
from ccnet.training.termination import Terminated, Termination


def validate(
    model: CCNet,
    val_set: Any,
    recipe: Recipe,
    step: int,
    termination: Termination,
    each: Callable[[int, Segmentation], None],
) -> Scores:
    """Evaluates a network as its recipe says, and sets its training size. Every rank must call.

    Args:
        model: the network.
        val_set: (image, mask) pairs.
        recipe: gives protocol and precision.
        step: of the weights, for errors; a checkpoint has them.
        termination: ends the validation of a rank after its current image, and all in the end.
        each: called with the index of an image and its segmentation, on the rank that made it.

    Returns:
        The scores over all images.

    Raises:
        Terminated: if any rank is to stop.
        ValueError: if the validation set has no labelled pixel.
    """
    stopped = Terminated(f"stopped while validating; checkpoint saved at step {step}")
    sizes, protocol = list[torch.Size](), recipe.protocol()
    device = next(model.parameters()).device

    def show(index: int, result: Segmentation, _: Scores) -> None:
        sizes.append(result.labels.shape)
        each(index, result)
        if termination.requested:
            raise stopped

    with suppress(Terminated), autocast(device, recipe.precision):
        confusion = own_confusion(model, val_set, protocol=protocol, each=show)
    if any(distributed.all_gather(termination.requested)):
        raise stopped
    confusion = distributed.all_reduce_sum(confusion.to(device)).cpu()
    scores = Scores(confusion, model.label_set)
    if math.isnan(scores.miou):
        raise ValueError("the validation set has no labelled pixels")
    learn_size(model, sizes, protocol)
    return scores
