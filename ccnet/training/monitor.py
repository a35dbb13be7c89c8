"""Monitoring of a training run: curves, pictures, progress, versions, results."""

import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision

from ccnet import distributed
from ccnet.console import printable
from ccnet.evaluation import Scores
from ccnet.files import atomic_write
from ccnet.inference import Segmentation
from ccnet.training.learnt_size import unsized
from ccnet.training.progress import Progress
from ccnet.training.recipes import Recipe
from ccnet.training.trackers import Tracker, close_tracker, open_tracker, telling

logger = logging.getLogger(__name__)

OVERLAYS = 4
"""Number of validation images whose overlays are logged: the first ones of rank 0."""


class Monitor:
    """Writes the readable files of a run on rank 0; does nothing on other ranks.

    These are `recipe.json`, `config.json`, `environment.json`, those of the tracker and, at the
    end, `results.json`.

    Args:
        run_dir: the folder of the run.
        recipe: the hyper-parameters.
        config: configuration of the model.
        step: the step at which the run starts or resumes.
        environment: facts to add to environment.json.
        tracker: gets curves and pictures: a name in `trackers.TRACKERS`, or one that is opened.
    """

    def __init__(
        self,
        run_dir: Path,
        recipe: Recipe,
        config: Mapping[str, Any],
        step: int,
        environment: Mapping[str, Any],
        tracker: str | Tracker,
    ) -> None:
        self.run_dir, self.recipe, self.config = run_dir, recipe, config
        self.progress = Progress(step, recipe.steps)
        self.active = distributed.rank() == 0
        if not self.active:
            return
        write_json(run_dir / "recipe.json", asdict(recipe))
        write_json(run_dir / "config.json", config)
        write_json(run_dir / "environment.json", {**environment, **versions()})
        settings = {**asdict(recipe), "network": unsized(config)}
        self._tracker = open_tracker(tracker, run_dir, settings, step)

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Logs the loss and the learning rate of a step."""
        if self.active:
            with telling(self._tracker, self.run_dir):
                values = {"train/loss": loss, "train/learning_rate": learning_rate}
                self._tracker.scalars(step, values)
        self.progress.on_step(loss)

    def on_sample(self, step: int, index: int, result: Segmentation) -> None:
        """Logs the overlays of the first validation images."""
        if self.active and index < OVERLAYS * distributed.world_size():
            overlay = np.asarray(result.overlay())
            with telling(self._tracker, self.run_dir):
                self._tracker.picture(step, f"val/{index}", overlay)

    def on_validation(self, step: int, scores: Scores) -> None:
        """Logs the scores of a validation."""
        if not self.active:
            return
        write_json(self.run_dir / "config.json", self.config)  # now with the training size
        values = {"val/mIoU": scores.miou, "val/pixel_accuracy": scores.pixel_accuracy}
        for name, iou in zip(scores.label_set.categories, scores.iou.tolist(), strict=True):
            values[f"val_IoU/{printable(name)}"] = iou
        with telling(self._tracker, self.run_dir):
            self._tracker.scalars(step, values)
            self._tracker.flush()

    def on_end(self, results: Mapping[str, Any]) -> None:
        """Writes the results; the log says so if the run ends early."""
        if self.active:
            if (step := results["step"]) < self.recipe.steps:
                logger.info(
                    "ended early, at step %d of %d: no mIoU above %.2f in %d validations",
                    *(step, self.recipe.steps, results["best"], self.recipe.patience),
                )
            write_json(self.run_dir / "results.json", results)

    def close(self) -> None:
        """Closes progress bar and tracker."""
        self.progress.close()
        if self.active:
            close_tracker(self._tracker)


def refuse_unreadable_name(run_dir: Path) -> None:
    """Refuses a folder whose name holds bytes that are not UTF-8: TensorBoard cannot write there.

    Raises:
        ValueError: says which.
    """
    try:
        str(run_dir).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the name of the run folder, {printable(run_dir)}, is not UTF-8, which TensorBoard "
            "needs: give another name"
        ) from error


def versions() -> dict[str, Any]:
    """Returns library versions, devices, number of threads and world size."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
