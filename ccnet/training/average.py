"""WeightAverage: the exponential moving average of a network's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The exponential moving average of parameters and buffers that are floating-point numbers.

    It takes on 1 - d of the weights after each step, where d is the decay, but at most
    (1 + step) / (10 + step): so it soon forgets where it began. In place of the weights it is as
    good as a lower learning rate at the end, at any time of a run.

    Args:
        model: whose weights it starts with.
        decay: d, 0 to less than 1.

    Attributes:
        tensors: the average, by name.

    Source:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the
        bound of d is that of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: one.clone() for name, one in floating(model.state_dict()).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes on the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own, new = self._beside(model)
        get_ema_multi_avg_fn(decay)(own, new, step)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Exchanges the average and the weights of the model; the same again undoes it."""
        for own, other in zip(*self._beside(model), strict=True):
            kept = own.clone()
            own.copy_(other)
            other.copy_(kept)

    def copy_to(self, model: nn.Module) -> None:
        """Gives the model the averaged weights."""
        model.load_state_dict({**model.state_dict(), **self.tensors})

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Gets the average of a checkpoint, which has the same names and shapes."""
        for name, own in self.tensors.items():
            own.copy_(tensors[name])

    def _beside(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        weights = model.state_dict()
        return list(self.tensors.values()), [weights[name] for name in self.tensors]


def floating(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns those tensors of a state that are floating-point numbers."""
    return {
        name: one
        for name, one in state.items()
        if isinstance(one, Tensor) and one.is_floating_point()
    }
