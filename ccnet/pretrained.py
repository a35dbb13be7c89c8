"""Networks with weights: from a name, a file or the Hub into a matching `CCNet`, or an error."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from torchvision.models import WeightsEnum, get_model_weights

from ccnet.classes import LabelSet
from ccnet.conversion import convert, convert_backbone, read_pickle
from ccnet.download import Loaded, load_from_hub, load_weights
from ccnet.model import CCNet
from ccnet.serialization import load_strictly
from ccnet.weights import BackboneWeights

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin")

WeightsLike: TypeAlias = WeightsEnum | str | os.PathLike[str]


def build(
    backbone: str,
    choice: type[WeightsEnum],
    weights: WeightsLike | None,
    weights_backbone: WeightsLike | None,
    progress: bool,
    config: Mapping[str, Any],
) -> CCNet:
    """A network, with the weights that were asked for or an error.

    Args:
        backbone: that of `CCNet`.
        choice: the weights that have a name.
        weights: one of them or its name, a path, "hf://owner/name@revision", or None.
        weights_backbone: ImageNet weights for a network that has no others.
        progress: show a progress bar of a download.
        config: arguments of `CCNet` that replace those of the weights, unless they are None;
            `categories` stands for a label set of these names.

    Raises:
        FileNotFoundError: if the weights were not found; names the places tried.
        ValueError: if there are no such weights, or they do not fit the network.
    """
    arguments = {name: value for name, value in config.items() if value is not None}
    if "categories" in arguments:
        categories = arguments.pop("categories")
        if isinstance(categories, str):
            raise ValueError(f"categories are a list of names, not {categories!r}")
        arguments["label_set"] = {"categories": list(categories)}
    if "label_set" in arguments:
        arguments.setdefault("num_classes", len(LabelSet.from_config(arguments["label_set"])))
    if weights is None:
        model = CCNet(backbone, **arguments)
        if weights_backbone is not None:
            _load_backbone(model, weights_backbone, progress)
        return model
    if weights_backbone is not None:
        raise ValueError("give either weights or weights_backbone: weights hold a backbone too")
    loaded = _load(choice, weights, progress)
    trained = loaded.config
    if trained.get("backbone") != backbone:
        raise ValueError(
            f"{loaded.place} holds weights for {trained.get('backbone')}, not for {backbone}: "
            f"take the network ccnet_{trained.get('backbone')}"
        )
    absent = {"num_classes", "recurrence", "aux_channels", "label_set"} - trained.keys()
    if absent:
        raise ValueError(f"{loaded.place} does not say its {', '.join(sorted(absent))}")
    if arguments.get("num_classes", trained["num_classes"]) != trained["num_classes"]:
        arguments.setdefault("label_set", None)
    try:
        with torch.device("meta"):
            model = CCNet(**{**trained, **arguments})
    except TypeError as error:
        raise ValueError(f"{loaded.place} with {arguments} makes no CCNet: {error}") from error
    changed = _changed_parts(model.config, trained)
    fresh = [part for part in changed if any(name.startswith(part) for name in model.state_dict())]
    if fresh:
        model = CCNet(**model.config)
        logger.warning("%s: these parts start untrained: %s", loaded.place, ", ".join(fresh))
    kept = {
        name: value for name, value in loaded.state_dict.items() if not name.startswith(changed)
    }
    load_strictly(model, kept, fresh=changed)
    model.card_details = dict(loaded.details)
    if fresh:
        model.card_details = inherited_details(model.card_details)
    return model.eval()


def inherited_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """What stays known of weights, for a model card, once they are trained further."""
    kept = {key: details[key] for key in ("license", "source") if key in details}
    if "weights" in details:
        origin = str(details["weights"]).removeprefix("fine-tuned from ")
        kept["weights"] = f"fine-tuned from {origin}"
    return kept


def _changed_parts(config: Mapping[str, Any], trained: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of the parameters for which the weights of another configuration are of no use."""
    parts = []
    if config["label_set"]["categories"] != trained["label_set"]["categories"]:
        parts += ["head.classifier", "aux_head.classifier"]
    if bool(config["recurrence"]) != bool(trained["recurrence"]):
        parts.append("head.cca")
    if config["aux_channels"] != trained["aux_channels"]:
        parts.append("aux_head")
    return tuple(parts)


def _load(choice: type[WeightsEnum], weights: WeightsLike, progress: bool) -> Loaded:
    if isinstance(weights, choice):
        return load_weights(weights, progress=progress)
    names = list(choice.__members__)
    if isinstance(weights, WeightsEnum):
        raise ValueError(f"{weights} is for another network; for this one there are {names}")
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            f"weights are a name, a path or a member of {choice.__name__}, "
            f"not a {type(weights).__name__}"
        )
    name = os.fspath(weights).removeprefix(f"{choice.__name__}.")
    if name in names:
        return load_weights(choice[name], progress=progress)
    if name.startswith("hf://"):
        repo_id, _, revision = name.removeprefix("hf://").partition("@")
        return load_from_hub(repo_id, revision or None, progress=progress)
    if name and Path(name, SAFETENSORS_SINGLE_FILE).is_file():
        name = str(Path(name, SAFETENSORS_SINGLE_FILE))
    if name.endswith(".safetensors"):
        return Loaded.from_file(name)
    if Path(name).suffix in CHECKPOINT_SUFFIXES or Path(name).is_file():
        converted = convert(read_pickle(name))
        logger.warning("%s is a checkpoint of %s", name, converted.source)
        return Loaded(converted.state_dict, converted.config, name)
    raise ValueError(
        f"no weights {name!r}: expected one of {', '.join(names)}, the path of a .safetensors "
        "file, of a folder that save_pretrained wrote, or of a checkpoint of the authors, "
        "CCNet-Pure-Pytorch or OpenMMLab, or hf://owner/name "
        "(weights=None makes an untrained network)"
    )


def _load_backbone(model: CCNet, weights: WeightsLike, progress: bool) -> None:
    """Loads ImageNet weights: torchvision's for the 7x7 stem, timm's for the deep one."""
    name, stem = model.config["backbone"], list(model.backbone.stem_widths)
    candidates: Any = BackboneWeights if stem else get_model_weights(name)
    known = {
        member.name: member
        for member in candidates
        if not stem or (member.meta["backbone"], member.meta["stem_widths"]) == (name, stem)
    }
    choice = weights.name if isinstance(weights, WeightsEnum) else os.fspath(weights)
    if choice == "DEFAULT" and known:
        choice = list(known)[-1]
    if choice not in known or (isinstance(weights, WeightsEnum) and weights is not known[choice]):
        raise ValueError(
            f"no ImageNet weights {choice!r} for {name} with stem {stem or '7x7'}: "
            f"there are {', '.join(known) or 'none'}"
        )
    member = known[choice]
    if isinstance(member, BackboneWeights):
        state_dict = load_weights(member, progress=progress).state_dict
    else:
        state_dict = member.get_state_dict(progress=progress, check_hash=True, weights_only=True)
    load_strictly(model.backbone, convert_backbone(state_dict))
