r"""Evaluates weights on a data set and confirms their published mIoU.

    ccnet evaluate camvid --root CamVid --confirm
    ccnet evaluate cityscapes --root cityscapes --weights all --report results
    ccnet evaluate ade20k --root ADEChallengeData2016 --confirm
    ccnet evaluate camvid --root CamVid --split train --only 0006R0 --weights mine.pt
    ccnet evaluate labelmefacade --root LabelMeFacade --only palma,puigpunyent
    ccnet evaluate street-scenes --mode slide --crop 240,320 --flip
    torchrun --nproc-per-node 8 -m ccnet evaluate cityscapes --root cityscapes --confirm

Inference follows the protocol of the published mIoU unless options change it. With several weights,
each gets its own subfolder of the output folders.

A report takes the place of an earlier one of the same weights, data and protocol, and of no other.
Label ids are written to a folder that is new or empty.
"""

import argparse
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ccnet
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, require_extra
from ccnet.deployment.optimized.command_line import (
    FASTEST,
    add_optimize_option,
    optimized,
    settle_precision,
)
from ccnet.deployment.optimized.network import OptimizedCCNet
from ccnet.distributed import all_gather, process_group, rank, rank_zero_first
from ccnet.evaluation import Scores, evaluate, own_indices, prepare_label_ids, save_label_ids
from ccnet.evaluation.candidates import Candidate, find_candidates
from ccnet.evaluation.charts import Sample
from ccnet.evaluation.data import DATASETS, PUBLIC, Data, open_data
from ccnet.evaluation.reports import Report, prepare_report, save_report
from ccnet.files import user_path
from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.inference.command_line import add_protocol_options, given_options
from ccnet.locks import FolderLock
from ccnet.prediction_run.progress import Progress
from ccnet.zoo import NETWORK_NAMES

SHOWN = 6
"""Number of images with the lowest mIoU that the report shows."""


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Returns the arguments, and the inference options given."""
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", choices=DATASETS, help="folder: your own, with images/ and masks/")
    variables = ", ".join(public.variable for public in PUBLIC.values())
    add("--root", type=user_path, help=f"folder of the data set; or one of {variables}")
    add("--split", help=f"split of {', '.join(PUBLIC)} (default: val)")
    add("--only", metavar="PARTS", help="only images whose names contain one of PARTS: a,b,...")
    add("--limit", type=int, metavar="N", help="evaluate only the first N images")
    add("--network", metavar="NAME", help=f"{NETWORK_NAMES} (default: one with fitting weights)")
    add("--weights", default="DEFAULT", help="name, path, or all of the registry for the data set")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--report", type=user_path, metavar="DIR", help="write Markdown, JSON and charts there")
    label_ids = "write the test server's PNGs there, named <city>_<sequence>_<frame>_leftImg8bit"
    add("--save-label-ids", type=user_path, metavar="DIR", help=label_ids)
    add("--confirm", action="store_true", help="exit with 1 unless mIoU is as published")
    add("--tolerance", type=float, default=0.1, help="for --confirm, in percent of mIoU")
    add_optimize_option(parser, f"that of the published mIoU; without one, {FASTEST}")
    add_protocol_options(parser, "inference (default: the protocol of the published mIoU)")
    parsed = parser.parse_args(argv)
    return parsed, given_options(parsed)


def choose_data(arguments: argparse.Namespace) -> Data:
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit {arguments.limit} must be positive")
    if not 0 <= arguments.tolerance <= 1:
        raise ValueError(f"--tolerance {arguments.tolerance:g} must be in 0..1 percent of mIoU")
    if arguments.report and arguments.report == arguments.save_label_ids:
        raise ValueError(f"--report and --save-label-ids need two folders, not {arguments.report}")
    if arguments.confirm and (arguments.only, arguments.limit) != (None, None):
        raise ValueError("--confirm needs all images: remove --limit and --only")
    data = open_data(
        arguments.dataset,
        arguments.root,
        arguments.split,
        weights=arguments.weights,
        network=arguments.network,
    )
    return data.some(arguments.only, arguments.limit)


def choose_protocol(
    candidate: Candidate, data: Data, given: dict[str, Any], *, confirm: bool
) -> InferenceProtocol:
    """Returns the protocol of the published mIoU, changed by the options given."""
    chosen = candidate.protocol.replace(**given)
    if confirm and candidate.published(data.title, candidate.protocol) is None:
        raise ValueError(f"the registry has no published mIoU of {candidate} on {data.title}")
    if confirm and candidate.published(data.title, chosen) is None:
        raise ValueError(
            f"--confirm needs the protocol of the published mIoU ({candidate.protocol}), "
            f"not ({chosen})"
        )
    if confirm and (misfit := data.misfit([tuple(data.images[0][1].shape)])):
        raise ValueError(f"--confirm needs the images of {data.title}, but found {misfit}")
    return chosen


def measure(
    model: ccnet.CCNet,
    candidate: Candidate,
    data: Data,
    protocol: InferenceProtocol,
    label_ids: Path | None,
) -> Report:
    """Evaluates weights; writes label ids if a folder for them is given."""
    mious, sizes = {}, set[tuple[int, int]]()
    count, unit = len(own_indices(len(data.names))), "images of this process"
    unit = "images" if count == len(data.names) else unit
    with closing(Progress(count, is_shown=not rank(), unit=unit)) as progress:

        def each(index: int, result: Segmentation, scores: Scores) -> None:
            mious[index] = scores.miou
            height, width = result.labels.shape
            sizes.add((height, width))
            if label_ids:
                path = label_ids / f"{data.names[index]}.png"
                save_label_ids(result.labels, data.label_set, path)
            progress.show(len(mious))

        scores = evaluate(model, data.images, protocol=protocol, classes=data.classes, each=each)
    mious = {index: miou for part in all_gather(mious) for index, miou in part.items()}
    sizes = {size for part in all_gather(sizes) for size in part}
    device = next(model.parameters()).device
    environment = {"device": str(device), "torch": torch.__version__, "ccnet": ccnet.__version__}
    if isinstance(model, OptimizedCCNet):
        environment["network"] = "optimised for inference"
    return Report(
        weights=str(candidate),
        dataset=data.title,
        protocol=protocol,
        scores=scores,
        images=[(name, mious[index]) for index, name in enumerate(data.names)],
        published=candidate.published(data.title, protocol),
        misfit=data.misfit(sizes, int(scores.confusion.sum())),
        note="" if candidate.meta else size_note(model, protocol, sizes),
        environment=environment,
    )


def size_note(
    model: ccnet.CCNet, protocol: InferenceProtocol, sizes: Iterable[tuple[int, int]]
) -> str:
    """Says how `predict` shows images to the network, if none of these sizes was shown so."""
    own = model.default_protocol
    asked = protocol.box is not None or protocol.scales != (1.0,)
    if own.box is None or asked or any(own.view_size(size) == size for size in sizes):
        return ""
    long, short = own.box
    return (
        f"the network learnt at {long}x{short} pixels, and saw no image at that size: "
        f"--fit {long},{short} --antialias shows them as `predict` does"
    )


def worst_samples(report: Report, model: ccnet.CCNet, data: Data) -> list[Sample]:
    """Segments the images with the lowest mIoU again, for the report."""
    samples = []
    for index in report.worst(SHOWN):
        image, labels = (tensor.as_subclass(Tensor) for tensor in data.images[index])
        predicted = model.predict(image, report.protocol, memory_limit=None).labels
        name, miou = report.images[index]
        samples.append(Sample(f"{name}: mIoU {miou:.1f} %", image, predicted, labels))
    return samples


def run(arguments: argparse.Namespace, given: dict[str, Any], device: torch.device) -> list[str]:
    """Evaluates all requested weights; returns the failures on rank 0."""
    data = choose_data(arguments)
    settled = settle_precision(arguments, given, device)
    candidates = find_candidates(arguments.weights, data.label_set, arguments.network)
    is_first = rank() == 0
    failures = []
    for candidate in candidates:
        folder, problem = str(candidate) if len(candidates) > 1 else "", None
        label_ids = arguments.save_label_ids and arguments.save_label_ids / folder
        try:
            is_published = candidate.published(data.title, candidate.protocol) is not None
            options = given if is_published else settled
            protocol = choose_protocol(candidate, data, options, confirm=arguments.confirm)
            with rank_zero_first():
                model = candidate.load(data.label_set).to(device)
            model = optimized(arguments, model, protocol.precision)
            numbered = data.numbered_as(model.label_set)
            if arguments.save_label_ids and numbered.classes is not None:
                raise ValueError(
                    f"--save-label-ids needs weights of the same classes as {data.title}"
                )
            if is_first and label_ids:
                prepare_label_ids(label_ids, data.names)
            if is_first and arguments.report:
                prepare_report(arguments.report / folder, str(candidate), data.title, protocol)
        except (OSError, ValueError) as error:
            problem = str(error)
        problems = [found for found in all_gather(problem) if found]
        if problems:
            failures.append(problems[0])
            continue
        report = measure(model, candidate, numbered, protocol, label_ids)
        if is_first:
            print(f"{report.summary()}\n")
        if is_first and arguments.report:
            samples = worst_samples(report, model, numbered)
            save_report(report, arguments.report / folder, samples)
        if arguments.confirm and not report.is_confirmed(arguments.tolerance):
            reason = f"the mIoU differs from the published one by more than {arguments.tolerance:g}"
            if report.misfit:
                reason = f"--confirm needs its images, but found {report.misfit}"
            failures.append(f"{report.title}: {reason}")
    return failures if is_first else []


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    parsed, given = parse_arguments(argv, prog)
    try:
        if parsed.report:
            require_extra("evaluate", ["matplotlib"])
        outputs = filter(None, (parsed.report, parsed.save_label_ids))
        with process_group(parsed.device) as device, ExitStack() as stack:
            for folder in {folder.resolve(): folder for folder in outputs}.values():
                stack.enter_context(FolderLock(folder))  # fails before the evaluation
            failures = run(parsed, given, device)
    except (OSError, ValueError) as error:
        failures = [str(error)]
    if failures:
        raise SystemExit("\n".join(f"error: {failure}" for failure in failures))
