"""Monitoring of a training run: TensorBoard, progress, versions, results."""

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
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
from ccnet.training.checkpoint import saving
from ccnet.training.progress import Progress
from ccnet.training.recipes import Recipe

OVERLAYS = 4
"""Number of validation images whose overlays are logged: the first ones of rank 0."""


class Monitor:
    """Writes the readable files of a run on rank 0; does nothing on other ranks.

    These are `recipe.json`, `config.json`, `environment.json`, `tensorboard` and, at the end,
    `results.json`.

    Args:
        run_dir: the folder of the run.
        recipe: the hyper-parameters.
        config: configuration of the model.
        step: the step at which the run starts or resumes.
        environment: facts to add to environment.json.
    """

    def __init__(
        self,
        run_dir: Path,
        recipe: Recipe,
        config: Mapping[str, Any],
        step: int,
        environment: Mapping[str, Any],
    ) -> None:
        self.run_dir, self.progress = run_dir, Progress(step, recipe.steps)
        self.active = distributed.rank() == 0
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        write_json(run_dir / "recipe.json", asdict(recipe))
        write_json(run_dir / "config.json", config)
        write_json(run_dir / "environment.json", {**environment, **versions()})
        self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=step + 1)

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Logs the loss and the learning rate of a step."""
        if self.active:
            with saving(self.run_dir):
                self._writer.add_scalar("train/loss", loss, step)
                self._writer.add_scalar("train/learning_rate", learning_rate, step)
        self.progress.on_step(loss)

    def on_sample(self, step: int, index: int, result: Segmentation) -> None:
        """Logs the overlays of the first validation images."""
        if self.active and index < OVERLAYS * distributed.world_size():
            overlay = np.asarray(result.overlay())
            with saving(self.run_dir):
                self._writer.add_image(f"val/{index}", overlay, step, dataformats="HWC")

    def on_validation(self, step: int, scores: Scores) -> None:
        """Logs the scores of a validation."""
        if not self.active:
            return
        with saving(self.run_dir):
            self._writer.add_scalar("val/mIoU", scores.miou, step)
            self._writer.add_scalar("val/pixel_accuracy", scores.pixel_accuracy, step)
            for name, iou in zip(scores.label_set.categories, scores.iou.tolist(), strict=True):
                self._writer.add_scalar(f"val_IoU/{printable(name)}", iou, step)
            self._writer.flush()

    def on_end(self, results: Mapping[str, Any]) -> None:
        """Writes the results."""
        if self.active:
            write_json(self.run_dir / "results.json", results)

    def close(self) -> None:
        """Closes the files. On a full disk the last TensorBoard events are lost."""
        self.progress.close()
        if self.active:
            with suppress(OSError):
                self._writer.close()


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
