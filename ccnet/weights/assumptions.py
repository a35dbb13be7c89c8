"""Assumptions: what a file of weights does not tell, taken from arguments or said in the log."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ccnet.classes import LabelSet
from ccnet.weights.families import OPTION
from ccnet.weights.serialization import ModelWeights

logger = logging.getLogger(__name__)


def one_by_one(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of `CCNet`, with the options of the backbone as arguments of their own."""
    single = {name: value for name, value in arguments.items() if name != "backbone_options"}
    options = arguments.get("backbone_options")
    if isinstance(options, Mapping):
        single |= {f"{OPTION}{name}": value for name, value in options.items()}
    return single


def in_words(name: str, config: Mapping[str, Any]) -> str:
    """Says in words what is assumed; of options of the backbone as it is typed in their mapping."""
    if name == "label_set":
        first = config["label_set"]["categories"][0]
        whose = "Cityscapes'" if first == "road" else "just numbered"
        return f"the names of the {config['num_classes']} classes ({whose})"
    if name == "preprocessing":
        return "preprocessing with ImageNet's mean and std, RGB"
    value = one_by_one(config)[name]
    if name.startswith(OPTION):
        return f'"{name.removeprefix(OPTION)}": {value!r}'
    return f"{name}={value!r}"


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
    config, open_ones, given = dict(weights.config), {}, one_by_one(given)
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
        elif name.startswith(OPTION):
            options = config["backbone_options"]
            config["backbone_options"] = {**options, name.removeprefix(OPTION): value}
        else:
            config[name] = value
    if open_ones:
        options = [words for name, words in open_ones.items() if name.startswith(OPTION)]
        others = [words for name, words in open_ones.items() if not name.startswith(OPTION)]
        together = [f"backbone_options={{{', '.join(options)}}}"] if options else []
        logger.warning(
            "%s does not tell everything; assumed, where no argument says otherwise: %s",
            weights.source,
            "; ".join(others + together),
        )
    return replace(weights, config=config, assumed={})
