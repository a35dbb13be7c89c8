"""Summary of a run in a few lines: what it trains, how, where to watch it, what came of it."""

import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from ccnet import distributed
from ccnet.console import printable
from ccnet.evaluation import Scores
from ccnet.model import CCNet
from ccnet.training.recipes import Recipe
from ccnet.training.trackers import Tracker, describe_curves
from ccnet.weights.sources import BEST_OF_A_RUN


def describe_start(
    model: CCNet,
    recipe: Recipe,
    device: torch.device,
    step: int,
    run_dir: Path,
    tracker: str | Tracker,
) -> list[str]:
    """Says which network a run trains, from which weights, how, and where, in a few lines.

    Args:
        model: the network.
        recipe: of the run, with its precision.
        device: trains the network.
        step: at which the run starts or resumes.
        run_dir: its folder.
        tracker: gets the curves.
    """
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    config, ranks = model.config, distributed.world_size()
    stride = (config["backbone_options"] or {}).get("output_stride", recipe.output_stride)
    passes = ranks * recipe.accumulation
    parts = f" ({recipe.batch_size / passes:g} in a forward pass)" if passes > 1 else ""
    processes = f" in {ranks} processes" if ranks > 1 else ""
    is_last = recipe.validate_every >= recipe.steps
    when = "at the end" if is_last else f"every {recipe.validate_every} steps"
    first = f"steps {step + 1} to {recipe.steps}" if step else f"{recipe.steps} steps"
    return [
        f"network: {config['backbone']} at output stride {stride}, "
        f"{config['recurrence']} loops of attention, {millions:.1f} million parameters"
        + (f"; frozen stages of the backbone: {frozen}" if (frozen := model.frozen_stages) else ""),
        f"weights: {_origin(model, recipe, step)}",
        f"training: {first} of {recipe.batch_size} images{parts}, crops of {recipe.crop_width}x"
        f"{recipe.crop_height}, validated {when}; "
        f"{recipe.precision} on {device}{processes}",
        f"folder: {printable(run_dir)} (all settings: recipe.json)"
        + describe_curves(tracker, run_dir),
    ]


def _origin(model: CCNet, recipe: Recipe, step: int) -> str:
    """Says which weights a run starts from."""
    if step:
        return f"those of step {step} of this run"
    if recipe.weights:
        known = model.card_details.get("weights")
        return f"{recipe.weights} ({known})" if known else recipe.weights
    if recipe.weights_backbone:
        return f"{recipe.weights_backbone}, of the backbone alone"
    return "none: the network starts untrained"


def describe_end(
    run_dir: Path, scores: Scores, best: float, backbone: str, val_set: Any
) -> list[str]:
    """Gives the scores, and says where the best weights are and how to predict with them.

    Args:
        run_dir: the folder of the run.
        scores: of the last weights.
        best: the mIoU of the best weights, in percent.
        backbone: of the network.
        val_set: images to validate on: the example takes the first one, if it is a file.
    """
    script = Path(sys.argv[0]).with_name("predict.py")
    command = ["python", str(script)] if script.is_file() else ["ccnet", "predict"]
    command += [*_first_picture(val_set), "--weights", str(run_dir)]
    network = backbone if ":" in backbone else f"ccnet_{backbone}"
    command += ["--network", network] if backbone != "resnet18" else []
    last = f"; the table is that of the last ones, mIoU {scores.miou:.2f}"
    return [
        scores.table(),
        "",
        f"best weights: {printable(run_dir / BEST_OF_A_RUN)}, mIoU {best:.2f}"
        + (last if scores.miou < best else ""),
        f"to predict: {printable(shlex.join([*command, '--output', 'results']))}",
    ]


def _first_picture(dataset: Any) -> list[str]:
    index = 0
    while isinstance(dataset, Subset):
        dataset, index = dataset.dataset, dataset.indices[index]
    return [str(dataset.pairs[index][0])] if hasattr(dataset, "pairs") else []
