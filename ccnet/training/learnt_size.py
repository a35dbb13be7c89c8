"""Learnt size: that of the images on which the best weights of a run are chosen."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ccnet.distributed import all_gather
from ccnet.inference.prediction import PredictionMixin
from ccnet.inference.protocol import InferenceProtocol
from ccnet.training.history import History

logger = logging.getLogger(__name__)


def learn_size(
    model: PredictionMixin,
    sizes: Iterable[Sequence[int]],
    protocol: InferenceProtocol,
) -> None:
    """Sets a network's training size to that at which it sees the median image, by area.

    Every rank must call.

    Args:
        model: the network.
        sizes: height and width of each image that this rank validated on, in pixels.
        protocol: of the validation, with one scale.
    """
    own = [(size[0], size[1]) for size in sizes]
    together = [size for part in all_gather(own) for size in part]
    ordered = sorted(together, key=lambda size: (math.prod(size), size))
    before = model.training_size
    size = protocol.view_size(ordered[len(ordered) // 2], *protocol.scales)
    model.training_size = size
    if size != before:
        text = "training size: %d x %d pixels, at which the median image to validate on is seen"
        logger.info(text, size[1], size[0])


def recall_size(model: PredictionMixin, config: Mapping[str, Any], history: History) -> None:
    """Sets the training size of a run that is resumed: that of its last validation.

    Args:
        model: the network.
        config: of the checkpoint, which is older than the validation after it.
        history: of the run up to the checkpoint's step.
    """
    model.training_size = history.training_size or config.get("training_size")


def unsized(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the training size, which a run learns."""
    return {name: value for name, value in config.items() if name != "training_size"}
