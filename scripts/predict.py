"""Segments images, or a rendered street scene with known labels if no image is given.

    python scripts/predict.py street.jpg --output results
    python scripts/predict.py photos "more/**/*.png" --output results --mode slide --flip

Images are given as files, folders (searched recursively; a line says which other files were left
out) and glob patterns. For each image, two PNGs are written: NAME.overlay.png, the classes blended
over the image, and NAME.labels.png, whose pixel values are the classes and whose palette is their
colours. Subfolders of the folder that all arguments have in common are recreated in --output.
Images whose names differ only in the suffix keep it in NAME.

Existing results are kept unless --overwrite is given, so an interrupted run can be resumed. Files
of the same names that are no results are never replaced. Images that cannot be segmented are listed
at the end; the exit status is then 1.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "ccnet" / "console.py"))["prepare_console"]()

import argparse
import sys
import time

import torch
from torchvision.transforms.v2.functional import to_pil_image
from tqdm import tqdm

import ccnet
from ccnet.classes import CAMVID
from ccnet.console import printable
from ccnet.datasets import StreetScenes
from ccnet.distributed import usable_device
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.files import atomic_write, user_path
from ccnet.inference import InferenceProtocol
from ccnet.inference.command_line import add_protocol_options, given_options
from ccnet.inference.image_files import Job, find_jobs
from ccnet.inference.marked_png import save_marked
from ccnet.zoo import NETWORKS

DEMO_SEED = 20181128
"""Seed of the rendered scene. Training uses small seeds, so no network was trained on it."""


def parse_arguments() -> tuple[argparse.Namespace, InferenceProtocol]:
    """Returns the arguments and the inference protocol that they describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", help="image files, folders and glob patterns")
    parser.add_argument("--output", type=user_path, default=Path(), help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet18")
    parser.add_argument("--weights", default="DEFAULT", help="name, path or hf:// address")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_protocol_options(parser, "inference (default: the whole image at its own size)")
    arguments = parser.parse_args()
    try:
        protocol = InferenceProtocol(**given_options(arguments))
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return arguments, protocol


def segment(
    model: ccnet.CCNet, job: Job, protocol: InferenceProtocol, overwrite: bool
) -> tuple[ccnet.Segmentation, str]:
    """Segments an image and writes the results; returns them with a line that sums them up."""
    start = time.perf_counter()
    result = model.predict(job.picture, protocol)
    seconds = time.perf_counter() - start
    if overwrite or not job.overlay.exists():
        save_marked(result.overlay(), job.overlay)
    if overwrite or not job.labels.exists():
        result.save(job.labels)
    height, width = result.labels.shape
    return result, f"{printable(job.name)}: {width} x {height} pixels in {seconds:.2f} s"


def print_details(job: Job, result: ccnet.Segmentation) -> None:
    for name, share in result.shares().items():
        print(f"  {printable(name):<14}{100 * share:5.1f} %")
    files = {"picture": job.picture, "overlay": job.overlay, "colour map": job.labels}
    for name, path in files.items():
        print(f"  {name:<12}{printable(path)}")


def load(arguments: argparse.Namespace) -> ccnet.CCNet:
    network: ccnet.CCNet = NETWORKS[arguments.network](weights=arguments.weights)
    return network.to(usable_device(arguments.device))


def segment_all(arguments: argparse.Namespace, protocol: InferenceProtocol) -> int:
    """Segments all images without results; returns the exit status."""
    found = find_jobs(arguments.images, arguments.output)
    jobs, failures = found.jobs, found.failures
    if left_out := found.describe_left_out():
        print(left_out)
    pending = [job for job in jobs if arguments.overwrite or not job.is_done]
    if len(pending) < len(jobs):
        done = len(jobs) - len(pending)
        print(f"{done} of {len(jobs)} have results already: skipped (see --overwrite)")
    if pending:
        model = load(arguments)
    alone = len(jobs) == 1
    # The progress bar is only shown on a terminal.
    for job in pending if alone else tqdm(pending, disable=None):
        try:
            if arguments.overwrite:
                job.check_replaceable()
            result, line = segment(model, job, protocol, arguments.overwrite)
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
            tqdm.write(line)
    if failures:
        print(f"error: {len(failures)} could not be segmented", file=sys.stderr)
        print(*map(printable, failures), sep="\n", file=sys.stderr)
    return 1 if failures else 0


def draw_and_segment(arguments: argparse.Namespace, protocol: InferenceProtocol) -> None:
    """Renders and segments a street scene, prints the scores; always replaces its three files."""
    model = load(arguments)
    scene, labels = StreetScenes(1, seed=DEMO_SEED)[0]
    name = "rendered-street"
    job = Job(arguments.output / f"{name}.png", arguments.output, name)
    with atomic_write(job.picture) as temporary:
        to_pil_image(scene).save(temporary)
    result, line = segment(model, job, protocol, overwrite=True)
    print(line)
    print_details(job, result)
    if model.label_set.categories == CAMVID.categories:
        scores = Scores(confusion_matrix(labels, result.labels, len(CAMVID)), CAMVID)
        print(
            f"  against the rendered labels: pixel accuracy {scores.pixel_accuracy:.1f} %, "
            f"mIoU {scores.miou:.1f} %"
        )


def main() -> None:
    arguments, protocol = parse_arguments()
    try:
        if arguments.images:
            raise SystemExit(segment_all(arguments, protocol))
        draw_and_segment(arguments, protocol)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
