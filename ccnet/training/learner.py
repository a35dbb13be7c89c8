"""Learner: what learns in a run, as checkpoints keep it: network, loss, optimiser, loss scaler."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ccnet.training.average import WeightAverage, floating
from ccnet.training.restoration import difference, refuse_unlike, restore_optimizer


@dataclass
class Learner:
    """The parts of a run that have a state of tensors.

    Attributes:
        model: the network.
        loss: the loss, which may have parameters of its own.
        optimizer: for the parameters of both.
        scaler: the loss scaler, which does nothing unless the precision is float16.
        average: the moving average of the network's weights; None if there is none.
    """

    model: nn.Module
    loss: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None

    def update(self, step: int) -> None:
        """Runs the optimiser with the gradients of a step, counted from 0."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the network has the averaged weights, if there is an average."""
        if self.average is None:
            yield
            return
        self.average.exchange(self.model)
        try:
            yield
        finally:
            self.average.exchange(self.model)

    def finish(self) -> None:
        """Leaves the network with the averaged weights, if there is an average."""
        if self.average is not None:
            self.average.copy_to(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The state, for a checkpoint; `is_stepped` says whether the optimiser has any."""
        average = {} if self.average is None else {"average": self.average.tensors}
        return {
            **average,
            "model": self.model.state_dict(),
            "loss_function": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "is_stepped": bool(self.optimizer.state),
        }

    def load(self, run_dir: Path, saved: Mapping[str, Any], changed: Collection[str] = ()) -> None:
        """Gets the state of a checkpoint, after all of it is checked.

        Args:
            run_dir: the folder of the run.
            saved: the checkpoint.
            changed: fields of the recipe that are no longer those of the checkpoint: then parts of
                the state that do not fit start anew. Class weights are those of the new recipe.

        Raises:
            ContentsError: if the state does not fit; says why.
        """
        examples: dict[str, Any] = {
            "model": self.model.state_dict(),
            "loss_function": self.loss.state_dict(),
            "scaler": self.scaler.state_dict(),
            "is_stepped": True,
        }
        saved = {"is_stepped": True, **saved}  # older versions had none
        if changed:
            learnt = dict(self.loss.named_parameters())
            kept = {"loss_function": learnt, "scaler": examples["scaler"]}
            for part, names in kept.items():
                saved[part] = _merged(saved.get(part), examples[part], names)
        if self.average is not None:
            examples["average"] = self.average.tensors
            if "average_decay" in changed and isinstance(saved.get("model"), Mapping):
                saved.setdefault("average", floating(saved["model"]))
        refuse_unlike(run_dir, saved, examples)
        is_stepped = saved["is_stepped"] and not self.scaler.is_enabled()
        optimizer = self.optimizer, saved.get("optimizer")
        restore_optimizer(run_dir, *optimizer, is_stepped=is_stepped, changed=changed)
        self.model.load_state_dict(saved["model"])
        if self.average is not None:
            self.average.load(saved["average"])
        self.loss.load_state_dict(saved["loss_function"])
        self.scaler.load_state_dict(saved["scaler"])


def _merged(saved: Any, own: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A state with the saved values of these names where they fit."""
    known = saved if isinstance(saved, Mapping) else {}
    fitting = {
        name: known[name]
        for name in names
        if name in known and name in own and difference(name, known[name], own[name]) is None
    }
    return {**own, **fitting}
