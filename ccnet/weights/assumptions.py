"""Assumptions: what a file of weights does not tell, taken from arguments or said in the log."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ccnet.classes import LabelSet
from ccnet.weights.serialization import ModelWeights

logger = logging.getLogger(__name__)


def settle(weights: ModelWeights, given: Mapping[str, Any]) -> ModelWeights:
    """Replaces what was assumed by what is given, and logs the rest as a warning.

    A given argument then states how the weights were trained; it does not change them. So class
    names for as many classes as the weights have name these, and their classifier stays.

    Args:
        weights: whose `assumed` names the guesses in their configuration.
        given: arguments of `CCNet`.

    Raises:
        ValueError: if what is given contradicts the tensors.
    """
    config, open_ones = dict(weights.config), {}
    for name, words in weights.assumed.items():
        value = given.get(name)
        if value is None:
            open_ones[name] = words
        elif name == "label_set":
            labels = LabelSet.from_config(value)
            if len(labels) == config["num_classes"]:
                config[name] = labels.to_config()
        elif name == "recurrence" and value == 0:
            raise ValueError(
                f"recurrence must be 1 or more, not 0: {weights.source} has criss-cross attention"
            )
        elif name != "backbone_options":  # given one by one
            config[name] = value
    if open_ones:
        logger.warning(
            "%s does not tell everything; assumed, where no argument says otherwise: %s",
            weights.source,
            "; ".join(open_ones.values()),
        )
    return replace(weights, config=config, assumed={})
