"""Trainer: the training loop, validation, checkpointing and resuming."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from ccnet import distributed
from ccnet.datasets import Sample, Transforms
from ccnet.evaluation import Scores
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.model import CCNet
from ccnet.options import named_options
from ccnet.training.augmentation import augmentation_of
from ccnet.training.average import WeightAverage
from ccnet.training.changes import changed_fields, refuse_another_start, refuse_changes
from ccnet.training.checkpoint import Checkpoints, refuse_infinite, saving
from ccnet.training.data import iterate, training_loader
from ccnet.training.fingerprint import Fingerprint
from ccnet.training.history import History
from ccnet.training.learner import Learner
from ccnet.training.learnt_size import recall_size, unsized
from ccnet.training.monitor import Monitor, refuse_unreadable_name
from ccnet.training.objective import make_objective, prepare
from ccnet.training.optimization import make_optimizer, poly_schedule
from ccnet.training.order import combined_seed
from ccnet.training.own_augmentation import chosen_augmentation
from ccnet.training.precision import choose_precision
from ccnet.training.recipes import Recipe, with_later_fields
from ccnet.training.restoration import BEST, refuse_unlike
from ccnet.training.run_folder import state_to_resume
from ccnet.training.run_log import RunLog
from ccnet.training.termination import Terminated, Termination
from ccnet.training.trackers import Tracker, chosen_tracker
from ccnet.training.validation import validate
from ccnet.weights import write_weights
from ccnet.weights.sources import BEST_OF_A_RUN

logger = logging.getLogger(__name__)


class Trainer:
    """A training run in a folder, on one process or on all ranks that were joined.

    All random numbers depend on seed, step, rank and forward pass only, and the learning rate on
    the step. So checkpoints need no random state, and a resumed run continues as if it had never
    stopped. The folder gets `checkpoints`, `best.safetensors` (the weights of the highest
    validation mIoU), `log.jsonl` (the validations), `train.log` and the files of `Monitor`. It is
    locked from here to the end of `run`, or until this object is gone.

    Args:
        model: trained in place, on its device.
        train_set: (image, mask) pairs to train on.
        val_set: (image, mask) pairs to validate on.
        recipe: the hyper-parameters.
        run_dir: the folder of the run, created if it does not exist.
        workers: number of data-loading processes.
        resume: resume from the newest intact checkpoint in the folder, if there is one.
        accept_changed_data: resume with other data too, which the log then says.
        accept_changed_recipe: resume with another recipe too, which the log then says.
        augmentation: comes after the recipe's, see `OwnAugmentation`; None for the recipe's alone.
        tracker: gets curves and pictures: a name in `trackers.TRACKERS`, or a `Tracker`; None for
            TensorBoard if it is installed.
        environment: facts to record in environment.json, such as the version of `ccnet`.
        lock: of the folder, if it is held already.
        log: of the run, if it is attached already.

    Raises:
        BlockingIOError: if another trainer uses the folder; says who.
        FileExistsError: if the folder holds a run and `resume` is false, or files that are no
            such run's and would be replaced.
        OSError: if a file of the data cannot be read.
        ValueError: if that run has another recipe or model, or other data, the name of the folder
            is not UTF-8, the batch is too small for the world size, the recipe is invalid for the
            model, or other processes were started with this one and have not been joined (see
            `ccnet.distributed.process_group`).
    """

    @named_options()
    def __init__(
        self,
        model: CCNet,
        train_set: Dataset[Sample],
        val_set: Dataset[Sample],
        recipe: Recipe,
        run_dir: Path,
        *,
        workers: int = 1,
        resume: bool = False,
        accept_changed_data: bool = False,
        accept_changed_recipe: bool = False,
        augmentation: Transforms | None = None,
        tracker: str | Tracker | None = None,
        environment: Mapping[str, Any] | None = None,
        lock: FolderLock | None = None,
        log: RunLog | None = None,
    ) -> None:
        distributed.refuse_stray()
        self.run_dir, self.workers = user_path(run_dir), workers
        refuse_unreadable_name(self.run_dir)
        self.train_set, self.val_set = train_set, val_set
        self.accepts_data, self.accepts_recipe = accept_changed_data, accept_changed_recipe
        self.environment = environment or {}
        self.device = next(model.parameters()).device
        self.checkpoints = Checkpoints(self.run_dir / "checkpoints")
        self.termination = Termination()
        self.lock, self.log = lock or FolderLock(self.run_dir), log or RunLog(self.run_dir)
        self.tracker = chosen_tracker(tracker)
        with self.lock.kept() as self.took_lock, self.log.attached():
            own, recipe = chosen_augmentation(recipe, augmentation, len(model.label_set))
            self.augmentation = augmentation_of(recipe, model.preprocessing, own)
            self._set_up(model, recipe, resume)

    def _set_up(self, model: CCNet, recipe: Recipe, resume: bool) -> None:
        state = state_to_resume(self.run_dir, resume)
        started_with = state["recipe"].get("precision") if state else None
        precision = choose_precision(recipe.precision, self.device, started_with)
        recipe = self.recipe = replace(recipe, precision=precision)
        self.model = prepare(model, recipe)
        self.objective = make_objective(self.model, self.train_set, recipe)
        self.optimizer = make_optimizer(self.objective.parameters(), recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        average = WeightAverage(model, recipe.average_decay) if recipe.average_decay else None
        self.learner = Learner(model, self.objective.loss, self.optimizer, self.scaler, average)
        self.step, self.loss, self.changed = 0, math.nan, list[str]()
        self.data = Fingerprint(self.run_dir, {"train": self.train_set, "val": self.val_set})
        val_data = self.data.summary["val"]["sha256"]
        self.history = History(self.run_dir / "log.jsonl", model.label_set, val_data)
        if state:
            self._resume(state)
        self.loader = training_loader(
            self.train_set,
            self.augmentation,
            batch_size=recipe.batch_size,
            first_step=self.step,
            last_step=recipe.steps,
            seed=recipe.seed,
            workers=self.workers,
            passes=recipe.accumulation,
        )

    def run(self) -> Scores:
        """Trains to the recipe's last step, or until its patience ends.

        Returns:
            The scores of the last validation.

        Raises:
            ValueError: if the validation set has no labelled pixel.
            FloatingPointError: if the loss, or a weight to save, is not finite; the last checkpoint
                stays.
            OSError: if a file cannot be written, or the tracker fails; the last checkpoint stays.
            Terminated: on SIGTERM, SIGHUP or Ctrl-C, after saving a checkpoint.
            KeyboardInterrupt: on a second Ctrl-C.
        """
        with self.lock.given_back(self.took_lock), self.log.attached(), self.termination.awaited():
            return self._run()

    def _run(self) -> Scores:
        objective: Any = self.objective
        if distributed.world_size() > 1:
            objective = DistributedDataParallel(objective)
        self.data.save()
        if self.data.is_new or self.changed:
            self._save()
        self.log.open()
        facts = {**self.environment, "data": self.data.summary}
        monitor = Monitor(
            self.run_dir, self.recipe, self.model.config, self.step, facts, self.tracker
        )
        patience = self.recipe.patience
        self.model.train()
        try:
            with iterate(self.loader) as batches:
                while True:
                    if self._is_validation_due():
                        with self.learner.averaged():
                            self._validate(monitor)
                    if self.step == self.recipe.steps or self.history.has_stalled(patience):
                        break
                    stopping = self._train_step(objective, batches)
                    monitor.on_step(self.step, self.loss, self.optimizer.param_groups[0]["lr"])
                    if stopping or self._is_validation_due():
                        self._save()
                    if stopping:
                        raise Terminated(f"stopped; checkpoint saved at step {self.step}")
            scores = self.history.scores
            monitor.on_end({"step": self.step, "best": self.history.best, **scores.to_dict()})
            self.learner.finish()
            return scores
        finally:
            monitor.close()

    def _train_step(self, objective: Any, batches: Iterator[tuple[Tensor, Tensor]]) -> bool:
        """Runs one optimiser step; returns whether any rank is to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * poly_schedule(self.step, self.recipe)
        rank, passes = distributed.rank(), self.recipe.accumulation
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, (images, labels) in enumerate(islice(batches, passes)):
            torch.manual_seed(combined_seed(self.recipe.seed, self.step, rank, number))
            is_last = number == passes - 1
            with nullcontext() if is_last or objective is self.objective else objective.no_sync():
                share = objective(images, labels) / passes
                self.scaler.scale(share).backward()
            loss = loss + share.detach()
        requested = torch.full_like(loss, self.termination.requested)
        self.loss, stopping = distributed.all_reduce_mean(torch.stack([loss, requested])).tolist()
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {self.loss}")
        self.learner.update(self.step)
        self.step += 1
        return bool(stopping)

    def _is_validation_due(self) -> bool:
        is_time = self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps
        return is_time and self.step > self.history.last_step

    def _validate(self, monitor: Monitor) -> None:
        """Validates the weights of this step, which are already in a checkpoint."""
        show = partial(monitor.on_sample, self.step)
        scores = validate(self.model, self.val_set, self.recipe, self.step, self.termination, show)
        if scores.miou > self.history.best:
            self._save_weights()
        with saving(self.history.path):
            self.history.append(self.step, self.loss, scores, self.model.training_size)
        text = f"loss {self.loss:.3f}, mIoU {scores.miou:.2f}"
        monitor.progress.say(f"{text} (best so far: {self.history.best:.2f})")
        monitor.on_validation(self.step, scores)

    def _save_weights(self) -> None:
        """Writes best.safetensors, always with plain batch normalisation."""
        if distributed.rank() == 0:
            path = self.run_dir / BEST_OF_A_RUN
            with saving(path):
                write_weights(path, self.model.to_weights())

    def _save(self) -> None:
        state = self.learner.state_dict()
        refuse_infinite(state["model"], self.step)
        if distributed.rank() == 0:
            self.checkpoints.save(
                {
                    **state,
                    "step": self.step,
                    "loss": self.loss,
                    "best": self.history.best,
                    "recipe": asdict(self.recipe),
                    "config": self.model.config,
                    "data": self.data.summary,
                    "details": self.model.card_details,
                }
            )

    def _resume(self, state: dict[str, Any]) -> None:
        run_dir, recipe = self.run_dir, asdict(self.recipe)
        advice = f", and start there from the weights of this run (--weights {run_dir})"
        state = {"best": -math.inf, **state, "recipe": with_later_fields(state["recipe"])}
        refuse_another_start(run_dir, state["recipe"], recipe, advice)
        refuse_changes(run_dir, unsized(state["config"]), unsized(self.model.config), advice)
        self.changed = changed_fields(run_dir, state, recipe, accept=self.accepts_recipe)
        self.data.check(state.get("data"), accept=self.accepts_data)
        refuse_unlike(run_dir, state, {"step": 0, "loss": 0.0, "best": BEST})
        self.learner.load(run_dir, state, self.changed)
        self.step, self.loss = state["step"], state["loss"]
        if self.changed:
            rate = self.recipe.learning_rate * poly_schedule(self.step, self.recipe)
            logger.info("the learning rate goes on at %.3g", rate)
        self.model.card_details = dict(state.get("details", self.model.card_details))
        is_same = self.data.is_as_before(state.get("data"), "val")
        self.history.load(self.step, state["best"] if is_same else -math.inf)
        recall_size(self.model, state["config"], self.history)
