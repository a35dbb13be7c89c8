r"""Fine-tuning on few images: from whole weights, from a pre-trained backbone alone, from noise.

    python scripts/benchmarks/fine_tuning.py --root CamVid --only 0006R0 --images 20 \
        --weights runs/unseen --weights-backbone runs/backbone/best.safetensors --output fine-tuning

Of the images of CamVid's train split whose names contain a part, some, evenly spaced, are trained
on, all others are validated on, with four classes: drivable, vehicles, people, rest. For an honest
figure, the weights must not have learnt from these images. Each run has a folder of its own in
OUTPUT and is one of the ordinary trainer, with the recipe "finetune"; finished runs are not
repeated. OUTPUT gets fine-tuning.md, mean and range over seeds of the mIoU at the last step, and
fine-tuning.png, the mIoU after each validation.
"""

import argparse
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ablation import in_short
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import tv_tensors

from ccnet.classes import CAMVID, IGNORE_INDEX, LabelSet
from ccnet.console import prepare_console
from ccnet.datasets import CamVid, Sample
from ccnet.datasets.selection import select
from ccnet.files import atomic_write, user_path
from ccnet.training.changes import refuse_changes
from ccnet.training.command_line import add_recipe_options, given_fields, option_groups
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.recipes import CHOICES, Recipe
from ccnet.training.setup import build_model
from ccnet.training.termination import Terminated

GROUPS = {
    "drivable": ("road",),
    "vehicles": ("car",),
    "people": ("pedestrian", "bicyclist"),
    "rest": ("sky", "building", "pole", "pavement", "tree", "sign symbol", "fence"),
}
"""The classes to learn, each of several of CamVid's."""

COLORS = ((128, 64, 128), (0, 0, 142), (220, 20, 60), (70, 70, 70))

STARTS = {
    "weights": "the weights",
    "backbone": "the pre-trained backbone alone",
    "scratch": "noise",
}
"""What a run starts from, by the names of their folders."""


class Grouped(Dataset[Sample]):
    """CamVid with the classes of `GROUPS`."""

    def __init__(self, dataset: CamVid) -> None:
        self.dataset, self.names = dataset, dataset.names
        self.label_set = LabelSet(tuple(GROUPS), COLORS)
        self._numbers = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
        for number, members in enumerate(GROUPS.values()):
            for name in members:
                self._numbers[CAMVID.categories.index(name)] = number

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        image, mask = self.dataset[index]
        return image, tv_tensors.Mask(self._numbers[mask.as_subclass(Tensor).long()])

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a sample from others."""
        return {**self.dataset.identify(index), "classes": list(GROUPS)}


def divide(names: Sequence[str], parts: str, count: int) -> tuple[list[int], list[int]]:
    """Returns the indices of the images to train on, evenly spaced, and of those to validate on."""
    found = select(names, parts)
    if not 0 < count < len(found):
        raise ValueError(f"--images must be in 1..{len(found) - 1}, not {count}")
    chosen = {found[number * len(found) // count] for number in range(count)}
    return sorted(chosen), [index for index in found if index not in chosen]


def recipes(arguments: argparse.Namespace) -> dict[str, Recipe]:
    """Returns the recipe of each start for which there is a file."""
    base = arguments.base
    found = {"weights": replace(base, weights=arguments.weights, weights_backbone="")}
    if backbone := base.weights_backbone:
        found["backbone"] = replace(base, weights="", weights_backbone=backbone)
    return {**found, "scratch": replace(base, weights="", weights_backbone="")}


def log_of(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the validations of a run."""
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def train(recipe: Recipe, run_dir: Path, arguments: argparse.Namespace) -> None:
    """Trains a run, or goes on with it; does nothing if it is finished.

    Raises:
        ValueError: if it has another recipe.
    """
    if (run_dir / "results.json").is_file():
        saved = json.loads((run_dir / "recipe.json").read_text(encoding="utf-8"))
        refuse_changes(run_dir, {**saved, "precision": recipe.precision}, asdict(recipe))
        return
    dataset = Grouped(CamVid(arguments.root, "train"))
    parts = divide(dataset.names, arguments.only, arguments.images)
    sets: Any = [Subset(dataset, part) for part in parts]
    model = build_model(recipe, dataset.label_set, progress=False).to(arguments.device)
    options: dict[str, Any] = {"workers": arguments.workers, "tracker": "none", "resume": True}
    Trainer(model, *sets, recipe, run_dir, **options).run()


def curves_of(arguments: argparse.Namespace) -> dict[str, list[list[dict[str, Any]]]]:
    """Returns the validations of each run so far, by its start."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for seed in range(arguments.seeds):
        for name in recipes(arguments):
            run_dir = arguments.output / f"{name}-seed{seed}"
            if (run_dir / "results.json").is_file():
                found.setdefault(name, []).append(log_of(run_dir))
    return found


def as_markdown(arguments: argparse.Namespace) -> str:
    """Formats what was run so far."""
    base: Recipe = arguments.base
    curves = curves_of(arguments)
    steps = [record["step"] for record in next(iter(curves.values()))[0]]
    shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    lines = [
        f"mIoU of {', '.join(GROUPS)} in percent, mean (lowest - highest) over seeds: "
        f"{arguments.images} images of {arguments.only} to train on, {base.steps} steps of "
        f"{base.batch_size} crops, the others to validate on; the weights of that step, which "
        "nothing was chosen on.",
        "",
        f"| start | seeds |{''.join(f' step {step} |' for step in shown)}",
        f"| --- | ---: |{' ---: |' * len(shown)}",
    ]
    for name, runs in curves.items():
        values = [[r["mIoU"] for run in runs for r in run if r["step"] == step] for step in shown]
        lines.append(
            f"| {STARTS[name]} | {len(runs)} | {' | '.join(in_short(one) for one in values)} |"
        )
    return "\n".join(lines) + "\n"


def plot(arguments: argparse.Namespace) -> None:
    """Draws the mean mIoU over the steps, and its range over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="mIoU, %")
    for name, runs in curves_of(arguments).items():
        steps = [record["step"] for record in runs[0]]
        values = [[run[index]["mIoU"] for run in runs] for index in range(len(steps))]
        (line,) = axes.plot(steps, [statistics.mean(one) for one in values], label=STARTS[name])
        low, high = [min(one) for one in values], [max(one) for one in values]
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
    axes.legend(title="start")
    with atomic_write(arguments.output / "fine-tuning.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=user_path, required=True, help="folder of the runs, table and plot")
    add("--root", type=user_path, required=True, help="folder of CamVid")
    add("--only", default="0006R0", metavar="PARTS", help="(default: %(default)s)")
    add("--images", type=int, default=20, metavar="N", help="to train on (default: %(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each start (default: 3)")
    add("--workers", type=int, default=1, metavar="N", help="data-loading processes (default: 1)")
    add("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    add_recipe_options(option_groups(parser, Recipe), Recipe, CHOICES)
    arguments = parser.parse_args(argv)
    given = {"validate_every": 25, **given_fields(arguments, Recipe)}
    arguments.weights = given.pop("weights", "DEFAULT")
    arguments.base = replace(RECIPES["finetune"], weights="", **given)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    prepare_console()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        arguments = parse_arguments(argv)
        for seed in range(arguments.seeds):
            for name, recipe in recipes(arguments).items():
                run_dir = arguments.output / f"{name}-seed{seed}"
                train(replace(recipe, seed=seed), run_dir, arguments)
                text = as_markdown(arguments)
                with atomic_write(arguments.output / "fine-tuning.md") as temporary:
                    temporary.write_text(text, encoding="utf-8")
                plot(arguments)
        print(text)
    except (Terminated, KeyboardInterrupt) as stop:
        print(f"{stop or 'stopped'}; the same command goes on")
    except (OSError, ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
