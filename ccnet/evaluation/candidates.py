"""Candidates: weights to evaluate, with the registry's classes, protocol and published mIoU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchvision.models import WeightsEnum

from ccnet.classes import LabelSet
from ccnet.inference import InferenceProtocol
from ccnet.model import CCNet
from ccnet.weights.registry import REGISTRY
from ccnet.zoo import find_builder


@dataclass(frozen=True)
class Candidate:
    """Weights to evaluate.

    Attributes:
        network: a name that `zoo.find_builder` knows.
        weights: a member of the registry, or the path of a file.
    """

    network: str
    weights: WeightsEnum | str

    def __str__(self) -> str:
        return str(self.weights)

    @property
    def meta(self) -> Mapping[str, Any]:
        """The registry's entry; empty for a file."""
        return self.weights.meta if isinstance(self.weights, WeightsEnum) else {}

    @property
    def protocol(self) -> InferenceProtocol:
        """The protocol of the published mIoU; the default one for a file."""
        protocol: InferenceProtocol = self.meta.get("protocol", InferenceProtocol())
        return protocol

    def published(self, dataset: str, protocol: InferenceProtocol) -> tuple[float, str] | None:
        """The registry's mIoU in percent and who measured it; None if not for this protocol."""
        figures = self.meta.get("metrics", {}).get(dataset)
        if figures is None or protocol != self.protocol:
            return None
        return figures["mIoU"], self.meta["whose"]

    def load(self, label_set: LabelSet | None = None) -> CCNet:
        """Builds the model.

        Args:
            label_set: the classes that it must have, and may have more; None for any.

        Raises:
            FileNotFoundError: if the weights are not found; names the places tried.
            ValueError: if there are no such weights, or they lack classes.
        """
        if self.meta and label_set:
            self._check(self.meta["categories"], label_set)
        model = find_builder(self.network)(weights=self.weights)
        if label_set:
            self._check(model.label_set.categories, label_set)
        return model

    def _check(self, categories: Sequence[str], label_set: LabelSet) -> None:
        if not set(label_set.categories) <= set(categories):
            raise ValueError(
                f"{self} has {len(categories)} classes ({', '.join(categories)}), but the data "
                f"set has {len(label_set)} ({', '.join(label_set.categories)}): give weights of "
                "these (--weights), or images and masks of the weights' own classes (a folder)"
            )


def find_candidates(
    weights: str, label_set: LabelSet | None, network: str | None = None
) -> list[Candidate]:
    """Resolves a name to weights.

    Args:
        weights: a member of the registry, alone or as ENUM.MEMBER; the path of a file; "all" for
            all members with these classes; or "DEFAULT" for the default of the largest network
            whose default has these classes, else for the member of the highest published mIoU.
        label_set: the classes of the data set; None if it has those of the weights.
        network: a name that `zoo.find_builder` knows; by default that of ENUM, else the largest
            with such weights, for a file the largest with weights for just these classes, else
            ResNet-18.

    Raises:
        ValueError: if there is no such network, or `weights` is "all" and no member has these
            classes.
    """
    fitting = [
        Candidate(f"ccnet_{backbone}", member)
        for backbone, choice in REGISTRY.items()
        for member in choice
        if network in (f"ccnet_{backbone}", None)
        and label_set is not None
        and set(label_set.categories) <= set(member.meta["categories"])
    ]
    if weights == "all":
        if label_set is None:
            raise ValueError("all weights need a data set that names its classes (classes.json)")
        if not fitting:
            raise ValueError(
                f"the registry has no weights for these classes: {', '.join(label_set.categories)}"
            )
        return fitting
    for backbone, choice in REGISTRY.items():
        if weights.startswith(f"{choice.__name__}."):
            return [_named(f"ccnet_{backbone}", weights.removeprefix(f"{choice.__name__}."))]
    if weights == "DEFAULT" and fitting:
        defaults = [one for one in fitting if one == _named(one.network, "DEFAULT")]
        return defaults[-1:] or [max(fitting, key=_published_miou)]
    named = [one for one in fitting if one == _named(one.network, weights)]
    same = [one for one in fitting if label_set and len(one.meta["categories"]) == len(label_set)]
    likely = [*same, *named]
    return [_named(network or (likely[-1].network if likely else "ccnet_resnet18"), weights)]


def _named(network: str, weights: str) -> Candidate:
    """The member of this name, or a file."""
    find_builder(network)
    choice = REGISTRY.get(network.removeprefix("ccnet_"))
    return Candidate(network, (choice.__members__ if choice else {}).get(weights, weights))


def _published_miou(candidate: Candidate) -> float:
    return max(float(figures["mIoU"]) for figures in candidate.meta["metrics"].values())
