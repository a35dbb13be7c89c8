"""Segments images, or a rendered street scene with known labels if no image is given.

    ccnet predict street.jpg --output results
    ccnet predict photos "more/**/*.png" --output results --mode slide --flip
    ccnet predict clip.mp4 --output clip.overlay.mp4
    torchrun --nproc-per-node 8 -m ccnet predict photos --output results
    ccnet predict photos --output results --save labels --shard 3/8

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

One video, given alone, becomes a video of the overlays, at --output or as NAME.overlay.mp4 in that
folder, with the times and the sound of the original (extra "video"). Ctrl-C leaves the pictures so
far in NAME.partial.mp4.

Of several images results.jsonl has a line each: name, size, share of each class, seconds, or the
error. Processes that torchrun starts share the images out; those of a job array that --shard
numbers do so without knowing each other. Ctrl-C ends a run when what is computed is written.

The network sees an image as large as those that it learnt from, if it knows their size, and at the
image's own size with --fit none. An image that would take more memory than --memory-limit as a
whole is segmented in windows.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import to_pil_image
from tqdm import tqdm

from ccnet.classes import CAMVID
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, printable
from ccnet.datasets import StreetScenes
from ccnet.deployment.optimized.command_line import add_optimize_option
from ccnet.distributed import process_group, rank, usable_device
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.files import user_path
from ccnet.images import decode_image, is_picture_name
from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.inference.command_line import add_protocol_options, given_options
from ccnet.inference.marked_png import read_origin, save_marked
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.jobs.jobs import Job
from ccnet.jobs.search import find_jobs
from ccnet.prediction_run.command_line import (
    add_run_options,
    refuse_run_options,
    settle_run_options,
)
from ccnet.prediction_run.loading import load, pictures_within
from ccnet.prediction_run.records import NAME
from ccnet.prediction_run.report import Report
from ccnet.prediction_run.run import Run, found_by_rank_zero
from ccnet.prediction_run.stages import Picture, Stages
from ccnet.video import is_video_name
from ccnet.video.command_line import check_clip, segment_clip, video_of
from ccnet.visualization.legend import percentage
from ccnet.zoo import NETWORK_NAMES

DEMO_SEED = 20181128
"""Seed of the rendered scene. Training uses small seeds, so no network was trained on it."""


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
    add_run_options(parser)
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
        check_names(arguments)
        if video_of(arguments) is None:
            settle_run_options(arguments)
            arguments.output.mkdir(parents=True, exist_ok=True)
        else:
            refuse_run_options(arguments)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return arguments, options


def check_names(arguments: argparse.Namespace) -> None:
    """Refuses names that cannot be meant.

    Raises:
        ValueError: names the one, and what would work.
    """
    output, is_video = arguments.output, video_of(arguments) is not None
    videos = [one for one in arguments.images if is_video_name(one) and user_path(one).is_file()]
    if videos and not is_video:
        raise ValueError(f"{videos[0]} is a video, which is given alone")
    if is_video and is_video_name(output):
        return
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file: give a folder for the results")
    if not output.exists() and (is_picture_name(output) or is_video_name(output)):
        video = ", or a name that ends in .mp4, .m4v, .mov, .mkv or .webm" if is_video else ""
        raise ValueError(f"--output {output} is no name of a folder: give one{video}")


def describe(picture: Picture) -> str:
    assert isinstance(picture.outcome, Segmentation)
    size = picture.outcome.describe_size()
    return f"{printable(picture.job.name)}: {size} in {picture.seconds:.2f} s"


def print_details(picture: Picture, kinds: Sequence[str]) -> None:
    assert isinstance(picture.outcome, Segmentation)
    for name, share in picture.outcome.shares().items():
        print(f"  {printable(name):<14}{percentage(share):>7}")
    names = {"labels": "colour map"}
    files = {names.get(kind, kind): picture.job.path(kind) for kind in kinds}
    for name, path in {"picture": picture.job.picture, **files}.items():
        print(f"  {name:<12}{printable(path)}")


def loaded(arguments: argparse.Namespace, options: dict[str, Any], device: torch.device) -> Stages:
    stages = load(arguments, options, device)
    if arguments.optimize:
        say([f"network optimised for inference, in {stages.protocol.precision}"])
    return stages


def draw_and_segment(
    arguments: argparse.Namespace, options: dict[str, Any], device: torch.device
) -> int:
    """Renders and segments a street scene, prints the scores; always replaces its results."""
    arguments.overwrite = True
    stages = loaded(arguments, options, device)
    if rank() > 0:
        return 0
    scene, labels = StreetScenes(1, seed=DEMO_SEED)[0]
    name = "rendered-street"
    job = Job(arguments.output / f"{name}.png", arguments.output, name)
    if not job.picture.exists() or not torch.equal(decode_image(job.picture), scene):
        read_origin(job.picture)
        save_marked(to_pil_image(scene), job.picture)
    picture = stages.read(job)
    stages.segment([picture], 1)
    stages.write(picture)
    result = picture.outcome
    assert isinstance(result, Segmentation)
    print(describe(picture))
    print_details(picture, arguments.save)
    if stages.model.label_set.categories == CAMVID.categories:
        scores = Scores(confusion_matrix(labels, result.labels, len(CAMVID)), CAMVID)
        print(
            f"  against the rendered labels: pixel accuracy {scores.pixel_accuracy:.1f} %, "
            f"mIoU {scores.miou:.1f} %"
        )
    return 0


def segment_all(
    arguments: argparse.Namespace, options: dict[str, Any], device: torch.device
) -> int:
    """Segments all images without results; returns the exit status."""
    found = found_by_rank_zero(lambda: find_jobs(arguments.images, arguments.output))
    count = len(found.jobs)
    indices = arguments.shard.of(found.jobs) if arguments.shard else range(count)
    say(found.describe_left_out())
    if count and not indices:
        say([f"part {arguments.shard} has none of {count} pictures"])
    report = Report(results=found.results)
    if indices:
        if arguments.batch_size > 1:  # of all pictures, so that all parts compute the same
            arguments.batch_size = max(1, found.count_pictures(arguments.batch_size))
        stages = loaded(arguments, options, device)
        run = Run(
            found,
            indices,
            stages,
            arguments.output,
            label=str(arguments.shard or "run"),
            limit=arguments.limit,
            workers=arguments.workers,
            tell=partial(tell, kinds=arguments.save if count == 1 else ()),
        )
        report.add(run())
    if rank() > 0:
        return 0  # rank 0 tells what all have done
    say(report.describe(len(indices) + found.results))
    if indices and report.results == len(indices):
        report.stops.append("no images but results of this program")
    failures = [*found.failures, *report.failures]
    if failed := len(found.failures) + report.failed:
        print(f"error: {failed} could not be segmented", file=sys.stderr)
        print(*map(printable, failures), sep="\n", file=sys.stderr)
    if failed > len(failures):
        print(f"... and {failed - len(failures)} more: see {NAME}", file=sys.stderr)
    for reason in report.stops:
        print(f"error: {printable(reason)}", file=sys.stderr)
    return 1 if failed or report.stops else 0


def say(lines: Iterable[str]) -> None:
    for line in lines if rank() == 0 else ():
        print(line)


def tell(picture: Picture, kinds: Sequence[str]) -> None:
    """Tells of a picture: in one line, or with the kinds of its results in several."""
    with tqdm.external_write_mode():
        print(describe(picture), flush=True)  # whole lines, of several processes
    if kinds:
        print_details(picture, kinds)


@contextmanager
def joined(arguments: argparse.Namespace) -> Iterator[torch.device]:
    """Joins the processes that were started together, unless this one is a part by itself."""
    if arguments.shard:
        yield usable_device(arguments.device)
        return
    with process_group(arguments.device) as device:
        yield device


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments, options = parse_arguments(argv, prog)
    try:
        if (video := video_of(arguments)) is not None:
            check_clip(video, arguments)
            stages = loaded(arguments, options, usable_device(arguments.device))
            segment_clip(video, arguments, stages.model, stages.protocol)
            return
        with (
            pictures_within(arguments.memory_limit),
            joined(arguments) as device,
        ):
            if arguments.images:
                status = segment_all(arguments, options, device)
            else:
                status = draw_and_segment(arguments, options, device)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    raise SystemExit(status)
