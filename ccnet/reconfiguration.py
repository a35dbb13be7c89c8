"""Reconfiguration: what of some weights carries over to a network of another configuration."""

from collections.abc import Mapping
from typing import Any

from ccnet.schema import check, mapping

Config = Mapping[str, Any]

_WITHOUT_EFFECT = {"aux_channels": None, "dropout": None}
"""Arguments that do not change what a network computes in evaluation mode."""


def changed_config(config: Config, changes: Config) -> dict[str, Any]:
    """Applies changes to a configuration; those of `backbone_options` one by one.

    The label set goes if the number of classes changes.

    Raises:
        ValueError: if `backbone_options` are no mapping.
    """
    changed = {**config, **changes}
    if changed["num_classes"] != config["num_classes"]:
        changed["label_set"] = changes.get("label_set")
    changed["backbone_options"] = {}
    for source in (config, changes):
        options = {"backbone_options": source.get("backbone_options") or {}}
        check(options, {"backbone_options": mapping()})
        changed["backbone_options"] |= options["backbone_options"]
    return changed


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


def compute_the_same(config: Config, trained: Config) -> bool:
    """Returns whether two networks of the same parameters compute the same in evaluation mode."""
    return {**trained, **_WITHOUT_EFFECT} == {**config, **_WITHOUT_EFFECT}
