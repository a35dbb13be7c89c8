"""Classification: pre-trains a backbone on images of classes."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Subset
from torchvision.transforms import v2
from tqdm import tqdm

from ccnet import distributed
from ccnet.backbone import BACKBONES, OUTPUT_STRIDES, Backbone
from ccnet.files import atomic_write
from ccnet.training.checkpoint import (
    Checkpoints,
    load_checkpoint,
    refuse_changes,
    remove_unfinished,
    saving,
)
from ccnet.training.class_folder import ClassFolder
from ccnet.training.data import combined_seed, iterate, training_loader
from ccnet.training.termination import Terminated, Termination
from ccnet.transforms import Preprocessing
from ccnet.weights import ModelWeights, write_weights

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 20
"""Every twentieth image, in the order of their names, is held out."""


@dataclass(frozen=True)
class ClassificationRecipe:
    """The hyper-parameters of a classification run.

    Attributes:
        backbone: the backbone that learns.
        output_stride: output stride of the backbone; its weights fit every output stride.
        size: side of the images, and of the crops of them, in pixels.
        scale_low: the smallest share of an image that a crop covers.
        color_jitter: strength of the jitter of brightness, contrast and saturation, 0..1.
        steps: number of optimiser steps.
        batch_size: images per optimiser step, over all ranks.
        learning_rate: the highest learning rate; it rises linearly and falls to 0 with the cosine.
        warmup_steps: steps of its rise.
        weight_decay: weight decay of kernels, in AdamW.
        label_smoothing: share of the target spread over all classes.
        average_decay: decay per step of the moving average of the weights, which is what is
            validated and written.
        precision: "float32" or "bfloat16" (autocast).
        validate_every: optimiser steps between validations; each has a checkpoint.
        seed: random seed of initial weights, data order and augmentation.

    Raises:
        ValueError: if a value is invalid; names field and value.
    """

    backbone: str = "resnet18"
    output_stride: int = 16
    size: int = 64
    scale_low: float = 0.25
    color_jitter: float = 0.4
    steps: int = 25_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 1000
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average_decay: float = 0.999
    precision: str = "bfloat16"
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        for field in fields(self):
            low, high = _RANGES.get(field.name, (0, math.inf))
            value = getattr(self, field.name)
            if not isinstance(value, str) and not low <= value <= high:
                raise ValueError(f"{field.name} must be in {low}..{high}, not {value}")


CHOICES = {
    "backbone": BACKBONES,
    "output_stride": OUTPUT_STRIDES,
    "precision": ("float32", "bfloat16"),
}
"""The allowed values of fields that have only a few."""

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("size", "steps", "batch_size", "validate_every"), (1, math.inf)),
    **dict.fromkeys(("scale_low", "color_jitter", "label_smoothing", "average_decay"), (0, 1)),
}


class Classifier(nn.Module):
    """Backbone, global average pooling and a linear classifier of uint8 images (N, 3, H, W)."""

    def __init__(self, recipe: ClassificationRecipe, num_classes: int) -> None:
        super().__init__()
        self.preprocessing, self.bfloat16 = Preprocessing(), recipe.precision == "bfloat16"
        self.backbone = Backbone(recipe.backbone, output_stride=recipe.output_stride)
        self.classifier = nn.Linear(self.backbone.channels[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits (N, K), float32."""
        batch = self.preprocessing(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = self.classifier(self.backbone(batch)[1].mean((-2, -1)))
        return logits.float()


class ClassificationTrainer:
    """A classification run in a folder, on one process or on all ranks that torchrun started.

    All random numbers depend on seed, step and sample only, so a resumed run continues as if it had
    never stopped. The folder gets `checkpoints`, `log.jsonl` (the validations) and
    `best.safetensors`, the backbone of the highest accuracy, for `weights_backbone`.

    Args:
        images: the classes; every twentieth image is held out for validation.
        recipe: the hyper-parameters.
        run_dir: the folder of the run.
        device: the device to train on.
        workers: number of data-loading processes.
        resume: resume from the newest intact checkpoint in the folder, if there is one.
        details: facts about the data for the card of the weights: `license`, `source`, `dataset`.

    Raises:
        FileExistsError: if the folder holds a run and `resume` is false.
        ValueError: if that run has another recipe or other classes, or the batch is too small for
            the world size.
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
        details: dict[str, str] | None = None,
    ) -> None:
        self.recipe, self.run_dir, self.device = recipe, run_dir, torch.device(device)
        self.details = details or {}
        self.config = {"classes": images.classes, "images": len(images)}
        held_out = range(0, len(images), VALIDATION_SHARE)
        self.val_set = Subset(images, held_out[distributed.rank() :: distributed.world_size()])
        train_set = Subset(images, [one for one in range(len(images)) if one not in held_out])
        torch.manual_seed(recipe.seed)
        model = Classifier(recipe, len(images.classes))
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay), use_buffers=True
        )
        self.optimizer = _make_optimizer(self.model, recipe)
        self.step, self.records = 0, list[dict[str, float]]()
        self.termination = Termination()
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        self._resume(resume)
        self.loader = training_loader(
            train_set,  # type: ignore[arg-type]
            _augmentation(recipe),  # type: ignore[arg-type]
            batch_size=recipe.batch_size,
            first_step=self.step,
            last_step=recipe.steps,
            seed=recipe.seed,
            workers=workers,
        )

    def run(self) -> float:
        """Trains to the recipe's last step.

        Returns:
            The last accuracy on the held-out images, in percent.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
            OSError: if a file of the run cannot be written; the last checkpoint stays.
            Terminated: on SIGTERM, after saving a checkpoint.
        """
        model: nn.Module = self.model
        if distributed.world_size() > 1:
            model = DistributedDataParallel(model)
        hidden = True if distributed.rank() else None
        with (
            self.termination.awaited(),
            iterate(self.loader) as batches,
            tqdm(initial=self.step, total=self.recipe.steps, unit="step", disable=hidden) as bar,
        ):
            losses: list[float] = []
            while self.step < self.recipe.steps:
                loss, stopping = self._train_step(model, batches)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                if stopping:
                    self._save()
                    raise Terminated(f"stopped; checkpoint saved at step {self.step}")
                if self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps:
                    self._validate(sum(losses) / len(losses))
                    losses.clear()
        return self.records[-1]["accuracy"]

    def _train_step(
        self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]
    ) -> tuple[float, bool]:
        """Runs one optimiser step; returns the loss, and whether any rank has received SIGTERM."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * _one_cycle(self.step, self.recipe)
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
        return value, bool(stopping)

    def _validate(self, loss: float) -> None:
        """Validates the averaged weights, then saves them and a checkpoint."""
        for buffer in self.average.buffers():
            if buffer.is_floating_point():  # ranks have seen different images
                buffer.copy_(distributed.all_reduce_mean(buffer))
        accuracy = self._accuracy()
        best = max([0.0, *(record["accuracy"] for record in self.records)])
        self.records.append({"step": self.step, "loss": loss, "accuracy": accuracy})
        logger.info("step %d: loss %.3f, accuracy %.2f %%", self.step, loss, accuracy)
        if distributed.rank() == 0:
            path = self.run_dir / "log.jsonl"
            with saving(path), atomic_write(path) as temporary:
                temporary.write_text("".join(f"{json.dumps(one)}\n" for one in self.records))
            if accuracy > best:
                path = self.run_dir / "best.safetensors"
                with saving(path):
                    write_weights(path, self._to_weights())
        self._save()

    @torch.no_grad()
    def _accuracy(self) -> float:
        """Returns the accuracy of the averaged weights on the held-out images, in percent."""
        counts = torch.zeros(2, device=self.device)
        self.average.eval()
        for batch in torch.utils.data.DataLoader(self.val_set, self.recipe.batch_size):
            images, labels = (part.to(self.device) for part in batch)
            right = (self.average(images).argmax(1) == labels).sum()
            counts += torch.stack([right, torch.full_like(right, len(labels))])
        right, total = distributed.all_reduce_sum(counts).tolist()
        return 100 * right / total

    def _to_weights(self) -> ModelWeights:
        average: Any = self.average.module
        return ModelWeights(
            average.backbone.state_dict(),
            {
                "backbone": self.recipe.backbone,
                "backbone_options": {"stem_widths": list(average.backbone.stem_widths)},
            },
            {**self.details, "weights": f"a backbone of {len(self.config['classes'])} classes"},
        )

    def _save(self) -> None:
        if distributed.rank() == 0:
            self.checkpoints.save(
                {
                    "model": self.model.state_dict(),
                    "average": self.average.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "records": self.records,
                    "recipe": asdict(self.recipe),
                    "config": self.config,
                }
            )

    def _resume(self, resume: bool) -> None:
        """Resumes the run in the folder, if there is one."""
        if self.checkpoints.paths() and not resume:
            raise FileExistsError(
                f"{self.run_dir} already holds a run: "
                "resume it (--resume auto) or choose another folder"
            )
        path, state = None, None
        if distributed.rank() == 0:
            remove_unfinished(self.run_dir)
            path, state = self.checkpoints.newest()
        path = distributed.all_gather(path)[0]
        if path is None:
            return
        state = state or load_checkpoint(path)
        refuse_changes(self.run_dir, state["recipe"], asdict(self.recipe))
        refuse_changes(self.run_dir, state["config"], self.config)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.records = state["step"], state["records"]
        logger.info("resuming from %s", path)


def _augmentation(recipe: ClassificationRecipe) -> v2.Compose:
    """Random crop, flip and colour jitter of an image (3, H, W), uint8; the class passes."""
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(recipe.size, (recipe.scale_low, 1.0)),
        v2.RandomHorizontalFlip(),
    ]
    if jitter := recipe.color_jitter:
        steps.append(v2.ColorJitter(jitter, jitter, jitter))
    return v2.Compose(steps)


def _one_cycle(step: int, recipe: ClassificationRecipe) -> float:
    """Returns the learning rate factor: linear to 1, then with the cosine to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2


def _make_optimizer(model: nn.Module, recipe: ClassificationRecipe) -> optim.Optimizer:
    kernels, others = (
        [p for p in model.parameters() if (p.dim() > 1) is big] for big in (True, False)
    )
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
