"""Freezing: the first stages of a network's backbone stay as they are in training."""

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ccnet.options import named_options

Network = TypeVar("Network", bound="Freezable")


class Freezable(nn.Module):
    """Network whose `backbone` can be frozen, wholly or its first stages.

    Attributes:
        frozen_stages: number of frozen stages; "all" for the whole backbone.
    """

    backbone: Any
    frozen_stages: int | str = 0

    @named_options()
    def freeze_backbone(self: Network, stages: int | str = "all") -> Network:
        """Freezes the first stages of the backbone, and those alone.

        Their parameters get no gradients, and they stay in evaluation mode whatever `train` says:
        norms use their running statistics and keep them. Call it before making the optimiser, and
        give that the parameters with `requires_grad`.

        Args:
            stages: how many: of a ResNet 1 is the stem, 2 adds `layer1`, 5 is everything. "all"
                for the whole backbone, 0 for none.

        Returns:
            The network itself, changed in place.

        Raises:
            ValueError: if there are not so many stages; names those that there are.
        """
        names = [", ".join(stage) for stage in stages_of(self.backbone)]
        is_number = isinstance(stages, int) and not isinstance(stages, bool)
        if stages != "all" and not (is_number and 0 <= int(stages) <= len(names)):
            raise ValueError(
                f"stages must be 'all' or a number in 0..{len(names)}, not {stages!r}: "
                f"the backbone has {'; '.join(names)}"
            )
        self._set_frozen(False)
        self.frozen_stages = stages
        self._set_frozen(True)
        return self.train(self.training)

    def train(self: Network, mode: bool = True) -> Network:
        """Sets training or evaluation mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def unfrozen_parts(self) -> list[nn.Module]:
        """Returns the modules that together have every parameter but the frozen ones."""
        if not self.frozen_stages:
            return [self]
        parts = [child for child in self.children() if child is not self.backbone]
        if self.frozen_stages == "all":
            return parts
        later = stages_of(self.backbone)[int(self.frozen_stages) :]
        return parts + [part for stage in later for part in stage.values()]

    def _frozen(self) -> Iterator[nn.Module]:
        if self.frozen_stages == "all":
            yield self.backbone
        elif self.frozen_stages:
            for stage in stages_of(self.backbone)[: int(self.frozen_stages)]:
                yield from stage.values()

    def _set_frozen(self, is_frozen: bool) -> None:
        for part in self._frozen():
            part.requires_grad_(not is_frozen)
        if self.frozen_stages:  # such as the positions of a transformer, which come first
            for parameter in _innermost(self.backbone).parameters(recurse=False):
                parameter.requires_grad_(not is_frozen)


def stages_of(backbone: nn.Module) -> list[dict[str, nn.Module]]:
    """Returns the stages of a backbone in their order: the modules of each by their names.

    Each child is a stage. Single layers, such as a stem's norm and activation, belong to the stage
    before them.
    """
    stages: list[dict[str, nn.Module]] = []
    for name, child in _innermost(backbone).named_children():
        is_layer = isinstance(child, _NormBase) or not any(True for _ in child.children())
        if is_layer and stages:
            stages[-1][name] = child
        else:
            stages.append({name: child})
    return stages


def _innermost(backbone: nn.Module) -> nn.Module:
    """Returns the module inside others that each have nothing else."""
    children = list(backbone.children())
    return _innermost(children[0]) if len(children) == 1 else backbone
