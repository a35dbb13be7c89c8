"""Prediction benchmark: pictures a second of `ccnet predict`, beside one picture after the other.

    python scripts/benchmarks/prediction.py --output results

Renders street scenes as JPEG files into a temporary folder, small and large ones, and segments them
with the bundled network and with a stub that costs nothing: what is left is reading and writing.
"serial" is the plain loop: read, compute and write each picture before the next one, and every
process does all of them; "pipeline" is what the command does. Each run has processes of its own.
Memory is that of the largest process at its peak, PyTorch included. Prints a Markdown table;
--output writes it, and all figures as JSON, to a folder.
"""

import argparse
import json
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from ccnet.classes import CAMVID
from ccnet.console import prepare_console
from ccnet.datasets.street_scenes import render_scene
from ccnet.distributed import process_group
from ccnet.files import user_path
from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.inference.marked_png import Origin
from ccnet.jobs.outputs import USUAL
from ccnet.jobs.search import find_jobs
from ccnet.model import CCNet
from ccnet.prediction_run.command_line import default_workers
from ccnet.prediction_run.run import Run
from ccnet.prediction_run.stages import Stages
from ccnet.transforms import Preprocessing
from ccnet.zoo import ccnet_resnet18

NETWORKS, WAYS = ("ccnet_resnet18", "stub"), ("serial", "pipeline")

RENDERED = 8
"""Scenes that are rendered, which takes longer than to segment them; the others repeat them."""


class Stub:
    """A network that costs nothing; its labels are as coarse as those of a network."""

    preprocessing = Preprocessing()
    label_set = CAMVID

    def _segment(self, pixels: Tensor, **_: Any) -> Segmentation:
        height, width = pixels.shape[1:]
        coarse = pixels[1, ::8, ::8].div(26, rounding_mode="floor").clamp(max=10)
        labels = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
        return Segmentation(labels.contiguous(), CAMVID, pixels)


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes JPEG files of a height and width: scenes, each with some noise of its own."""
    folder.mkdir()
    rendered = (360, 480)
    scenes = [render_scene(seed, rendered)[0] for seed in range(min(count, RENDERED))]
    scenes = [scene.resize(size[::-1], Image.Resampling.BICUBIC) for scene in scenes]
    for index in range(count):
        noise = Image.effect_noise(size[::-1], 12 + index % 50).convert("RGB")
        picture = Image.blend(scenes[index % len(scenes)], noise, 0.05)
        picture.save(folder / f"{index:06}.jpg", quality=90)


def make_stages(network: str) -> Stages:
    """The stages of pictures for the network, or for the stub."""
    model = cast(CCNet, Stub()) if network == "stub" else ccnet_resnet18(weights="DEFAULT")
    protocol = InferenceProtocol() if network == "stub" else model.default_protocol
    return Stages(model, protocol, 8.5, Origin("", "benchmark", "{}"), USUAL)


def run_serial(stages: Stages, folder: Path, output: Path) -> tuple[float, float]:
    """Segments each picture before the next; returns the seconds in all, and of the network."""
    start, computing = time.perf_counter(), 0.0
    for job in find_jobs([str(folder)], output).jobs:
        picture = stages.read(job)
        computing += stages.segment([picture], 1)
        stages.write(picture)
    return time.perf_counter() - start, computing


def run_pipeline(stages: Stages, folder: Path, output: Path, workers: int) -> tuple[float, float]:
    """Segments the pictures as the command does; returns the same, of all processes together."""
    found = find_jobs([str(folder)], output)
    run = Run(
        found, range(len(found.jobs)), stages, output, "run", None, workers, lambda picture: None
    )
    report = run()
    if report.failures or report.stops:
        raise RuntimeError(f"not all was segmented: {report}")
    return report.seconds, report.computing


def work(
    way: str, network: str, folder: Path, output: Path, rank: int, processes: int, send: Any
) -> None:
    """Runs in one of several processes; sends its seconds, those of the network, and MiB."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
    os.environ["LOCAL_WORLD_SIZE"] = str(processes)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    stages = make_stages(network)
    with process_group("cpu"):
        if way == "serial":
            output = output / str(rank)
            output.mkdir()
            seconds, computing = run_serial(stages, folder, output)
        else:
            seconds, computing = run_pipeline(stages, folder, output, default_workers())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    send.send(json.dumps([seconds, computing, peak]))


def measure(way: str, network: str, folder: Path, count: int, processes: int) -> dict[str, float]:
    """Segments a folder; returns pictures a second, the share of the network, and MiB."""
    context = multiprocessing.get_context("spawn")
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port())}
    with tempfile.TemporaryDirectory(dir=folder.parent) as output:
        started = []
        for rank in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (way, network, folder, Path(output), rank, processes, sender)
            process = context.Process(target=work, args=arguments)
            process.start()
            sender.close()
            started.append((process, receiver))
        told = [json.loads(receiver.recv()) for _, receiver in started]
        for process, _ in started:
            process.join()
    # Of the pipeline rank 0 tells the sum of all, of the plain loop each process its own.
    summed = told[:1] if way == "pipeline" else told
    seconds, computing = (sum(one[index] for one in summed) for index in range(2))
    return {
        "pictures_per_second": count / (seconds / processes),
        "share_of_network": computing / seconds,
        "peak_mib": max(peak for *_, peak in told),
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| pictures | network | processes | way | a second | network | peak, MiB |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            "| {pictures} | {network} | {processes} | {way} | {pictures_per_second:.3g} | "
            "{share_of_network:.0%} | {peak_mib:.0f} |".format(**row)
        )
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=user_path, help="folder for prediction.md and .json")
    add("--small", type=int, default=200, help="number of small pictures")
    add("--large", type=int, default=12, help="number of large pictures")
    add("--small-size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"))
    add("--large-size", type=int, nargs=2, default=(3000, 4000), metavar=("H", "W"))
    add("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    add("--processes", type=int, nargs="+", default=(1, 2))
    return parser.parse_args()


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for kind in ("small", "large"):
            size, count = tuple(getattr(arguments, f"{kind}_size")), getattr(arguments, kind)
            if not count:
                continue
            folder = Path(root, kind)
            write_pictures(folder, count, size)
            told = f"{count} of {size[1]} x {size[0]}"
            for network, processes, way in product(arguments.networks, arguments.processes, WAYS):
                found = measure(way, network, folder, count, processes)
                rows.append(
                    {"pictures": told, "network": network, "processes": processes, "way": way}
                    | found
                )
    print(as_markdown(rows), end="")
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "prediction.md").write_text(as_markdown(rows))
        report = {"torch": torch.__version__, "cores": os.cpu_count(), "rows": rows}
        (arguments.output / "prediction.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
