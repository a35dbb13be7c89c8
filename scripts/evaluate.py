r"""Measures how good weights are on a data set, and whether that is what is published of them.

    python scripts/evaluate.py camvid --root CamVid --confirm
    python scripts/evaluate.py cityscapes --root cityscapes --weights all --report results
    python scripts/evaluate.py street-scenes --mode slide --crop 240,320 --flip
    torchrun --nproc-per-node 8 scripts/evaluate.py cityscapes --root cityscapes --confirm

Pictures are put to the network by the weights' own protocol, that of the published figure, unless
options change it. With several weights, each has a folder of its own in the folders to write.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from tqdm import tqdm

import ccnet
from ccnet.candidates import Candidate, find_candidates
from ccnet.classes import LabelSet
from ccnet.datasets import CamVid, Cityscapes, MaskFolder
from ccnet.evaluation import Samples, Scores, evaluate, save_label_ids, share
from ccnet.inference import Segmentation
from ccnet.processes import first_one_first, gather, joined, rank_and_count
from ccnet.protocol import AVERAGES, MODES, PRECISIONS
from ccnet.reports import Report, describe_protocol, save_report
from ccnet.street_scenes import StreetScenes
from ccnet.zoo import NETWORKS

UNSEEN_SEED = 1_000_000
"""Of the rendered scenes. Training uses small seeds, so no network has seen them."""

PUBLIC = {"camvid": (CamVid, "CAMVID_ROOT"), "cityscapes": (Cityscapes, "CITYSCAPES_DATASET")}
"""Data sets with splits, and the variables that name their folders."""


@dataclass(frozen=True)
class Data:
    """Images, the classes of their labels, their names, and what all is called: "CamVid val"."""

    images: Samples
    label_set: LabelSet
    names: Sequence[str]
    title: str


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """All arguments, and apart from the others the options of `predict` that were given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", choices=[*PUBLIC, "street-scenes", "folder"], help="folder: a MaskFolder")
    add("--root", type=Path, help="folder of the data set; or CAMVID_ROOT, or CITYSCAPES_DATASET")
    add("--split", help="of a public data set (default: val)")
    add("--limit", type=int, metavar="N", help="the first N images alone")
    add("--network", choices=NETWORKS, help="default: one that has weights for the data set")
    add("--weights", default="DEFAULT", help="a name, a path, or all of the registry's that fit")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--report", type=Path, metavar="DIR", help="write Markdown, JSON and pictures there")
    label_ids = "write the test server's PNGs there, named <city>_<sequence>_<frame>_leftImg8bit"
    add("--save-label-ids", type=Path, metavar="DIR", help=label_ids)
    add("--confirm", action="store_true", help="exit with 1 if the mIoU is not the registry's")
    add("--tolerance", type=float, default=0.1, help="of --confirm, in percent of mIoU")
    add = parser.add_argument_group("another protocol than the weights' own").add_argument
    options = [
        add("--mode", choices=MODES, help="slide: in windows"),
        add("--crop", type=size, metavar="H,W", help="of a window"),
        add("--stride", type=size, metavar="H,W", help="default: 2/3 of the crop"),
        add("--scales", type=numbers, metavar="S,S,..."),
        add("--flip", action=argparse.BooleanOptionalAction),
        add("--average", choices=AVERAGES, help="over scales and flips"),
        add("--precision", choices=PRECISIONS),
    ]
    parsed = parser.parse_args(arguments)
    given = {option.dest: getattr(parsed, option.dest) for option in options}
    return parsed, {name: value for name, value in given.items() if value is not None}


def size(text: str) -> list[int]:
    height, _, width = text.partition(",")
    return [int(height), int(width or height)]


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def open_data(arguments: argparse.Namespace) -> Data:
    if arguments.dataset in PUBLIC:
        kind, variable = PUBLIC[arguments.dataset]
        split = arguments.split or "val"
        root = arguments.root or os.environ.get(variable)
        if not root:
            raise ValueError(
                f"name the folder of {kind.__name__}: --root, or the variable {variable}"
            )
        dataset, title = kind(root, split), f"{kind.__name__} {split}"
    elif arguments.split:
        raise ValueError(f"{arguments.dataset} has no splits: leave out --split {arguments.split}")
    elif arguments.dataset == "street-scenes":
        dataset, title = StreetScenes(100, seed=UNSEEN_SEED), "StreetScenes"
    elif arguments.root is None:
        raise ValueError("name the folder that holds images and masks: --root")
    else:
        dataset, title = MaskFolder(arguments.root), str(arguments.root)
    if arguments.limit is None:
        return Data(dataset, dataset.label_set, dataset.names, title)
    if arguments.limit < 1:
        raise ValueError(f"--limit {arguments.limit} must be positive")
    if arguments.confirm:
        raise ValueError("--confirm is for all images: leave out --limit")
    images = Subset(dataset, range(min(arguments.limit, len(dataset))))
    title = f"{title}, the first {len(images)}"
    return Data(images, dataset.label_set, dataset.names[: len(images)], title)


def choose_protocol(
    candidate: Candidate, data: Data, given: dict[str, Any], *, confirm: bool
) -> dict[str, Any]:
    """The weights' own protocol, changed by the options that were given."""
    own, chosen = candidate.protocol({}), candidate.protocol(given)
    if confirm and candidate.published(data.title, own) is None:
        raise ValueError(f"the registry has no mIoU of {candidate} on {data.title}")
    if confirm and candidate.published(data.title, chosen) is None:
        raise ValueError(
            f"--confirm measures by the weights' own protocol ({describe_protocol(own)}), "
            f"not by another ({describe_protocol(chosen)})"
        )
    return chosen


def measure(
    model: ccnet.CCNet,
    candidate: Candidate,
    data: Data,
    protocol: dict[str, Any],
    label_ids: Path | None,
) -> Report:
    """Evaluates weights; writes the labels that were found into a folder, if one is given."""
    mious = {}
    hidden = True if rank_and_count()[0] else None
    with tqdm(total=len(share(len(data.names))), unit="image", disable=hidden) as bar:

        def each(index: int, result: Segmentation, scores: Scores) -> None:
            mious[index] = scores.miou
            if label_ids:
                path = label_ids / f"{data.names[index]}.png"
                save_label_ids(result.labels, data.label_set, path)
            bar.update()

        scores = evaluate(model, data.images, protocol=protocol, each=each)
    mious = {index: miou for part in gather(mious) for index, miou in part.items()}
    device = next(model.parameters()).device
    return Report(
        weights=str(candidate),
        dataset=data.title,
        protocol=protocol,
        scores=scores,
        images=[(name, mious[index]) for index, name in enumerate(data.names)],
        published=candidate.published(data.title, protocol),
        environment={"device": str(device), "torch": torch.__version__, "ccnet": ccnet.__version__},
    )


def run(arguments: argparse.Namespace, given: dict[str, Any], device: torch.device) -> list[str]:
    """Measures all weights that were asked for; process 0 gives what went wrong with some."""
    data = open_data(arguments)
    candidates = find_candidates(arguments.weights, data.label_set, arguments.network)
    is_first = rank_and_count()[0] == 0
    if is_first and arguments.report:
        arguments.report.mkdir(parents=True, exist_ok=True)  # rather fail now than in the end
    failures = []
    for candidate in candidates:
        problem = None
        try:
            protocol = choose_protocol(candidate, data, given, confirm=arguments.confirm)
            with first_one_first():
                model = candidate.load(data.label_set).to(device)
        except (OSError, ValueError) as error:
            problem = str(error)
        problems = [found for found in gather(problem) if found]
        if problems:
            failures.append(problems[0])
            continue
        folder = str(candidate) if len(candidates) > 1 else ""
        label_ids = arguments.save_label_ids and arguments.save_label_ids / folder
        report = measure(model, candidate, data, protocol, label_ids)
        if is_first:
            print(f"{report.summary()}\n")
        if is_first and arguments.report:
            save_report(report, model, data.images, arguments.report / folder)
        if arguments.confirm and not report.is_confirmed(arguments.tolerance):
            failures.append(f"{report.title}: not within {arguments.tolerance:g} of the published")
    return failures if is_first else []


def main(arguments: Sequence[str] | None = None) -> None:
    parsed, given = parse_arguments(arguments)
    try:
        with joined(parsed.device) as device:
            failures = run(parsed, given, device)
    except (OSError, ValueError) as error:
        failures = [str(error)]
    if failures:
        raise SystemExit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
