"""BackboneTrainer: pre-trains a backbone by classifying images; checkpoints and resuming."""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from ccnet import distributed
from ccnet.files import atomic_write, user_path
from ccnet.locks import FolderLock
from ccnet.training.changes import changed_fields, refuse_another_start, refuse_changes
from ccnet.training.checkpoint import Checkpoints, refuse_infinite, saving
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import (
    ClassificationRecipe,
    Classifier,
    augmentation,
    backbone_weights,
    make_optimizer,
    one_cycle,
)
from ccnet.training.data import iterate, training_loader
from ccnet.training.fingerprint import Fingerprint
from ccnet.training.history import comparable, labelled
from ccnet.training.holdout import earlier_sets, hold_out
from ccnet.training.precision import choose_precision
from ccnet.training.progress import Progress
from ccnet.training.restoration import PERCENTAGE, refuse_unlike, restore_optimizer
from ccnet.training.run_folder import state_to_resume
from ccnet.training.run_log import RunLog
from ccnet.training.termination import Terminated, Termination
from ccnet.weights import write_weights
from ccnet.weights.sources import BEST_OF_A_RUN

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 20
"""Every twentieth image, in the order of their names, is held out."""


class BackboneTrainer:
    """A classification run in a folder, on one process or on all ranks that were joined.

    All random numbers depend on seed, step and sample only, so a resumed run continues as if it had
    never stopped. The folder gets `checkpoints`, `log.jsonl` (the validations), `train.log` and
    `best.safetensors`, the backbone of the highest accuracy, for `weights_backbone`. It is locked
    from here to the end of `run`, or until this object is gone.

    Args:
        images: the classes; every twentieth image is held out for validation.
        recipe: the hyper-parameters.
        run_dir: the folder of the run.
        device: the device to train on.
        workers: number of data-loading processes.
        resume: resume from the newest intact checkpoint in the folder, if there is one.
        accept_changed_data: resume with other images too, which the log then says.
        accept_changed_recipe: resume with another recipe too, which the log then says.
        details: facts about the data for the card of the weights: `license`, `source`, `dataset`.
        lock: of the folder, if it is held already.
        log: of the run, if it is attached already.

    Raises:
        BlockingIOError: if another trainer uses the folder; says who.
        FileExistsError: if the folder holds a run and `resume` is false, or files that are no
            such run's and would be replaced.
        OSError: if an image cannot be read.
        ValueError: if that run has another recipe, or other classes or images, the batch is too
            small for the world size, or other processes were started with this one and have not
            been joined (see `ccnet.distributed.process_group`).
    """

    def __init__(
        self,
        images: ClassFolder,
        recipe: ClassificationRecipe,
        run_dir: Path,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        resume: bool = False,
        accept_changed_data: bool = False,
        accept_changed_recipe: bool = False,
        details: Mapping[str, str] | None = None,
        lock: FolderLock | None = None,
        log: RunLog | None = None,
    ) -> None:
        distributed.refuse_stray()
        self.run_dir, self.device = user_path(run_dir), torch.device(device)
        self.checkpoints = Checkpoints(self.run_dir / "checkpoints")
        self.workers, self.details = workers, details or {}
        self.termination = Termination()
        self.lock, self.log = lock or FolderLock(self.run_dir), log or RunLog(self.run_dir)
        self.accepts_data, self.accepts_recipe = accept_changed_data, accept_changed_recipe
        with self.lock.kept() as self.took_lock, self.log.attached():
            self._set_up(images, recipe, resume)

    def _set_up(self, images: ClassFolder, recipe: ClassificationRecipe, resume: bool) -> None:
        state = state_to_resume(self.run_dir, resume, beginning=("data.jsonl", "train.log"))
        started_with = state["recipe"].get("precision") if state else None
        precision = choose_precision(recipe.precision, self.device, started_with)
        recipe = self.recipe = replace(recipe, precision=precision)
        self.config: dict[str, Any] = {"classes": images.classes, "images": len(images)}
        earlier = earlier_sets(self.run_dir) if state else {}
        held_out = hold_out(images.names, VALIDATION_SHARE, earlier)
        self.val_set = Subset(images, held_out[distributed.rank() :: distributed.world_size()])
        train_set = Subset(images, sorted(set(range(len(images))).difference(held_out)))
        torch.manual_seed(recipe.seed)
        model = Classifier(recipe, len(images.classes))
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay), use_buffers=True
        )
        self.optimizer = make_optimizer(self.model, recipe)
        self.step, self.losses, self.records = 0, list[float](), list[dict[str, Any]]()
        self.changed_at = -1
        sets = {"train": train_set, "val": Subset(images, held_out)}
        self.data = Fingerprint(self.run_dir, sets)
        self.val_data = self.data.summary["val"]["sha256"]
        if state:
            self._resume(state)
        self.loader = training_loader(
            train_set,
            augmentation(recipe),
            batch_size=recipe.batch_size,
            first_step=self.step,
            last_step=recipe.steps,
            seed=recipe.seed,
            workers=self.workers,
        )

    def run(self) -> float:
        """Trains to the recipe's last step.

        Returns:
            The last accuracy on the held-out images, in percent.

        Raises:
            FloatingPointError: if the loss, or a weight to save, is not finite; the last checkpoint
                stays.
            OSError: if a file of the run cannot be written; the last checkpoint stays.
            Terminated: on SIGTERM, SIGHUP or Ctrl-C, after saving a checkpoint.
            KeyboardInterrupt: on a second Ctrl-C.
        """
        held = self.lock.given_back(self.took_lock)
        with held, self.log.attached(), self.termination.awaited():
            return self._run()

    def _run(self) -> float:
        model: nn.Module = self.model
        if distributed.world_size() > 1:
            model = DistributedDataParallel(model)
        self.data.save()
        if self.data.is_new or self.step == self.changed_at:
            self._save()
        self.log.open()
        self.progress = Progress(self.step, self.recipe.steps)
        with iterate(self.loader) as batches, closing(self.progress):
            while True:
                if self._is_validation_due():
                    self._validate()
                if self.step == self.recipe.steps:
                    return float(self.records[-1]["accuracy"])
                stopping = self._train_step(model, batches)
                self.progress.on_step(self.losses[-1])
                if stopping or self._is_validation_due():
                    self._save()
                if stopping:
                    raise Terminated(f"stopped; checkpoint saved at step {self.step}")

    def _train_step(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> bool:
        """Runs one optimiser step; returns whether any rank is to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * one_cycle(self.step, self.recipe)
        images, labels = (part.to(self.device, non_blocking=True) for part in next(batches))
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        requested = torch.full_like(loss, self.termination.requested)
        value, stopping = distributed.all_reduce_mean(torch.stack([loss, requested])).tolist()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {value}")
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        self.losses.append(value)
        return bool(stopping)

    def _is_validation_due(self) -> bool:
        validated = max([0, *(record["step"] for record in self._comparable)])
        # A changed run validates at once: what it validated at this step is in no checkpoint.
        special = {self.recipe.steps, self.changed_at}
        is_time = self.step % self.recipe.validate_every == 0 or self.step in special
        return is_time and self.step > validated

    @property
    def _comparable(self) -> list[dict[str, Any]]:
        return comparable(self.records, self.val_data)

    def _validate(self) -> None:
        """Validates the averaged weights of this step, which are already in a checkpoint."""
        accuracy = self._accuracy()
        loss = sum(self.losses) / len(self.losses)
        best = max([-math.inf, *(record["accuracy"] for record in self._comparable)])
        record = {"step": self.step, "loss": loss, "data": self.val_data, "accuracy": accuracy}
        self.records.append(record)
        self.losses.clear()
        highest = f"best so far: {max(best, accuracy):.2f}"
        self.progress.say(f"loss {loss:.3f}, accuracy {accuracy:.2f} % ({highest})")
        if distributed.rank() == 0:
            path = self.run_dir / "log.jsonl"
            with saving(path), atomic_write(path) as temporary:
                temporary.write_text("".join(f"{json.dumps(one)}\n" for one in self.records))
            if accuracy > best:
                path = self.run_dir / BEST_OF_A_RUN
                with saving(path):
                    average: Any = self.average.module
                    write_weights(path, backbone_weights(average, self.recipe, self.details))

    @torch.no_grad()
    def _accuracy(self) -> float:
        """Returns the accuracy of the averaged weights on the held-out images, in percent.

        Raises:
            Terminated: if any rank is to stop.
        """
        counts = torch.zeros(2, device=self.device)
        self.average.eval()
        for batch in DataLoader(self.val_set, self.recipe.batch_size):
            if self.termination.requested:
                break
            images, labels = (part.to(self.device) for part in batch)
            right = (self.average(images).argmax(1) == labels).sum()
            counts += torch.stack([right, torch.full_like(right, len(labels))])
        if any(distributed.all_gather(self.termination.requested)):
            raise Terminated(f"stopped while validating; checkpoint saved at step {self.step}")
        right, total = distributed.all_reduce_sum(counts).tolist()
        return float(100 * right / total)

    def _save(self) -> None:
        refuse_infinite(self.model.state_dict(), self.step)
        for buffer in self.average.buffers():
            if buffer.is_floating_point():  # ranks have seen different images
                buffer.copy_(distributed.all_reduce_mean(buffer))
        if distributed.rank() == 0:
            self.checkpoints.save(
                {
                    "model": self.model.state_dict(),
                    "average": self.average.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "losses": self.losses,
                    "records": self.records,
                    "recipe": asdict(self.recipe),
                    "config": self.config,
                    "data": self.data.summary,
                    "details": self.details,
                }
            )

    def _resume(self, state: Mapping[str, Any]) -> None:
        recipe = asdict(self.recipe)
        refuse_another_start(self.run_dir, state["recipe"], recipe)
        changed = changed_fields(self.run_dir, state, recipe, accept=self.accepts_recipe)
        self.data.check(state.get("data"), accept=self.accepts_data)
        data = self.val_data if self.data.is_as_before(state.get("data"), "val") else ""
        state = {**state, "records": labelled(state.get("records"), data)}
        count = {"images": self.config["images"]} if self.accepts_data else {}
        refuse_changes(self.run_dir, {**state["config"], **count}, self.config)
        refuse_unlike(
            self.run_dir,
            state,
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "step": 0,
                "losses": [0.0],
                "records": [{"step": 0, "loss": 0.0, "data": "", "accuracy": PERCENTAGE}],
            },
        )
        restore_optimizer(self.run_dir, self.optimizer, state.get("optimizer"), changed=changed)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.step, self.losses = state["step"], state["losses"]
        self.changed_at = self.step if changed else -1
        self.records = state["records"]
