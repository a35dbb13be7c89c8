"""Memory of one inference: `predict` beside the plain network, each in a process of its own.

    python scripts/benchmarks/inference_memory.py --size 1024 2048

The plain network computes attention in the published formulation, runs the auxiliary head, and
resizes all logits at once. Weights are random. Measured is the largest size of the process during
the inference less its size before, which Linux tells and resets. Prints a Markdown table.
"""

import argparse
import ctypes
import json
import multiprocessing
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from network_rows import Plain
from torch import Tensor

from ccnet.console import prepare_console
from ccnet.deployment.optimized.optimization import optimize_for_inference
from ccnet.zoo import NETWORKS

WORKS: dict[str, dict[str, Any] | None] = {
    "plain network": None,
    "predict": {},
    "predict, flip": {"flip": True},
    "predict, windows of 769": {"mode": "slide", "window_batch": 1},
    "predict, optimised float32": {"dtype": torch.float32},
    "predict, optimised bfloat16": {"dtype": torch.bfloat16},
}


def size_of_process(field: str) -> float:
    """Returns the size of this process in MiB: "VmRSS" is that of now, "VmHWM" the largest one."""
    (kibibytes,) = re.findall(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) / 1024


def forget_freed_memory() -> None:
    """Gives freed memory back to the system, and resets the largest size."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@torch.no_grad()
def measure(network: str, size: tuple[int, int], name: str, send: Callable[[str], None]) -> None:
    """Sends MiB and seconds of one inference, in JSON."""
    torch.manual_seed(0)
    model = NETWORKS[network](num_classes=19).eval()
    pixels = torch.randint(256, (3, *size), dtype=torch.uint8)
    options = WORKS[name]
    if options and "dtype" in options:
        model, options = optimize_for_inference(model, options["dtype"]), {}
    plain = Plain(model) if options is None else None

    def work(picture: Tensor) -> object:
        if plain is not None:
            logits, _ = plain(model.transforms()(picture))
            return logits.argmax(1)
        return model.predict(picture, fit=None, **options)

    work(pixels[:, :65, :65])
    forget_freed_memory()
    before, start = size_of_process("VmRSS"), time.perf_counter()
    work(pixels)
    seconds = time.perf_counter() - start
    send(json.dumps([size_of_process("VmHWM") - before, seconds]))


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
