"""Benchmark of a training step and its losses, in the published way and in this project's.

    python scripts/benchmarks/training.py --json training.json

The published way: the published formulation of the operator, float32, NCHW, and hard pixel mining
on the host with NumPy and SciPy. This project's: its operator, bfloat16 autocast, channels-last,
and mining on the device of the logits. Both train the same network and are timed in turns;
--between adds the steps between them, one change at a time. Prints Markdown.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np
import torch
from random_network import CLASSES, random_network
from scipy.ndimage import zoom
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from ccnet.baselines import PublishedCrissCrossAttention2d
from ccnet.classes import IGNORE_INDEX
from ccnet.console import prepare_console
from ccnet.files import atomic_write, user_path
from ccnet.losses import CrossEntropyLoss, OhemCrossEntropyLoss, SegmentationLoss
from ccnet.zoo import NETWORKS

Work = Callable[[], object]


class HostOhemCrossEntropyLoss(nn.Module):
    """OHEM as public code does it: probabilities are copied to the host for SciPy's zoom."""

    def __init__(self, threshold: float = 0.7, min_kept: int = 100_000, factor: int = 8) -> None:
        super().__init__()
        self.threshold, self.min_kept, self.factor = threshold, min_kept, factor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss; arguments and result are as in `OhemCrossEntropyLoss`."""
        host = logits.detach().softmax(dim=1).cpu().numpy()
        true = labels.cpu().numpy()
        step = 1 / self.factor
        coarse = zoom(host, (1, 1, step, step), order=1)
        coarse_labels = zoom(true, (1, step, step), order=0)
        valid = coarse_labels != IGNORE_INDEX
        candidates = np.moveaxis(coarse, 1, -1)[valid]
        own = candidates[np.arange(len(candidates)), coarse_labels[valid]]
        kept = self.min_kept // self.factor**2
        threshold = 1.0 if kept >= len(own) else max(self.threshold, np.partition(own, kept)[kept])
        counted = true != IGNORE_INDEX
        classes = np.where(counted, true, 0)[:, None]
        hard = counted & (np.take_along_axis(host, classes, 1)[:, 0] <= threshold)
        mined = torch.from_numpy(np.where(hard, true, IGNORE_INDEX)).to(logits.device)
        return F.cross_entropy(logits, mined, ignore_index=IGNORE_INDEX)


def training_steps(arguments: argparse.Namespace) -> dict[str, Work]:
    """Returns training steps of the same network, from the published way to this project's."""
    size = arguments.size
    images = torch.randn(arguments.batch, 3, size, size, device=arguments.device)
    labels = torch.randint(0, CLASSES, (arguments.batch, size, size), device=arguments.device)
    labels[:, : size // 8] = IGNORE_INDEX

    def step_of(
        operator: str, mining: str, memory_format: torch.memory_format, precision: str
    ) -> Work:
        model = random_network(arguments.network).to(arguments.device).train()
        if operator == "published":
            model.head.cca = PublishedCrissCrossAttention2d(model.head.cca)
        model.to(memory_format=memory_format)
        batch = images.contiguous(memory_format=memory_format)
        main = HostOhemCrossEntropyLoss() if mining == "host" else OhemCrossEntropyLoss()
        loss = SegmentationLoss(main=main)
        optimizer = optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
        enabled = precision == "bfloat16"

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=enabled):
                outputs = model(batch)
            loss(outputs, labels).backward()
            optimizer.step()

        return step

    nchw, last = torch.contiguous_format, torch.channels_last
    between = {
        "hard pixels mined on the device": step_of("published", "device", nchw, "float32"),
        "channels-last": step_of("published", "device", last, "float32"),
        "this operator": step_of("this", "device", last, "float32"),
    }
    return {
        "the published way": step_of("published", "host", nchw, "float32"),
        **(between if arguments.between else {}),
        "this project's way": step_of("this", "device", last, "bfloat16"),
    }


def loss_steps(arguments: argparse.Namespace) -> dict[str, Work]:
    """Returns forward and backward passes of losses on logits of 2x19x769x769."""
    logits = 2 * torch.randn(2, 19, 769, 769, device=arguments.device)
    labels = torch.randint(0, CLASSES, (2, 769, 769), device=arguments.device)
    labels[torch.rand(labels.shape, device=arguments.device) < 0.1] = IGNORE_INDEX
    logits.requires_grad_()

    def step_of(loss: Callable[[Tensor, Tensor], Tensor]) -> Work:
        return lambda: torch.autograd.grad(loss(logits, labels), logits)

    def plain(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)

    return {
        "torch's cross-entropy": step_of(plain),
        "CrossEntropyLoss": step_of(CrossEntropyLoss()),
        "OhemCrossEntropyLoss": step_of(OhemCrossEntropyLoss()),
        "mined on the host": step_of(HostOhemCrossEntropyLoss()),
    }


def take_turns(works: dict[str, Work], rounds: int, threads: int) -> dict[str, list[float]]:
    """Times all works in turns, in seconds per round, after one round of warm-up."""
    timers = {
        name: Timer("work()", globals={"work": work}, num_threads=threads)
        for name, work in works.items()
    }
    for timer in timers.values():
        timer.timeit(1)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(1).median)
    return seconds


def table(title: str, seconds: dict[str, list[float]]) -> str:
    """Formats medians, quartiles and the speed-up over the first row as a Markdown table."""
    lines = [f"| {title} | ms | between quartiles | times faster than the first |"]
    lines.append("| --- | ---: | ---: | ---: |")
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) * 1e3
        ratio = 1e3 * first / median
        lines.append(f"| {name} | {median:.0f} | {low:.0f} - {high:.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet50")
    parser.add_argument("--size", type=int, default=385, help="image height and width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--between", action="store_true", help="also time one change at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=user_path, help="also write seconds to this file")
    return parser.parse_args()


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    title = (
        f"training step, {arguments.network}, {arguments.batch}x{arguments.size}x{arguments.size}"
    )
    result = {}
    for name, works in (
        ("loss, forward and backward, 2x19x769x769", loss_steps(arguments)),
        (title, training_steps(arguments)),
    ):
        result[name] = take_turns(works, arguments.rounds, arguments.threads)
        print(table(name, result[name]), end="\n\n", flush=True)
    if arguments.json:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
