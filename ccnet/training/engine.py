"""The training loop."""

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn, optim
from torch.utils.data import ConcatDataset, Dataset
from tqdm import tqdm

from ccnet.classes import IGNORE_INDEX
from ccnet.datasets import Sample
from ccnet.evaluation import Scores, evaluate
from ccnet.files import atomic_write
from ccnet.losses import SegmentationLoss
from ccnet.model import CCNet
from ccnet.serialization import save_weights
from ccnet.street_scenes import StreetScenes
from ccnet.training.checkpoint import load_checkpoint, save_checkpoint
from ccnet.training.data import combined_seed, training_loader
from ccnet.training.recipes import Recipe
from ccnet.transforms import training_augmentation

logger = logging.getLogger(__name__)


class Trainer:
    """A training run in a folder: `last.pt` to resume from, `best.safetensors` to use.

    Every random choice follows from the seed and the number of the step, so that a resumed run goes
    on as if it had never stopped.

    Args:
        model: trained in place, on the device that it is on.
        train_set: of (image, mask).
        val_set: likewise; its mIoU decides which weights are the best.
        recipe: the hyper-parameters.
        run_dir: the folder of the run, made if need be.
        workers: processes that load data.
        resume: take up the run in the folder, if there is one.

    Raises:
        FileExistsError: if the folder holds a run that is not to be resumed.
        ValueError: if that run has another recipe or another model.
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
        self.model = model.to(memory_format=torch.channels_last)
        self.device = next(model.parameters()).device
        self.optimizer = _optimizer(model, recipe)
        self.scheduler = optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: poly_schedule(step, recipe)
        )
        self.step, self.best, self.loss = 0, 0.0, 0.0
        last = run_dir / "last.pt"
        if last.exists() and not resume:
            raise FileExistsError(f"{run_dir} already holds a run; resume it or name another")
        if last.exists():
            self._resume(last)
        with atomic_write(run_dir / "recipe.json") as temporary:
            temporary.write_text(json.dumps(asdict(recipe), indent=2) + "\n")

    def run(self) -> Scores:
        """Trains to the recipe's last step.

        Returns:
            The scores of the last validation.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays as it was.
        """
        recipe = self.recipe
        class_weights = None
        if recipe.balance_classes:
            class_weights = log_balanced_weights(self.train_set, len(self.model.label_set))
        loss_function = SegmentationLoss(recipe.aux_weight, class_weights).to(self.device)
        augmentation = training_augmentation(
            (recipe.crop_height, recipe.crop_width),
            scale_range=(recipe.scale_low, recipe.scale_high),
            color_jitter=recipe.color_jitter,
            preprocessing=self.model.preprocessing,
        )
        loader = training_loader(
            self.train_set,
            augmentation,
            batch_size=recipe.batch_size,
            first_step=self.step,
            last_step=recipe.steps,
            seed=recipe.seed,
            workers=self.workers,
        )
        progress = tqdm(loader, initial=self.step, total=recipe.steps, unit="step", mininterval=2)
        self.model.train()
        for images, labels in progress:
            self._train_step(images, labels, loss_function)
            progress.set_postfix(loss=f"{self.loss:.3f}", best=f"{self.best:.2f}")
            if self.step % recipe.validate_every == 0 and self.step < recipe.steps:
                self._validate()
        return self._validate()

    def _train_step(self, images: Tensor, labels: Tensor, loss_function: nn.Module) -> None:
        torch.manual_seed(combined_seed(self.recipe.seed, self.step))
        batch = self.model.preprocessing(images.to(self.device, non_blocking=True))
        batch = batch.contiguous(memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        with self._autocast():
            outputs = self.model(batch)
        loss: Tensor = loss_function(outputs, labels)
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {self.loss}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _validate(self) -> Scores:
        with self._autocast():
            scores = evaluate(self.model, self.val_set)  # type: ignore[arg-type]
        logger.info("step %d: loss %.3f, mIoU %.2f", self.step, self.loss, scores.miou)
        with (self.run_dir / "log.jsonl").open("a") as log:
            record = {"step": self.step, "loss": self.loss, "miou": scores.miou}
            log.write(json.dumps({**record, "iou": scores.iou.tolist()}) + "\n")
        if scores.miou > self.best:
            self.best = scores.miou
            save_weights(
                self.run_dir / "best.safetensors", self.model.state_dict(), self.model.config
            )
        save_checkpoint(self.run_dir / "last.pt", self._state())
        return scores

    def _state(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "step": self.step,
            "best": self.best,
            "loss": self.loss,
            "recipe": asdict(self.recipe),
            "config": self.model.config,
        }

    def _resume(self, path: Path) -> None:
        state = load_checkpoint(path)
        for name, own in (("recipe", asdict(self.recipe)), ("config", self.model.config)):
            if state[name] != own:
                changed = sorted(
                    key
                    for key in own.keys() | state[name].keys()
                    if own.get(key) != state[name].get(key)
                )
                raise ValueError(f"the run in {path.parent} has another {', '.join(changed)}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.best, self.loss = state["step"], state["best"], state["loss"]


def _optimizer(model: nn.Module, recipe: Recipe) -> optim.Optimizer:
    kernels = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return optim.AdamW(groups, lr=recipe.learning_rate)


def poly_schedule(step: int, recipe: Recipe) -> float:
    """The factor on the learning rate: a linear rise, then (1 - progress) ** power."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    left = 1 - (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return float(max(0.0, left) ** recipe.power)


def log_balanced_weights(dataset: Dataset[Sample], num_classes: int) -> Tensor:
    """Weights (K,) that grow as classes get rarer: 1 / ln(1.02 + share), with mean 1.

    Source:
        ENet (https://arxiv.org/abs/1606.02147), section 5.2.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for index in range(len(dataset)):  # type: ignore[arg-type]
        labels = dataset[index][1].as_subclass(Tensor)
        counts += labels[labels != IGNORE_INDEX].bincount(minlength=num_classes)
    weights = 1 / torch.log(1.02 + counts.double() / counts.sum())
    return (weights / weights.mean()).float()
