r"""Ablation of the attention: loops, a Non-local block in their place, the consistency loss.

    python scripts/benchmarks/ablation.py --root CamVid --leave-out 0006R0 --output ablation \
        --seeds 3 --steps 1000 --crop-height 180 --crop-width 240 --output-stride 16 \
        --learning-rate 1e-3 --size-factor 0.5

Each run has a folder of its own in OUTPUT and is a run of the ordinary trainer, with the values of
a recipe (camvid-r18, or --recipe; in float32) but for what its row names. The same command again
goes on where it was stopped; finished runs are not repeated. After each run, OUTPUT/ablation.md is
written anew, with what was run so far: mean and range of the mIoU of the last weights; in the end
also the time of a step on crops, and the memory that it keeps for backward (OUTPUT/costs.json).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from live_memory import kept_for_backward
from runs import add_run_options, in_short, parse_run_options, told_in_a_line, write_text
from torch import Tensor, nn

from ccnet.baselines import NonLocalBlock2d
from ccnet.classes import LabelSet
from ccnet.evaluation import evaluate
from ccnet.files import user_path
from ccnet.model import CCNet
from ccnet.training.changes import refuse_changes
from ccnet.training.command_line import given_fields
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.objective import make_objective, prepare
from ccnet.training.precision import choose_precision
from ccnet.training.recipes import Recipe, with_later_fields
from ccnet.training.setup import build_model, open_datasets

OWN_VALIDATION = ("camvid", "cityscapes", "street-scenes")
"""Data sets with images to validate on beside those that are left out."""


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        title: of the row.
        fields: of the recipe, that differ.
        attention: takes the place of the criss-cross module; None for that one.
        published: mIoU on Cityscapes val with ResNet-101 in the paper; None if not there.
    """

    title: str
    fields: Mapping[str, Any]
    attention: Callable[[int], nn.Module] | None = None
    published: float | None = None

    def build(self, recipe: Recipe, label_set: LabelSet) -> CCNet:
        """Builds the network. A block in place of the module starts with the same projections."""
        model = build_model(recipe, label_set, progress=False)
        if self.attention is not None:
            block = self.attention(model.head.channels)
            block.load_state_dict(model.head.cca.state_dict())
            model.head.cca = block
            model.config["attention"] = self.title  # so that its weights load as no other network
        return model


VARIANTS = {
    "r0": Variant("R = 0", {"recurrence": 0}, published=75.1),
    "r1": Variant("R = 1", {"recurrence": 1}, published=78.0),
    "r2": Variant("R = 2", {"recurrence": 2}, published=79.8),
    "r3": Variant("R = 3", {"recurrence": 3}, published=80.2),
    "r2-ccl": Variant("R = 2, CCL", {"recurrence": 2, "consistency_weight": 1.0}),
    "non-local": Variant("Non-local", {"recurrence": 1}, NonLocalBlock2d),
}
"""By the names of their folders. CCL is the category consistent loss."""


def runs(arguments: argparse.Namespace) -> Iterator[tuple[str, Recipe, Path]]:
    """Yields the variant, the recipe and the folder of each run, all variants of a seed first."""
    first = arguments.base.seed
    for seed in range(first, first + arguments.seeds):
        for name in arguments.only:
            recipe = replace(arguments.base, seed=seed, **VARIANTS[name].fields)
            yield name, recipe, arguments.output / f"{name}-seed{seed}"


def scores_of(run_dir: Path, recipe: Recipe) -> dict[str, float] | None:
    """Returns the mIoU of a finished run by what it is of; None if it is yet to be run.

    Raises:
        ValueError: if it has another recipe.
    """
    path = run_dir / "ablation.json"
    if not path.is_file():
        return None
    saved = json.loads(path.read_text(encoding="utf-8"))
    refuse_changes(run_dir, with_later_fields(saved["recipe"]), asdict(recipe))
    scores: dict[str, float] = saved["miou"]
    return scores


def train(name: str, recipe: Recipe, run_dir: Path, arguments: argparse.Namespace) -> None:
    """Trains a run, or goes on with it, and measures its last weights.

    Of a finished run it sees that it is the same.

    Raises:
        ValueError: if it has another recipe, or other images.
    """
    roots = arguments.root, None, None, arguments.mix_root
    train_set, val_set, label_set = open_datasets(recipe, *roots)
    sets = {f"left out: {recipe.leave_out}" if recipe.leave_out else "val": val_set}
    if recipe.leave_out and recipe.dataset in OWN_VALIDATION:
        sets = {"val": open_datasets(replace(recipe, leave_out=""), *roots)[1], **sets}
    model = VARIANTS[name].build(recipe, label_set).to(arguments.device)
    options: dict[str, Any] = {"workers": arguments.workers, "tracker": "none", "resume": True}
    Trainer(model, train_set, val_set, recipe, run_dir, **options).run()
    if scores_of(run_dir, recipe) is not None:
        return
    protocol = recipe.protocol()
    miou = {of: evaluate(model, one, protocol=protocol).miou for of, one in sets.items()}
    write_json(run_dir / "ablation.json", {"recipe": asdict(recipe), "miou": miou})


def costs(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measures a forward and backward pass of each variant, in turns: MiB kept, and seconds."""
    precision = choose_precision(arguments.base.precision, arguments.device, None)
    recipe = replace(
        arguments.base,
        precision=precision,
        balance_classes=False,
        class_weights="",
        compile=False,
    )
    size = recipe.batch_size // recipe.accumulation, recipe.crop_height, recipe.crop_width
    images = torch.randint(256, (size[0], 3, *size[1:]), dtype=torch.uint8)
    _, _, label_set = open_datasets(recipe, arguments.root, mix_roots=arguments.mix_root)
    labels = torch.randint(len(label_set), size, dtype=torch.uint8)
    steps: dict[str, Callable[[], Tensor]] = {}
    kept: dict[str, float] = {}
    for name in arguments.only:
        own = replace(recipe, **VARIANTS[name].fields)
        model = prepare(VARIANTS[name].build(own, label_set).to(arguments.device), own).train()
        objective = make_objective(model, [], own)  # type: ignore[arg-type]
        steps[name] = lambda objective=objective: objective(images, labels)
        bytes_kept = kept_for_backward(steps[name], (*model.parameters(), *model.buffers()))
        kept[name] = bytes_kept / 2**20
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + arguments.rounds):  # the first is for warm-up
        for name, step in steps.items():
            synchronise(arguments.device)
            start = time.perf_counter()
            step().backward()
            synchronise(arguments.device)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"seconds": statistics.median(seconds[name][1:]), "kept": kept[name]}
        for name in steps
    }


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def as_markdown(
    arguments: argparse.Namespace, cost: Mapping[str, Mapping[str, float]] | None
) -> str:
    """Formats what was run so far."""
    base: Recipe = arguments.base
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    for name, recipe, run_dir in runs(arguments):
        if scores := scores_of(run_dir, recipe):
            found[name].append(scores)
    columns = list(dict.fromkeys(of for rows in found.values() for row in rows for of in row))
    without = f" without {base.leave_out}" if base.leave_out else ""
    mix = f" and {base.mix}" if base.mix else ""
    lines = [
        f"mIoU in percent, mean (lowest - highest) over seeds: {base.backbone} at output stride "
        f"{base.output_stride}, {base.steps} steps of {base.batch_size} crops of {base.crop_width}x"
        f"{base.crop_height} from {base.dataset}{mix}{without}, images at {base.size_factor:g}"
        " times their size; the last weights, which nothing was chosen on. Step and memory: forward"
        f" and backward of a batch on {arguments.device}. Published: ResNet-101, Cityscapes val.",
        "",
        f"| network | seeds |{''.join(f' {of} |' for of in columns)} step, ms | kept, MiB | "
        "published |",
        f"| --- | ---: |{' ---: |' * (len(columns) + 3)}",
    ]
    for name, rows in found.items():
        cells = [VARIANTS[name].title, str(len(rows))]
        cells += [in_short([row[of] for row in rows]) for of in columns]
        own = cost[name] if cost else None
        cells += [f"{1e3 * own['seconds']:.0f}", f"{own['kept']:.1f}"] if own else ["-", "-"]
        cells.append(f"{VARIANTS[name].published or '-'}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_table(
    arguments: argparse.Namespace, cost: Mapping[str, Mapping[str, float]] | None = None
) -> str:
    text = as_markdown(arguments, cost)
    write_text(arguments.output / "ablation.md", text)
    return text


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="camvid-r18", help="(default: %(default)s)")
    add("--root", type=user_path, help="folder of the data set; rendered scenes need none")
    add("--mix-root", type=user_path, action="append", default=[], help="as of ccnet train")
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="(default: all)")
    add("--rounds", type=int, default=5, metavar="N", help="timed steps (default: 5)")
    add_run_options(parser)
    arguments = parse_run_options(parser, argv)
    if arguments.rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, not {arguments.rounds}")
    given = {"precision": "float32", **given_fields(arguments, Recipe)}
    recipe = replace(RECIPES[arguments.recipe], **given)
    arguments.base = replace(recipe, validate_every=recipe.steps)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    with told_in_a_line():
        arguments = parse_arguments(argv)
        for name, recipe, run_dir in runs(arguments):
            train(name, recipe, run_dir, arguments)
            write_table(arguments)
        cost = costs(arguments)
        write_json(arguments.output / "costs.json", cost)
        print(write_table(arguments, cost))


if __name__ == "__main__":
    main()
