"""Reconfiguration: networks of weights, and what carries over to another configuration."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ccnet.classes import complete_arguments
from ccnet.schema import check, mapping, reason_of
from ccnet.transforms import Preprocessing
from ccnet.weights.assumptions import settle
from ccnet.weights.model_card import inherited_details
from ccnet.weights.serialization import NEEDED, ModelWeights, check_fit, fingerprint, load_strictly

logger = logging.getLogger(__name__)

Config = Mapping[str, Any]

Network = TypeVar("Network", bound=Any)
"""A module with `config`, `card_details` and `training_size`."""

WITHOUT_EFFECT = {"aux_channels": None, "dropout": None, "training_size": None}
"""Arguments that do not change what a network computes in evaluation mode."""


def build_from_weights(
    build: Callable[..., Network], weights: ModelWeights, changes: Config
) -> Network:
    """Builds the network of some weights, with changes to its configuration.

    Tensors are compared with the network before memory of its size is allocated.

    Args:
        build: makes an untrained network of a configuration.
        weights: tensors, which are copied, and configuration.
        changes: arguments of `build` that replace those of the configuration, and `categories`.

    Raises:
        TypeError: if `changes` has an unknown argument.
        ValueError: if the configuration is none of a network, or the tensors do not fit.
    """
    changes = complete_arguments(changes)
    weights = settle(weights, changes)
    absent = NEEDED - weights.config.keys()
    if absent:
        listed = ", ".join(sorted(absent))
        raise ValueError(f"{weights.source} has no {listed} in its configuration")
    with torch.device("meta"):
        try:
            trained = build(**weights.config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the configuration of {weights.source} does not describe a CCNet: "
                f"{reason_of(error)}"
            ) from error
        model = build(**changed_config(weights.config, changes)) if changes else trained
    changed = changed_parts(model.config, trained.config)
    names = model.state_dict().keys()
    fresh = [part for part in changed if any(name.startswith(part) for name in names)]
    tensors = weights.state_dict.items()
    kept = {name: value for name, value in tensors if not str(name).startswith(changed)}
    try:
        kept = adapted_to_channels(kept, model.config, trained.config, model)
        if fresh or has_unsaved_buffers(model):
            check_fit(model, kept, fresh=changed)
            apart = drawing_apart(replace(weights, state_dict=kept)) if fresh else nullcontext()
            with torch.device("cpu"), apart:
                model = build(**model.config)
        load_strictly(model, kept, fresh=changed)
    except ValueError as error:
        raise ValueError(f"{weights.source}: {error}") from error
    if "head.classifier" in changed and "training_size" not in changes:
        model.training_size = None  # that of the images that it is yet to learn from
    if fresh:
        logger.warning("%s: these parts start untrained: %s", weights.source, ", ".join(fresh))
    is_same = compute_the_same(model.config, trained.config)
    model.card_details = dict(weights.details) if is_same else inherited_details(weights.details)
    built: Network = model.to(torch.empty(0).device).eval()
    return built


@contextmanager
def drawing_apart(weights: ModelWeights) -> Iterator[None]:
    """Draws other random numbers inside than those that some weights may have begun with.

    With the seed that they were trained with, a new classifier would start as theirs started, and
    trained rows resemble those at the start: it would start with the classes of the weights. What
    is drawn depends on PyTorch's random state and on the weights.
    """
    seed = int(torch.randint(2**62, ())) ^ int(fingerprint(weights)[:15], 16)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def changed_config(config: Config, changes: Config) -> dict[str, Any]:
    """Applies changes to a configuration; those of `backbone_options` one by one.

    The label set goes if the number of classes changes, and preprocessing is adapted to another
    number of channels.

    Raises:
        ValueError: if `backbone_options` are no mapping, or preprocessing cannot be adapted.
    """
    changed = {**config, **changes}
    if changed["num_classes"] != config["num_classes"]:
        changed["label_set"] = changes.get("label_set")
    if "in_channels" in changes and "preprocessing" not in changes:
        changed["preprocessing"] = adapted_preprocessing(config, changes["in_channels"])
    changed["backbone_options"] = {}
    for source in (config, changes):
        options = {"backbone_options": source.get("backbone_options") or {}}
        check(options, {"backbone_options": mapping()})
        changed["backbone_options"] |= options["backbone_options"]
    return changed


def adapted_preprocessing(config: Config, in_channels: int) -> dict[str, Any]:
    """Returns the preprocessing of a configuration for another number of channels.

    Raises:
        ValueError: if it cannot be adapted.
    """
    default = Preprocessing().for_channels(config.get("in_channels", 3))
    known = Preprocessing.from_config(config.get("preprocessing"), default)
    return known.for_channels(in_channels).to_config()


def changed_parts(config: Config, trained: Config) -> tuple[str, ...]:
    """Returns prefixes of the parameters that do not carry over between the configurations."""
    parts = []
    if config["label_set"]["categories"] != trained["label_set"]["categories"]:
        parts += ["head.classifier", "aux_head.classifier"]
    if bool(config["recurrence"]) != bool(trained["recurrence"]):
        parts.append("head.cca")
    if config["aux_channels"] != trained["aux_channels"]:
        parts = [part for part in parts if part != "aux_head.classifier"] + ["aux_head"]
    return tuple(parts)


def adapted_to_channels(
    tensors: Mapping[str, Tensor], config: Config, trained: Config, model: nn.Module
) -> dict[str, Tensor]:
    """Adapts the kernels of the first convolution to another number of input channels.

    One channel gets the sum of the kernels, so that a grey picture gives what it gave as RGB, but
    for the normalisation by one mean and std in place of three; more channels get the first kernels
    again, scaled for the same sum.

    Args:
        tensors: of the trained network.
        config: of the new network.
        trained: of the trained network.
        model: the new network, for its shapes; it may be on the meta device.
    """
    before, after = trained.get("in_channels", 3), config.get("in_channels", 3)
    adapted = dict(tensors)
    if before == after:
        return adapted
    for name, target in model.state_dict().items():
        kernels = tensors.get(name)
        if kernels is None or kernels.dim() != 4 or kernels.shape == target.shape:
            continue
        if (kernels.shape[1], target.shape[1]) == (before, after):
            if after == 1:
                adapted[name] = kernels.sum(dim=1, keepdim=True)
            else:
                repeated = kernels.repeat(1, -(-after // before), 1, 1)[:, :after]
                adapted[name] = repeated * (before / after)
    return adapted


def has_unsaved_buffers(model: nn.Module) -> bool:
    """Whether a model has values that its constructor computes and that are not saved."""
    return bool(dict(model.named_buffers()).keys() - model.state_dict().keys())


def as_json(options: Config) -> dict[str, Any]:
    """Returns options as JSON-able values: tuples become lists."""
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in options.items()
    }


def compute_the_same(config: Config, trained: Config) -> bool:
    """Returns whether two networks of the same parameters compute the same in evaluation mode."""
    return {**trained, **WITHOUT_EFFECT} == {**config, **WITHOUT_EFFECT}
