"""What a run leaves behind to be read: logs, curves, overlays, versions, results."""

import json
import logging
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from tqdm import tqdm

from ccnet.files import atomic_write
from ccnet.inference import Segmentation
from ccnet.processes import rank_and_count
from ccnet.scores import Scores
from ccnet.training.checkpoint import saving
from ccnet.training.recipes import Recipe

logger = logging.getLogger("ccnet")

OVERLAYS = 4
"""Images of the validation set whose overlays are shown: the first that process 0 validates."""


class Monitor:
    """Writes the run's folder, in process 0; in the others it does nothing.

    `recipe.json`, `environment.json`, `train.log`, `log.jsonl` (a line a validation),
    `tensorboard` and in the end `results.json`.

    Args:
        run_dir: the folder.
        recipe: of the run.
        config: of the network.
        step: from which the run goes on.
    """

    def __init__(self, run_dir: Path, recipe: Recipe, config: Mapping[str, Any], step: int) -> None:
        self.run_dir = run_dir
        self.active = rank_and_count()[0] == 0
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        write_json(run_dir / "recipe.json", asdict(recipe))
        write_json(run_dir / "config.json", config)
        write_json(run_dir / "environment.json", environment())
        self._handler = logging.FileHandler(run_dir / "train.log", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._level = logger.level
        logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
        logger.addHandler(self._handler)
        self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=step + 1)
        self._progress = tqdm(initial=step, total=recipe.steps, unit="step", mininterval=2)

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Notes a training step."""
        if self.active:
            with saving(self.run_dir):
                self._writer.add_scalar("train/loss", loss, step)
                self._writer.add_scalar("train/learning_rate", learning_rate, step)
            self._progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._progress.update()

    def on_sample(self, step: int, index: int, result: Segmentation) -> None:
        """Shows the overlays of a few validation images."""
        if self.active and index < OVERLAYS * rank_and_count()[1]:
            overlay = np.asarray(result.overlay())
            with saving(self.run_dir):
                self._writer.add_image(f"val/{index}", overlay, step, dataformats="HWC")

    def on_validation(self, history: list[dict[str, Any]], scores: Scores) -> None:
        """Notes the last validation; `history` has a record of each."""
        if not self.active:
            return
        step = history[-1]["step"]
        with saving(self.run_dir):
            self._writer.add_scalar("val/mIoU", scores.miou, step)
            self._writer.add_scalar("val/pixel_accuracy", scores.pixel_accuracy, step)
            for name, iou in zip(scores.label_set.categories, scores.iou.tolist(), strict=True):
                self._writer.add_scalar(f"val_IoU/{name}", iou, step)
            self._writer.flush()
            with atomic_write(self.run_dir / "log.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in history))

    def on_end(self, results: Mapping[str, Any]) -> None:
        """Notes the results."""
        if self.active:
            write_json(self.run_dir / "results.json", results)

    def close(self) -> None:
        """Closes the files; the end of the curves is lost if the disk is full."""
        if self.active:
            self._progress.close()
            with suppress(OSError):
                self._writer.close()
            logger.removeHandler(self._handler)
            logger.setLevel(self._level)
            self._handler.close()


def environment() -> dict[str, Any]:
    """The command, versions and devices that a run depends on."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "command": shlex.join(sys.argv),
        "ccnet": sys.modules["ccnet"].__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "processes": rank_and_count()[1],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON at once or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
