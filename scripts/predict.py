"""Segments pictures, or, without one, a rendered street whose labels are known.

    python scripts/predict.py street.jpg --output results
    python scripts/predict.py photos "more/**/*.png" --output results --mode slide --flip

Pictures are files, folders (with all that lies below them) and patterns. For each, two PNGs are
written: NAME.overlay.png, the classes over the picture, and NAME.labels.png, whose pixel values are
the classes and whose palette is their colours. Folders below what the arguments have in common
come again in --output; pictures that differ in their suffix alone keep it in NAME.

What is there already is not written again unless --overwrite says so: a run that was stopped goes
on where it was. What cannot be segmented is listed at the end, and the exit status is then 1.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import to_pil_image

import ccnet
from ccnet.classes import CAMVID
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.files import atomic_write
from ccnet.pictures import Job, find_jobs
from ccnet.processes import usable_device
from ccnet.protocol import AVERAGES, MODES, PRECISIONS, Protocol
from ccnet.street_scenes import StreetScenes
from ccnet.zoo import NETWORKS

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

DEMO_SEED = 20181128
"""Of the rendered street. Training uses small seeds, so no network has seen it."""


def parse_arguments() -> tuple[argparse.Namespace, dict[str, Any]]:
    """All arguments, and apart from the others those that are options of `predict`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", help="files, folders and patterns")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="make existing results again")
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet18")
    parser.add_argument("--weights", default="DEFAULT", help="a name, or the path of a file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    group = parser.add_argument_group("how a picture is put to the network")
    options = [
        group.add_argument("--mode", choices=MODES, default="whole", help="slide: in windows"),
        group.add_argument("--crop", type=pair, metavar="H,W", help="of a window (default: 769)"),
        group.add_argument("--stride", type=pair, metavar="H,W", help="default: 2/3 of the crop"),
        group.add_argument("--overlap", type=float, help="share of the crop, in place of stride"),
        group.add_argument("--scales", type=numbers, default=[1.0], metavar="S,S,..."),
        group.add_argument("--flip", action=argparse.BooleanOptionalAction, default=False),
        group.add_argument("--average", choices=AVERAGES, default="logits"),
        group.add_argument("--window-batch", type=int, default=4, help="windows at a time"),
        group.add_argument("--precision", choices=PRECISIONS, default="float32"),
    ]
    arguments = parser.parse_args()
    chosen = {option.dest: getattr(arguments, option.dest) for option in options}
    try:
        Protocol(**chosen)
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return arguments, chosen


def pair(text: str) -> list[int] | int:
    sides = [int(side) for side in text.split(",")]
    return sides if len(sides) > 1 else sides[0]


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def segment(
    model: ccnet.CCNet, job: Job, options: dict[str, Any], overwrite: bool
) -> tuple[ccnet.Segmentation, str]:
    """Writes the results of a picture; gives them back with a line that describes them."""
    start = time.perf_counter()
    result = model.predict(job.picture, **options)
    seconds = time.perf_counter() - start
    if overwrite or not job.overlay.exists():
        with atomic_write(job.overlay) as temporary:
            result.overlay().save(temporary)
    if overwrite or not job.labels.exists():
        result.save(job.labels)
    height, width = result.labels.shape
    return result, f"{job.name}: {width} x {height} pixels in {seconds:.2f} s"


def print_details(job: Job, result: ccnet.Segmentation) -> None:
    for name, share in result.shares().items():
        print(f"  {name:<14}{100 * share:5.1f} %")
    print(f"  picture     {job.picture}\n  overlay     {job.overlay}\n  colour map  {job.labels}")


def load(arguments: argparse.Namespace) -> ccnet.CCNet:
    network: ccnet.CCNet = NETWORKS[arguments.network](weights=arguments.weights)
    return network.to(usable_device(arguments.device))


def segment_all(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    """Segments all pictures but those whose results exist; the exit status."""
    jobs, failures = find_jobs(arguments.images, arguments.output)
    pending = [job for job in jobs if arguments.overwrite or not job.is_done]
    if len(pending) < len(jobs):
        print(f"{len(jobs) - len(pending)} of {len(jobs)} have results already (see --overwrite)")
    if pending:
        model = load(arguments)
    alone = len(jobs) == 1
    # The bar is for a terminal alone, and only if tqdm is installed.
    for job in tqdm(pending, disable=None) if tqdm and not alone else pending:
        try:
            result, line = segment(model, job, options, arguments.overwrite)
        except Exception as error:
            reason = " ".join(str(error).split())
            if not isinstance(error, (OSError, ValueError)):
                reason = f"{type(error).__name__}: {reason}"
            named = str(job.picture) in reason
            failures.append(reason if named else f"{job.picture}: {reason}")
            continue
        if alone:
            print(line)
            print_details(job, result)
        else:
            (tqdm.write if tqdm else print)(line)
    if failures:
        print(f"error: {len(failures)} could not be segmented", file=sys.stderr)
        print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


def draw_and_segment(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Renders a street, segments it and says how well: its three files are made anew each time."""
    model = load(arguments)
    scene, labels = StreetScenes(1, seed=DEMO_SEED)[0]
    name = "rendered-street"
    job = Job(arguments.output / f"{name}.png", arguments.output, name)
    with atomic_write(job.picture) as temporary:
        to_pil_image(scene).save(temporary)
    result, line = segment(model, job, options, overwrite=True)
    print(line)
    print_details(job, result)
    if model.label_set.categories == CAMVID.categories:
        scores = Scores(confusion_matrix(labels, result.labels, len(CAMVID)), CAMVID)
        print(
            f"  against the rendered labels: pixel accuracy {scores.pixel_accuracy:.1f} %, "
            f"mIoU {scores.miou:.1f} %"
        )


def main() -> None:
    arguments, options = parse_arguments()
    try:
        if arguments.images:
            raise SystemExit(segment_all(arguments, options))
        draw_and_segment(arguments, options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
