"""Data loading benchmark: Cityscapes for training on one core, from PNG files to a batch.

    python scripts/benchmarks/data_loading.py --output results

Renders scenes of 1024x2048 pixels into a temporary folder with the layout of Cityscapes, and loads
them as training does: decode, random scale, crop, flip, optional colour jitter, collate. Scaling
the whole image before cropping is timed in turns with it, at the same scales, so that ratios hold
even if absolute times drift. Prints Markdown tables; --output writes them, and all figures as JSON,
to a folder.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import CAMVID, CITYSCAPES
from ccnet.console import prepare_console
from ccnet.datasets import Cityscapes, Sample
from ccnet.datasets.street_scenes import render_scene
from ccnet.files import user_path
from ccnet.images import decode_image
from ccnet.training.augmentation import RandomScaledCrop

NAMES = {
    "pavement": "sidewalk",
    "tree": "vegetation",
    "sign symbol": "traffic sign",
    "pedestrian": "person",
    "bicyclist": "rider",
}
"""Cityscapes names of CamVid classes, where they differ."""

STEPS = ("image", "labels", "scale and crop", "flip", "colour jitter", "collate")
Times = dict[str, list[float]]


class ScaleThenCrop(v2.Transform):
    """Scales the whole image by a random factor, then crops it."""

    def __init__(self, size: tuple[int, int], scale_range: tuple[float, float]) -> None:
        super().__init__()
        self.scale_range = scale_range
        fill = {tv_tensors.Image: [124, 116, 104], tv_tensors.Mask: 255}
        self.crop = v2.RandomCrop(size, pad_if_needed=True, fill=fill)

    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> Sample:
        """Scales image and mask, and crops the same window from both."""
        factor = torch.empty(()).uniform_(*self.scale_range).item()
        size = [round(length * factor) for length in image.shape[-2:]]
        scaled = (v2.functional.resize(inpt, size, antialias=True) for inpt in (image, mask))
        return self.crop(*scaled)


def write_cityscapes(root: Path, count: int, size: tuple[int, int]) -> None:
    names = [NAMES.get(name, name) for name in CAMVID.categories]
    ids = [CITYSCAPES.label_ids[CITYSCAPES.categories.index(name)] for name in names]
    for index in range(count):
        picture, labels = render_scene(index, size)
        for folder, suffix, file in (
            ("leftImg8bit", "leftImg8bit", picture),
            ("gtFine", "gtFine_labelIds", Image.fromarray(np.uint8(ids)[np.asarray(labels)])),
        ):
            (root / folder / "train" / "aachen").mkdir(parents=True, exist_ok=True)
            file.save(
                root / folder / "train" / "aachen" / f"aachen_{index:06d}_000019_{suffix}.png"
            )


def measure(dataset: Cityscapes, arguments: argparse.Namespace) -> Times:
    """Times each step for each sample, in seconds; both ways to scale and crop take turns."""
    size, scales = (arguments.crop, arguments.crop), tuple(arguments.scales)
    crops = {
        "scale and crop": RandomScaledCrop(size, scales, fill=(124, 116, 104)),
        "scale, then crop": ScaleThenCrop(size, scales),
    }
    flip = v2.RandomHorizontalFlip()
    jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.05)
    times: Times = {step: [] for step in (*STEPS, *crops)}

    def timed(step: str, function: Callable[..., Any], *inputs: Any) -> Any:
        start = time.perf_counter()
        result = function(*inputs)
        times[step].append(time.perf_counter() - start)
        return result

    samples: list[Sample] = []
    for number in range(arguments.samples):
        index = number % len(dataset)
        image = tv_tensors.Image(timed("image", decode_image, dataset.pairs[index][0]))
        mask = tv_tensors.Mask(timed("labels", dataset.labels, index))
        for step in sorted(crops, reverse=bool(number % 2)):
            torch.manual_seed(number)
            cropped = timed(step, crops[step], image, mask)
            if step == "scale and crop":
                sample = cropped
        sample = timed("flip", flip, *sample)
        samples.append((timed("colour jitter", jitter, sample[0]), sample[1]))
        if len(samples) == arguments.batch:
            timed("collate", default_collate, samples)
            times["collate"][-1] /= arguments.batch
            samples = []
    return times


def summarise(times: Times) -> dict[str, Any]:
    """Returns milliseconds of each step, and total images per second for both ways to crop."""
    steps = {}
    for step, seconds in times.items():
        low, median, high = (1e3 * value for value in statistics.quantiles(seconds, n=4))
        mean = 1e3 * statistics.mean(seconds)
        steps[step] = {"median_ms": median, "low_ms": low, "high_ms": high, "mean_ms": mean}
    rates = {}
    for crop in ("scale and crop", "scale, then crop"):
        for name, left_out in (("plain", {"colour jitter"}), ("with colour jitter", set[str]())):
            parts = [crop if step == "scale and crop" else step for step in STEPS]
            spent = sum(steps[part]["mean_ms"] for part in parts if part not in left_out)
            rates.setdefault(name, {})[crop] = 1e3 / spent
    ratio = steps["scale, then crop"]["median_ms"] / steps["scale and crop"]["median_ms"]
    return {"steps": steps, "images_per_second_and_core": rates, "crop_ratio_of_medians": ratio}


def as_markdown(summary: dict[str, Any]) -> str:
    steps = summary["steps"]
    plain = sum(steps[step]["mean_ms"] for step in STEPS if step != "colour jitter")
    lines = [
        "| step | median ms (quartiles) | share of the time |",
        "| --- | ---: | ---: |",
    ]
    for step in STEPS:
        share = f"{100 * steps[step]['mean_ms'] / plain:.0f} %"
        lines.append(
            "| {} | {median_ms:.2f} ({low_ms:.2f} - {high_ms:.2f}) | {} |".format(
                step, f"+ {share}" if step == "colour jitter" else share, **steps[step]
            )
        )
    lines += [
        "",
        "| images per second and core | scaling what the crop shows | scaling all | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, rates in summary["images_per_second_and_core"].items():
        new, old = rates["scale and crop"], rates["scale, then crop"]
        lines.append(f"| {name} | {new:.1f} | {old:.1f} | {new / old:.2f} |")
    old = steps["scale, then crop"]
    lines += [
        "",
        "Scaling all, then cropping: median {median_ms:.2f} ms ({low_ms:.2f} - "
        "{high_ms:.2f}), {ratio:.2f} times as long.".format(
            **old, ratio=summary["crop_ratio_of_medians"]
        ),
    ]
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=user_path, help="folder for data_loading.md and .json")
    parser.add_argument("--images", type=int, default=12, help="images to render")
    parser.add_argument("--samples", type=int, default=120, help="samples to load, at least two")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--crop", type=int, default=769)
    parser.add_argument("--scales", type=float, nargs=2, default=(0.7, 2.1))
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cityscapes(root, arguments.images, (arguments.height, arguments.width))
        sizes = [path.stat().st_size / 1e6 for path in root.glob("leftImg8bit/*/*/*.png")]
        times = measure(Cityscapes(root, "train"), arguments)
    summary = summarise(times)
    print(f"{len(sizes)} images, {statistics.mean(sizes):.1f} MB each\n")
    print(as_markdown(summary), end="")
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "data_loading.md").write_text(as_markdown(summary))
        settings = {name: value for name, value in vars(arguments).items() if name != "output"}
        report = {"torch": torch.__version__, **settings, "image_mb": statistics.mean(sizes)}
        (arguments.output / "data_loading.json").write_text(
            json.dumps({**report, **summary}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
