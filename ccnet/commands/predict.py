"""Segments images, or a rendered street scene with known labels if no image is given.

    ccnet predict street.jpg --output results
    ccnet predict photos "more/**/*.png" --output results --mode slide --flip

Images are given as files, folders (searched recursively; a line says which other files were left
out) and glob patterns; results of this program are no images there. For each image, two PNGs are
written: NAME.overlay.png, the classes blended over the image, and NAME.labels.png, whose pixel
values are the classes and whose palette is their colours. Subfolders of the folder that all
arguments have in common are recreated in --output. Images whose names differ only in the suffix
keep it in NAME.

A result says of which picture it is, and of which weights and options, as text in its PNG. Results
of the same picture are kept unless --overwrite is given, so an interrupted run can be resumed; one
line says how many of them are of other weights or options. Those of another picture of that name,
or of this one before it was changed, are only replaced by --overwrite, and files of the same names
that are no results never. Images that cannot be segmented are listed at the end; the exit status is
then 1.

The network sees an image as large as those that it learnt from, if it knows their size, and at the
image's own size with --fit none. An image that would take more memory than --memory-limit as a
whole is segmented in windows.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from tqdm import tqdm

import ccnet
from ccnet.classes import CAMVID
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, printable
from ccnet.datasets import StreetScenes
from ccnet.deployment.optimized.command_line import add_optimize_option, optimized, settle_precision
from ccnet.distributed import usable_device
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.files import user_path
from ccnet.images import decode_image
from ccnet.inference import InferenceProtocol
from ccnet.inference.command_line import add_protocol_options, given_options
from ccnet.inference.image_files import Job, find_jobs
from ccnet.inference.marked_png import Origin, read_origin, save_marked
from ccnet.inference.memory import DEFAULT_LIMIT, GIB
from ccnet.inference.results import Standing, origin_of, save_results, standing
from ccnet.weights.serialization import fingerprint
from ccnet.zoo import NETWORK_NAMES, find_builder

DEMO_SEED = 20181128
"""Seed of the rendered scene. Training uses small seeds, so no network was trained on it."""

PICTURE_BYTES = 32
"""Bytes for each pixel that reading a picture and drawing its overlay take, but the network."""

KEPT = {
    Standing.SAME: "have results already: skipped (see --overwrite)",
    Standing.OTHER: "have results of other weights or options: kept (--overwrite makes them anew)",
    Standing.UNKNOWN: "have results that do not say of which picture they are, as of earlier "
    "versions: kept (--overwrite makes them anew)",
}
"""What is said of pictures that have results."""


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Returns the arguments, and the inference options given."""
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", help="image files, folders and glob patterns")
    parser.add_argument(
        "--output",
        type=user_path,
        default=Path(),
        metavar="FOLDER",
        help="for the results (default: the current folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.add_argument("--network", default="ccnet_resnet18", metavar="NAME", help=NETWORK_NAMES)
    parser.add_argument("--weights", default="DEFAULT", help="name, path or hf:// address")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=DEFAULT_LIMIT,
        metavar="GIB",
        help="what one image may take, as estimated from its size (default: %(default)s)",
    )
    add_optimize_option(parser)
    add_protocol_options(parser, "inference (default: the whole image, at the size learnt at)")
    arguments = parser.parse_args(argv)
    try:
        options = given_options(arguments)
        InferenceProtocol(**options)
        if not 0 < arguments.memory_limit < math.inf:
            raise ValueError(f"--memory-limit must be positive, not {arguments.memory_limit}")
        arguments.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return arguments, options


class Segmenter:
    """A network with all that its results depend on beside the picture.

    Args:
        arguments: the command line.
        options: of inference; others are the network's defaults.
    """

    def __init__(self, arguments: argparse.Namespace, options: dict[str, Any]) -> None:
        network: ccnet.CCNet = find_builder(arguments.network)(weights=arguments.weights)
        device = usable_device(arguments.device)
        options = settle_precision(arguments, options, device)
        self.protocol = network.default_protocol.replace(**options)
        self.model = optimized(arguments, network.to(device), self.protocol.precision)
        if arguments.optimize:
            print(f"network optimised for inference, in {self.protocol.precision}")
        self.memory_limit = arguments.memory_limit
        recorded = self.protocol.to_config() | ({"optimized": True} if arguments.optimize else {})
        if self.protocol.windows is None:
            recorded["memory_limit"] = arguments.memory_limit  # which may turn it into windows
        self.maker = Origin("", fingerprint(network.to_weights()), json.dumps(recorded))

    def __call__(self, job: Job, *, overwrite: bool) -> ccnet.Segmentation | Standing:
        """Segments an image and writes the results, unless there are some."""
        origin = origin_of(job.picture, self.maker)
        if overwrite:
            for path in (job.overlay, job.labels):
                read_origin(path)  # refuses what is no result before anything is computed
        elif (found := standing(job, origin)) in KEPT:
            return found
        result = self.model.predict(job.picture, self.protocol, memory_limit=self.memory_limit)
        if origin_of(job.picture, self.maker) != origin:
            raise ValueError("the picture was changed while it was segmented")
        save_results(job, result, origin, overwrite=overwrite)
        return result


def describe(job: Job, result: ccnet.Segmentation, seconds: float) -> str:
    return f"{printable(job.name)}: {result.describe_size()} in {seconds:.2f} s"


def print_details(job: Job, result: ccnet.Segmentation) -> None:
    for name, share in result.shares().items():
        print(f"  {printable(name):<14}{100 * share:5.1f} %")
    files = {"picture": job.picture, "overlay": job.overlay, "colour map": job.labels}
    for name, path in files.items():
        print(f"  {name:<12}{printable(path)}")


def reason_of(error: Exception, picture: Path) -> str:
    """One line that names the picture."""
    reason = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError):
        reason = f"{type(error).__name__}: {reason}"
    return reason if str(picture) in reason else f"{picture}: {reason}"


def segment_all(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    """Segments all images without results; returns the exit status."""
    found = find_jobs(arguments.images, arguments.output)
    jobs, failures = found.jobs, found.failures
    for line in found.describe_left_out():
        print(line)
    kept: Counter[Standing] = Counter()
    if jobs:
        segmenter = Segmenter(arguments, options)
    alone = len(jobs) == 1
    # The progress bar is only shown on a terminal.
    for job in jobs if alone else tqdm(jobs, disable=None):
        start = time.perf_counter()
        try:
            result = segmenter(job, overwrite=arguments.overwrite)
        except Exception as error:
            failures.append(reason_of(error, job.picture))
            continue
        if isinstance(result, Standing):
            kept[result] += 1
            continue
        line = describe(job, result, time.perf_counter() - start)
        if alone:
            print(line)
            print_details(job, result)
        else:
            tqdm.write(line)
    for reason, count in kept.items():
        print(f"{count} of {len(jobs)} {KEPT[reason]}")
    if failures:
        print(f"error: {len(failures)} could not be segmented", file=sys.stderr)
        print(*map(printable, failures), sep="\n", file=sys.stderr)
    return 1 if failures else 0


def draw_and_segment(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Renders and segments a street scene, prints the scores; always replaces its results."""
    segmenter = Segmenter(arguments, options)
    scene, labels = StreetScenes(1, seed=DEMO_SEED)[0]
    name = "rendered-street"
    job = Job(arguments.output / f"{name}.png", arguments.output, name)
    if not job.picture.exists() or not torch.equal(decode_image(job.picture), scene):
        read_origin(job.picture)
        save_marked(to_pil_image(scene), job.picture)
    start = time.perf_counter()
    result = segmenter(job, overwrite=True)
    assert isinstance(result, ccnet.Segmentation)
    print(describe(job, result, time.perf_counter() - start))
    print_details(job, result)
    label_set = segmenter.model.label_set
    if label_set.categories == CAMVID.categories:
        scores = Scores(confusion_matrix(labels, result.labels, len(CAMVID)), CAMVID)
        print(
            f"  against the rendered labels: pixel accuracy {scores.pixel_accuracy:.1f} %, "
            f"mIoU {scores.miou:.1f} %"
        )


@contextmanager
def largest_picture(pixels: int) -> Iterator[None]:
    """Sets the size beyond which Pillow refuses pictures inside: twice its own number."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments, options = parse_arguments(argv, prog)
    try:
        with largest_picture(max(2, int(arguments.memory_limit * GIB / PICTURE_BYTES))):
            if arguments.images:
                raise SystemExit(segment_all(arguments, options))
            draw_and_segment(arguments, options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
