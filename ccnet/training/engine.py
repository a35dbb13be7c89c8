"""The training loop."""

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import ConcatDataset, Dataset

from ccnet import processes
from ccnet.datasets import Sample
from ccnet.evaluation import Scores, evaluate
from ccnet.inference import Segmentation
from ccnet.model import CCNet
from ccnet.norm import restore_batchnorm
from ccnet.serialization import save_weights
from ccnet.street_scenes import StreetScenes
from ccnet.training.checkpoint import (
    Checkpoints,
    load_checkpoint,
    refuse_changes,
    remove_unfinished,
    saving,
)
from ccnet.training.data import combined_seed, training_loader
from ccnet.training.monitor import Monitor
from ccnet.training.objective import autocast, make_objective, prepare
from ccnet.training.optimization import make_optimizer, poly_schedule
from ccnet.training.recipes import Recipe
from ccnet.training.termination import Terminated, Termination
from ccnet.transforms import training_augmentation

logger = logging.getLogger(__name__)


class Trainer:
    """A training run in a folder, on one process or on all that torchrun started.

    Every random choice follows from the seed and the numbers of step, process and pass, and the
    learning rate from the step, so that there is no such state to save, and a resumed run goes on
    as if it had never stopped. The folder gets `checkpoints`, `best.safetensors`, the weights of
    the highest validation mIoU, and what `Monitor` writes.

    Args:
        model: trained in place, on the device that it is on.
        train_set: of (image, mask).
        val_set: likewise; its mIoU decides which weights are the best.
        recipe: the hyper-parameters.
        run_dir: the folder of the run, made if need be.
        workers: processes that load data.
        resume: take up the run in the folder at its newest intact checkpoint, if there is one.

    Raises:
        FileExistsError: if the folder holds a run that is not to be resumed.
        ValueError: if that run has another recipe or another model, the batch is too small for the
            processes, scenes are mixed into other classes, or the recipe makes no sense otherwise.
    """

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
    ) -> None:
        self.recipe, self.run_dir, self.workers = recipe, run_dir, workers
        self.train_set, self.val_set = train_set, val_set
        if recipe.scenes:
            scenes = StreetScenes(recipe.scenes, seed=recipe.seed)
            if model.label_set.categories != scenes.label_set.categories:
                raise ValueError(
                    f"{recipe.scenes} scenes have CamVid's classes, the network has others: "
                    "scenes must be 0"
                )
            self.train_set = ConcatDataset([train_set, scenes])
        self.world = processes.rank_and_count()[1]
        self.model = prepare(model, recipe)
        self.device = next(model.parameters()).device
        self.objective = make_objective(self.model, self.train_set, recipe)
        self.optimizer = make_optimizer(self.objective.parameters(), recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.step, self.loss, self.best = 0, math.nan, -math.inf
        self.history: list[dict[str, Any]] = []
        self.termination = Termination()
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        self._take_up_run(resume)
        self.loader = self._loader()

    def run(self) -> Scores:
        """Trains to the recipe's last step.

        Returns:
            The scores of the last validation.

        Raises:
            ValueError: if the images to validate with have no labelled pixel.
            FloatingPointError: if the loss is not finite, or the weights are not when they are to
                be saved; the last checkpoint stays as it was.
            OSError: if a checkpoint cannot be written; the one before stays as it was.
            Terminated: if SIGTERM came; the run was saved first.
        """
        objective: Any = self.objective
        if self.world > 1:
            objective = DistributedDataParallel(objective)
        monitor = Monitor(self.run_dir, self.recipe, self.model.config, self.step)
        batches = iter(self.loader)
        self.model.train()
        try:
            with self.termination.awaited():
                while self.step < self.recipe.steps:
                    if self._is_validation_due():
                        self._validate(monitor)
                    stopping = self._train_step(objective, batches)
                    monitor.on_step(self.step, self.loss, self.optimizer.param_groups[0]["lr"])
                    if stopping or self._is_validation_due():
                        self._save()
                    if stopping:
                        raise Terminated(f"stopped and saved after step {self.step}")
                scores = self._validate(monitor)
            monitor.on_end({"step": self.step, "best": self.best, **scores.to_dict()})
            return scores
        finally:
            monitor.close()

    def _train_step(self, objective: Any, batches: Iterator[tuple[Tensor, Tensor]]) -> bool:
        """One step of the optimiser; whether any process was asked to stop meanwhile."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * poly_schedule(self.step, self.recipe)
        rank, passes = processes.rank_and_count()[0], self.recipe.accumulation
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, (images, labels) in enumerate(islice(batches, passes)):
            torch.manual_seed(combined_seed(self.recipe.seed, self.step, rank, number))
            is_last = number == passes - 1
            with nullcontext() if is_last or self.world == 1 else objective.no_sync():
                share = objective(images, labels) / passes
                self.scaler.scale(share).backward()
            loss = loss + share.detach()
        requested = torch.full_like(loss, self.termination.requested)
        self.loss, terminated = processes.mean(torch.stack([loss, requested])).tolist()
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {self.loss}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return bool(terminated)

    def _is_validation_due(self) -> bool:
        is_time = self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps
        return is_time and self.step > self._last_validated()

    def _last_validated(self) -> int:
        return self.history[-1]["step"] if self.history else 0

    def _validate(self, monitor: Monitor) -> Scores:
        stopped = Terminated(f"stopped while validating; step {self.step} is saved")

        def show(index: int, result: Segmentation, _: Scores) -> None:
            monitor.on_sample(self.step, index, result)
            if self.termination.requested:
                raise stopped

        try:
            with autocast(self.device, self.recipe):
                scores = evaluate(self.model, self.val_set, each=show)  # type: ignore[arg-type]
        except RuntimeError as error:
            if not self.termination.requested:
                raise
            # The scores of a process that has stopped are waited for in vain.
            raise stopped from error
        if math.isnan(scores.miou):
            raise ValueError("the images to validate with have no pixel of any class")
        if self.step > self._last_validated():
            self.history.append({"step": self.step, "loss": self.loss, **scores.to_dict()})
            logger.info("step %d: mIoU %.2f", self.step, scores.miou)
            if scores.miou > self.best:
                self.best = scores.miou
                self._save_weights()
            self._save()
        monitor.on_validation(self.history, scores)
        return scores

    def _loader(self) -> Any:
        recipe = self.recipe
        augmentation = training_augmentation(
            (recipe.crop_height, recipe.crop_width),
            scale_range=(recipe.scale_low, recipe.scale_high),
            scale_step=recipe.scale_step,
            max_class_share=recipe.max_class_share,
            color_jitter=recipe.color_jitter,
            preprocessing=self.model.preprocessing,
        )
        return training_loader(
            self.train_set,
            augmentation,
            batch_size=recipe.batch_size,
            first_step=self.step,
            last_step=recipe.steps,
            seed=recipe.seed,
            workers=self.workers,
            passes=recipe.accumulation,
        )

    def _save_weights(self) -> None:
        """Writes the network as one on batch norm, whatever it is trained with."""
        model = self.model
        if self.recipe.norm == "inplace":
            model = copy.deepcopy(model)
            restore_batchnorm(model)
        if processes.rank_and_count()[0] == 0:
            path = self.run_dir / "best.safetensors"
            with saving(path):
                save_weights(path, model.state_dict(), model.config, model.card_details)

    def _save(self) -> None:
        state = self.model.state_dict()
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise FloatingPointError(f"after step {self.step} weights are not finite")
        if processes.rank_and_count()[0] == 0:
            self.checkpoints.save(
                {
                    "model": state,
                    "loss_function": self.objective.loss.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "step": self.step,
                    "loss": self.loss,
                    "best": self.best,
                    "history": self.history,
                    "recipe": asdict(self.recipe),
                    "config": self.model.config,
                }
            )

    def _take_up_run(self, resume: bool) -> None:
        if self.checkpoints.paths() and not resume:
            raise FileExistsError(
                f"{self.run_dir} already holds a run: resume it (--resume auto) or name another"
            )
        path = None
        if processes.rank_and_count()[0] == 0:
            remove_unfinished(self.run_dir)
            path = self.checkpoints.newest()
        path = processes.gather(path)[0]
        if path is None:
            return
        state = load_checkpoint(path)
        refuse_changes(self.run_dir, state["recipe"], asdict(self.recipe))
        refuse_changes(self.run_dir, state["config"], self.model.config)
        self.model.load_state_dict(state["model"])
        self.objective.loss.load_state_dict(state["loss_function"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.loss, self.best = state["step"], state["loss"], state["best"]
        self.history = state["history"]
        logger.info("going on from %s", path)
