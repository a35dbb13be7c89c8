"""Benchmark on a GPU: tests, operator, training, and the seed's claim, in at most six minutes.

    python scripts/benchmarks/gpu.py --output gpu-benchmark.md

Runs the tests marked `gpu`, then times, in turns and with CUDA events, the operator against its
published formulation, and both in a whole network: training steps, a step at 769x769 with OHEM and
one sample, and an evaluated image of 1024x2048 in windows. Cases for which no time is left are
listed as such. With `--device cpu` the same runs on small sizes. Writes Markdown.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from attention_operator import LAYOUTS, make_inputs
from torch import nn

import ccnet
from ccnet import criss_cross_attention
from ccnet.baselines import PublishedCrissCrossAttention2d, published_criss_cross_attention
from ccnet.console import prepare_console
from ccnet.files import atomic_write, user_path
from ccnet.losses import OhemCrossEntropyLoss, SegmentationLoss
from ccnet.zoo import NETWORKS

Work = Callable[[], object]
ROOT = Path(__file__).resolve().parents[2]


class Sizes(NamedTuple):
    """What is measured."""

    maps: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    network: str
    crop: int
    training_batch: int
    image: tuple[int, int]
    rounds: int


SIZES = {
    "cuda": Sizes(((97, 97), (129, 129)), (1, 2, 8), "ccnet_resnet101", 769, 2, (1024, 2048), 11),
    "cpu": Sizes(((9, 9),), (1, 2), "ccnet_resnet18", 65, 2, (96, 128), 2),
}


class Case(NamedTuple):
    """Implementations of the same work; those after the first two are extra."""

    title: str
    works: dict[str, Work]


def operator_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    compiled = torch.compile(criss_cross_attention, fullgraph=True, dynamic=True)
    operators = {"published": published_criss_cross_attention, "this": criss_cross_attention}
    if device == "cuda":
        operators["this, compiled"] = compiled
    cases = itertools.product(sizes.maps, sizes.batches, ("float32", "bfloat16"), LAYOUTS)
    for size, batch, dtype, layout in cases:
        inputs = make_inputs(size, batch, getattr(torch, dtype), layout, device)
        upstream = torch.ones_like(inputs[2])

        def forward(operator, inputs=inputs):
            with torch.no_grad():
                operator(*inputs)

        def both(operator, inputs=inputs, upstream=upstream):
            torch.autograd.grad(operator(*inputs), inputs, upstream)

        title = f"{batch}x{size[0]}x{size[1]}, {dtype}, {layout}"
        for name, step in (("forward", forward), ("forward + backward", both)):
            works = {
                key: lambda step=step, operator=operator: step(operator)
                for key, operator in operators.items()
            }
            yield Case(f"{title}, {name}", works)


def network_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    torch.manual_seed(0)
    model = NETWORKS[sizes.network](num_classes=19).to(device)
    nn.init.constant_(model.head.cca.gamma, 0.5)
    attentions = {
        "published": PublishedCrissCrossAttention2d(model.head.cca),
        "this": model.head.cca,
    }
    loss = SegmentationLoss(main=OhemCrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def training(batch: int, layout: str, bfloat16: bool) -> dict[str, Work]:
        memory_format = LAYOUTS[layout]
        images = torch.randn(batch, 3, sizes.crop, sizes.crop, device=device)
        images = images.contiguous(memory_format=memory_format)
        labels = torch.randint(0, 19, (batch, sizes.crop, sizes.crop), device=device)

        def step(attention: nn.Module) -> None:
            model.train().to(memory_format=memory_format).head.cca = attention
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                outputs = model(images)
            loss(outputs, labels).backward()
            optimizer.step()

        return {name: lambda use=use: step(use) for name, use in attentions.items()}

    def evaluate(attention: nn.Module) -> None:
        model.eval().head.cca = attention
        model.predict(image, mode="slide", crop=sizes.crop)

    crop = f"{sizes.crop}x{sizes.crop}"
    yield Case(f"training step, 1x{crop}, OHEM, float32", training(1, "NCHW", False))
    image = torch.rand(3, *sizes.image)
    works = {name: lambda use=use: evaluate(use) for name, use in attentions.items()}
    yield Case(f"image of {sizes.image[0]}x{sizes.image[1]} in windows of {sizes.crop}", works)
    for bfloat16 in (False, True):
        name = "bfloat16 autocast" if bfloat16 else "float32"
        title = f"training step, {sizes.training_batch}x{crop}, OHEM, {name}, channels_last"
        yield Case(title, training(sizes.training_batch, "channels_last", bfloat16))


def milliseconds(work: Work, device: str, repeats: int) -> float:
    """Returns the time of one call, on a GPU by its own clock."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return 1e3 * (time.perf_counter() - start) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeats):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / repeats


def take_turns(case: Case, device: str, rounds: int) -> dict[str, float]:
    """Returns the median of each implementation, in milliseconds, after warming up."""
    repeats = dict.fromkeys(case.works, 1)
    for name, work in case.works.items():
        milliseconds(work, device, 1)
        if device != "cpu":
            repeats[name] = max(1, min(50, round(20 / milliseconds(work, device, 1))))
    times: dict[str, list[float]] = {name: [] for name in case.works}
    for _ in range(rounds):
        for name, work in case.works.items():
            times[name].append(milliseconds(work, device, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def table(
    name: str, cases: Iterator[Case], device: str, rounds: int, deadline: float
) -> Iterator[str]:
    """Yields the lines of a Markdown table; nothing begins after the deadline."""
    yield f"| {name} | published, ms | this, ms (times faster) | compiled, ms (times faster) |"
    yield "| --- | ---: | ---: | ---: |"
    for case in cases:
        if time.monotonic() > deadline:
            yield f"| {case.title} | no time was left | | |"
            continue
        published, *others = take_turns(case, device, rounds).values()
        cells = [f"{ours:.3f} ({published / ours:.2f})" for ours in others]
        yield f"| {case.title} | {published:.3f} | {' | '.join([*cells, '', ''][:2])} |"


def tests() -> str:
    """Runs the tests marked `gpu`; returns pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["tests/test_attention_gpu.py", "tests/norm/test_norm_conversion.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return (result.stdout.strip().splitlines() or ["pytest printed nothing"])[-1]


def report(arguments: argparse.Namespace) -> Iterator[str]:
    device, began = arguments.device, time.monotonic()
    sizes = SIZES["cpu" if device == "cpu" else "cuda"]
    card = "a CPU, small sizes" if device == "cpu" else torch.cuda.get_device_name()
    yield f"# Measured on {card}\n"
    yield f"PyTorch {torch.__version__}, ccnet {ccnet.__version__}. Medians, in turns.\n"
    if device == "cuda":
        yield f"Tests marked `gpu`: {tests()}\n"
    for name, cases, share in (
        (f"{sizes.network}, this operator and the published", network_cases, 0.6),
        ("operator, 64 and 512 channels", operator_cases, 0.95),
    ):
        deadline = began + 60 * arguments.minutes * share
        yield from table(name, cases(sizes, device), device, sizes.rounds, deadline)
        yield ""


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=6, help="for everything together")
    parser.add_argument("--output", type=user_path, default=Path("gpu-benchmark.md"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu exercises the same on small sizes")
    lines = []
    for line in report(arguments):
        print(line, flush=True)
        lines.append(line)
    with atomic_write(arguments.output) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
