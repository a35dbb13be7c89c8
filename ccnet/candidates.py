"""Weights to measure, and what the registry says of them: classes, protocol, published figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchvision.models import WeightsEnum

from ccnet.classes import LabelSet
from ccnet.model import CCNet
from ccnet.protocol import Protocol
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)
from ccnet.zoo import NETWORKS

REGISTRY: dict[str, type[WeightsEnum]] = {
    "ccnet_resnet18": CCNet_ResNet18_Weights,
    "ccnet_resnet50": CCNet_ResNet50_Weights,
    "ccnet_resnet101": CCNet_ResNet101_Weights,
}
"""The weights that have a name, by network."""


@dataclass(frozen=True)
class Candidate:
    """Weights to measure.

    Attributes:
        network: a name in `zoo.NETWORKS`.
        weights: a member of the registry, or what else the network takes: the path of a file.
    """

    network: str
    weights: WeightsEnum | str

    def __str__(self) -> str:
        return str(self.weights)

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the registry knows of them; nothing of a file."""
        return self.weights.meta if isinstance(self.weights, WeightsEnum) else {}

    def protocol(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The protocol of the published figure, or with `changes` another one.

        Args:
            changes: keyword arguments of `CCNet.predict`. Another mode or crop leaves the windows
                of the published protocol behind.

        Raises:
            ValueError: if the two make no protocol together.
        """
        outdated = {"crop", "stride"} if {"mode", "crop"} & changes.keys() else set()
        own = self.meta.get("protocol", {})
        chosen = {**{name: own[name] for name in own if name not in outdated}, **changes}
        Protocol(**chosen)
        return chosen

    def published(self, dataset: str, protocol: Mapping[str, Any]) -> tuple[float, str] | None:
        """The registry's mIoU in percent and whose it is; None if it has none by this protocol."""
        figures = self.meta.get("metrics", {}).get(dataset)
        if figures is None or Protocol(**protocol) != Protocol(**self.meta["protocol"]):
            return None
        return figures["mIoU"], self.meta["whose"]

    def load(self, label_set: LabelSet) -> CCNet:
        """The network with these weights.

        Args:
            label_set: the classes that it must know.

        Raises:
            FileNotFoundError: if the weights were not found; names the places tried.
            ValueError: if there are no such weights, or they know other classes.
        """
        if self.meta:
            self._check(self.meta["categories"], label_set)
        model = NETWORKS[self.network](weights=self.weights)
        self._check(model.label_set.categories, label_set)
        return model

    def _check(self, categories: Sequence[str], label_set: LabelSet) -> None:
        if tuple(categories) != label_set.categories:
            raise ValueError(
                f"{self} knows {len(categories)} classes ({', '.join(categories)}), but the data "
                f"set has {len(label_set)} ({', '.join(label_set.categories)})"
            )


def find_candidates(
    weights: str, label_set: LabelSet, network: str | None = None
) -> list[Candidate]:
    """The weights that a name means.

    Args:
        weights: the name of a member, alone or as in ENUM.MEMBER; the path of a file; or "all" for
            all members that know the classes.
        label_set: the classes, for "all", and for the choice of a network.
        network: a name in `zoo.NETWORKS`; by default that of ENUM, or else the largest that has
            weights for the classes, or ResNet-18.

    Raises:
        ValueError: if "all" are none.
    """
    fitting = [
        Candidate(key, member)
        for key, choice in REGISTRY.items()
        for member in choice
        if network in (key, None) and tuple(member.meta["categories"]) == label_set.categories
    ]
    if weights == "all":
        if not fitting:
            raise ValueError(
                f"the registry has no weights for these classes: {', '.join(label_set.categories)}"
            )
        return fitting
    for key, choice in REGISTRY.items():
        if weights.startswith(f"{choice.__name__}."):
            network, weights = key, weights.removeprefix(f"{choice.__name__}.")
    network = network or (fitting[-1].network if fitting else "ccnet_resnet18")
    members = REGISTRY[network].__members__
    return [Candidate(network, members.get(weights, weights))]
