"""The training loop."""

import copy
import logging
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, optim
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
from ccnet.training.checkpoint import Checkpoints, load_checkpoint
from ccnet.training.data import combined_seed, training_loader
from ccnet.training.monitor import Monitor
from ccnet.training.objective import autocast, make_objective, prepare
from ccnet.training.optimization import make_optimizer, poly_schedule
from ccnet.training.recipes import Recipe
from ccnet.transforms import training_augmentation

logger = logging.getLogger(__name__)


class Terminated(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop (SIGTERM); what it takes to go on is saved."""


class Trainer:
    """A training run in a folder, on one process or on all that torchrun started.

    Every random choice follows from the seed and the numbers of step, process and pass, so that
    there is no random state to save, and a resumed run goes on as if it had never stopped. The
    folder gets `checkpoints`, `best.safetensors` with the weights of the highest validation mIoU,
    and what `Monitor` writes.

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
        ValueError: if that run has another recipe or another model, or the batch is too small for
            the processes.
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
            scenes: Dataset[Sample] = StreetScenes(recipe.scenes, seed=recipe.seed)
            self.train_set = ConcatDataset([train_set, scenes])
        self.world = processes.rank_and_count()[1]
        self.model = prepare(model, recipe)
        self.device = next(model.parameters()).device
        self.objective = make_objective(self.model, self.train_set, recipe)
        self.optimizer = make_optimizer(self.objective.parameters(), recipe)
        self.scheduler = optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: poly_schedule(step, recipe)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.step, self.loss, self.best = 0, math.nan, -math.inf
        self.history: list[dict[str, Any]] = []
        self.terminated = False
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        self._take_up_run(resume)

    def run(self) -> Scores:
        """Trains to the recipe's last step.

        Returns:
            The scores of the last validation.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays as it was.
            OSError: if a checkpoint cannot be written; the one before stays as it was.
            Terminated: if SIGTERM came; the run was saved first.
        """
        objective: Any = self.objective
        if self.world > 1:
            # Synchronised norms have the same buffers everywhere.
            objective = DistributedDataParallel(objective, broadcast_buffers=False)
        monitor = Monitor(self.run_dir, self.recipe, self.model.config, self.step)
        batches = iter(self._loader())
        self.model.train()
        scores = None
        try:
            with self._noticing_sigterm():
                while self.step < self.recipe.steps:
                    if self._is_validation_due():
                        self._validate(monitor)
                    self._train_step(objective, batches)
                    monitor.on_step(self.step, self.loss, float(self.scheduler.get_last_lr()[0]))
                    if self._is_validation_due():
                        self._save()
                scores = self._validate(monitor)
            monitor.on_end({"step": self.step, "best": self.best, **scores.to_dict()})
            return scores
        finally:
            monitor.close()

    def _train_step(self, objective: Any, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimiser."""
        rank, passes = processes.rank_and_count()[0], self.recipe.accumulation
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, (images, labels) in enumerate(islice(batches, passes)):
            torch.manual_seed(combined_seed(self.recipe.seed, self.step, rank, number))
            is_last = number == passes - 1
            with nullcontext() if is_last or self.world == 1 else objective.no_sync():
                share = objective(images, labels) / passes
                self.scaler.scale(share).backward()
            total[0] += share.detach()
        total[1] = self.terminated
        loss, terminated = processes.mean(total).tolist()
        self.loss = float(loss)
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {self.loss}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.step += 1
        if terminated:
            self._save()
            raise Terminated(f"stopped and saved after step {self.step}")

    def _is_validation_due(self) -> bool:
        is_time = self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps
        return is_time and self.step > self._last_validated()

    def _last_validated(self) -> int:
        return self.history[-1]["step"] if self.history else 0

    def _validate(self, monitor: Monitor) -> Scores:
        def show(index: int, result: Segmentation, _: Scores) -> None:
            monitor.on_sample(self.step, index, result)
            if self.terminated:
                raise Terminated(f"stopped while validating; step {self.step} is saved")

        with autocast(self.device, self.recipe):
            scores = evaluate(self.model, self.val_set, each=show)  # type: ignore[arg-type]
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
            save_weights(path, model.state_dict(), model.config)

    def _save(self) -> None:
        if processes.rank_and_count()[0] == 0:
            self.checkpoints.save(
                {
                    "model": self.model.state_dict(),
                    "loss_function": self.objective.loss.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
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
            raise FileExistsError(f"{self.run_dir} already holds a run; resume it or name another")
        path = None
        if processes.rank_and_count()[0] == 0:
            self.checkpoints.remove_unfinished()
            path = self.checkpoints.newest()
        path = processes.gather(path)[0]
        if path is None:
            return
        state = load_checkpoint(path)
        for name, own in (("recipe", asdict(self.recipe)), ("config", self.model.config)):
            changed = sorted(
                key
                for key in own.keys() | state[name].keys()
                if own.get(key) != state[name].get(key)
            )
            if changed:
                raise ValueError(f"the run in {self.run_dir} has another {', '.join(changed)}")
        self.model.load_state_dict(state["model"])
        self.objective.loss.load_state_dict(state["loss_function"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.loss, self.best = state["step"], state["loss"], state["best"]
        self.history = state["history"]
        logger.info("going on from %s", path)

    @contextmanager
    def _noticing_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM lets a step end, or interrupts a validation, before the run stops."""

        def notice(*_: object) -> None:
            self.terminated = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
