r"""Fine-tuning on few images: from whole weights, from a pre-trained backbone alone, from noise.

    python scripts/benchmarks/fine_tuning.py --root CamVid --only 0006R0 --images 20 \
        --weights runs/unseen --weights-backbone runs/backbone/best.safetensors --output fine-tuning

Of the images of CamVid's train split whose names contain a part, some, evenly spaced, are trained
on, all others are validated on, with four classes: drivable, vehicles, people, rest. For an honest
figure, the weights must not have learnt from these images. Each run has a folder of its own in
OUTPUT and is one of the ordinary trainer, with the recipe "finetune"; finished runs are not
repeated. OUTPUT gets fine-tuning.md, mean and range over seeds of the mIoU at the first, the middle
and the last validation, and fine-tuning.png, the mIoU at all of them.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from runs import add_run_options, in_short, parse_run_options, told_in_a_line, write_text
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import tv_tensors

from ccnet.classes import CAMVID, IGNORE_INDEX, LabelSet
from ccnet.datasets import CamVid, Sample
from ccnet.datasets.selection import select
from ccnet.files import atomic_write, user_path
from ccnet.training.command_line import given_fields
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.recipes import Recipe
from ccnet.training.setup import build_model

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

Curves = dict[str, list[dict[int, float]]]
"""The mIoU of runs by step, by what they started from."""


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
    found = {}
    if arguments.weights:
        found["weights"] = replace(base, weights=arguments.weights, weights_backbone="")
    if backbone := base.weights_backbone:
        found["backbone"] = replace(base, weights="", weights_backbone=backbone)
    return {**found, "scratch": replace(base, weights="", weights_backbone="")}


def runs(arguments: argparse.Namespace) -> Iterator[tuple[str, Recipe, Path]]:
    """Yields the start, the recipe and the folder of each run, all starts of a seed first."""
    first = arguments.base.seed
    for seed in range(first, first + arguments.seeds):
        for name, recipe in recipes(arguments).items():
            yield name, replace(recipe, seed=seed), arguments.output / f"{name}-seed{seed}"


def log_of(run_dir: Path) -> dict[int, float]:
    """Returns the mIoU of a run by step."""
    records = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    return {record["step"]: record["mIoU"] for record in records}


def train(recipe: Recipe, run_dir: Path, arguments: argparse.Namespace) -> None:
    """Trains a run, or goes on with it; one that is finished takes no step.

    Raises:
        ValueError: if it has another recipe or other images.
    """
    dataset = Grouped(CamVid(arguments.root, "train"))
    parts = divide(dataset.names, arguments.only, arguments.images)
    sets: Any = [Subset(dataset, part) for part in parts]
    model = build_model(recipe, dataset.label_set, progress=False).to(arguments.device)
    options: dict[str, Any] = {"workers": arguments.workers, "tracker": "none", "resume": True}
    Trainer(model, *sets, recipe, run_dir, **options).run()


def curves_of(arguments: argparse.Namespace) -> Curves:
    """Returns the validations of each run so far, by its start."""
    found: Curves = {}
    for name, _, run_dir in runs(arguments):
        if (run_dir / "results.json").is_file():
            found.setdefault(name, []).append(log_of(run_dir))
    return found


def steps_of(curves: Curves) -> list[int]:
    """Returns the steps at which all runs were validated."""
    return sorted(set.intersection(*(set(log) for logs in curves.values() for log in logs)))


def as_markdown(arguments: argparse.Namespace, curves: Curves) -> str:
    """Formats what was run so far."""
    base: Recipe = arguments.base
    steps = steps_of(curves)
    shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    lines = [
        f"mIoU of {', '.join(GROUPS)} in percent, mean (lowest - highest) over seeds: "
        f"{arguments.images} images of {arguments.only} to train on, {base.steps} steps of "
        f"{base.batch_size} crops, the others to validate on, at {base.size_factor:g} times their "
        "size; the weights of that step, which nothing was chosen on.",
        "",
        f"| start | seeds |{''.join(f' step {step} |' for step in shown)}",
        f"| --- | ---: |{' ---: |' * len(shown)}",
    ]
    for name, logs in curves.items():
        values = [[log[step] for log in logs] for step in shown]
        lines.append(
            f"| {STARTS[name]} | {len(logs)} | {' | '.join(in_short(one) for one in values)} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: Path, curves: Curves) -> None:
    """Draws the mean mIoU over the steps, and its range over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="mIoU, %")
    steps = steps_of(curves)
    for name, logs in curves.items():
        values = [[log[step] for log in logs] for step in steps]
        (line,) = axes.plot(steps, [statistics.mean(one) for one in values], label=STARTS[name])
        low, high = [min(one) for one in values], [max(one) for one in values]
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
    axes.legend(title="start")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", type=user_path, required=True, help="folder of CamVid")
    add("--only", default="0006R0", metavar="PARTS", help="(default: %(default)s)")
    add("--images", type=int, default=20, metavar="N", help="to train on (default: %(default)s)")
    add_run_options(parser)
    arguments = parse_run_options(parser, argv)
    given = {"validate_every": 25, **given_fields(arguments, Recipe)}
    for name in ("dataset", "leave_out", "mix", "scenes"):
        if name in given:
            raise ValueError(f"{name} has no effect: all images are CamVid's, see --only")
    arguments.weights = given.pop("weights", "DEFAULT")
    arguments.base = replace(RECIPES["finetune"], weights="", **given)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    with told_in_a_line():
        arguments = parse_arguments(argv)
        for _, recipe, run_dir in runs(arguments):
            train(recipe, run_dir, arguments)
            curves = curves_of(arguments)
            text = as_markdown(arguments, curves)
            write_text(arguments.output / "fine-tuning.md", text)
            plot(arguments.output / "fine-tuning.png", curves)
        print(text)


if __name__ == "__main__":
    main()
