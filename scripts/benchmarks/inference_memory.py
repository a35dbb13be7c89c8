"""Memory of one inference: `predict` beside the plain network, each in a process of its own.

    python scripts/benchmarks/inference_memory.py --size 1024 2048

The plain network computes attention in the published formulation, runs the auxiliary head, and
resizes all logits at once. Weights are random. Measured is the largest size of the process (which
Linux, macOS and other systems with the module `resource` tell) less its size before. Prints a
Markdown table.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.baselines import PublishedCrissCrossAttention2d
from ccnet.console import prepare_console
from ccnet.model import CCNet
from ccnet.zoo import NETWORKS

WORKS: dict[str, dict[str, object] | None] = {
    "plain network": None,
    "predict": {},
    "predict, flip": {"flip": True},
    "predict, windows of 769": {"mode": "slide", "window_batch": 1},
}


def plain(model: CCNet, pixels: Tensor) -> Tensor:
    """Computes labels as public implementations do."""
    assert model.aux_head is not None
    images = model.transforms()(pixels)
    stage3, stage4 = model.backbone(images)
    outputs = [
        F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)
        for logits in (model.head(stage4), model.aux_head(stage3))
    ]
    return outputs[0].argmax(1)


def peak() -> float:
    """The largest size of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@torch.no_grad()
def measure(network: str, size: tuple[int, int], name: str, send: Callable[[str], None]) -> None:
    """Sends MiB and seconds of one inference, in JSON."""
    torch.manual_seed(0)
    model = NETWORKS[network](num_classes=19).eval()
    pixels = torch.randint(256, (3, *size), dtype=torch.uint8)
    options = WORKS[name]
    if options is None:
        model.head.cca = PublishedCrissCrossAttention2d(model.head.cca)

    def work(picture: Tensor) -> object:
        if options is None:
            return plain(model, picture)
        return model.predict(picture, fit=None, **options)

    work(pixels[:, :65, :65])
    before, start = peak(), time.perf_counter()
    work(pixels)
    send(json.dumps([peak() - before, time.perf_counter() - start]))


def table(network: str, size: tuple[int, int], works: Iterable[str]) -> str:
    lines = [
        f"| {network}, {size[0]}x{size[1]} | peak, MiB | of the first | s |",
        "| --- | ---: | ---: | ---: |",
    ]
    processes = multiprocessing.get_context("spawn")
    first = 0.0
    for name in works:
        receiver, sender = processes.Pipe(duplex=False)
        process = processes.Process(target=measure, args=(network, size, name, sender.send))
        process.start()
        sender.close()
        mebibytes, seconds = json.loads(receiver.recv())
        process.join()
        first = first or mebibytes
        share = f"{mebibytes / first:.0%}"
        lines.append(f"| {name} | {mebibytes:.0f} | {share} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet101")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--works", choices=WORKS, nargs="+", default=list(WORKS))
    arguments = parser.parse_args()
    print(table(arguments.network, tuple(arguments.size), arguments.works))


if __name__ == "__main__":
    main()
