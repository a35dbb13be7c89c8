"""Benchmark of the whole network: plain, as it is, optimised, compiled, exported, and others.

    python scripts/benchmarks/network.py --output results
    python scripts/benchmarks/network.py --file ccnet.onnx --file ccnet-int8.onnx --batch 1

Plain is the network with attention in the published formulation, norms kept and the auxiliary head
run, in NCHW; bfloat16 is autocast but where the network is optimised. All rows are timed in turns
in one process, so that ratios hold even if absolute times drift. Exported files are rows by
`--file`. Beside the times stand GFLOPs (twice the multiply-adds), the most memory alive at once
beside weights and input, and which share of the time the network's convolutions would take if each
were run alone: what is missing to 100 % is not convolution. A row that fails is reported as such.
Writes Markdown, JSON and a plot.
"""

import argparse
import copy
import json
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from attention_operator import parse_size
from convolutions import Convolution, convolutions_of, seconds, seconds_alone
from live_memory import LiveMemory
from network_report import as_markdown, plot
from network_rows import Networks, Row, builders
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ccnet.console import prepare_console
from ccnet.files import atomic_write, user_path


@dataclass
class Result:
    """What is known of a row; times in seconds, by batch size.

    Attributes:
        times: of all rounds.
        shares: of the time that convolutions alone take, of all rounds.
        error: why there is no more.
    """

    precision: str = ""
    times: dict[int, list[float]] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)
    gflops: float | None = None
    peak_mb: float | None = None
    weights_mb: float | None = None
    error: str = ""


class Measurement:
    """Rows and what is known of them.

    Args:
        rows: what makes each row, by its name.
        device: where they run.
    """

    def __init__(self, rows: dict[str, Callable[[], Row]], device: str) -> None:
        self.device = device
        self.results = {name: Result() for name in rows}
        self.rows: dict[str, Row] = {}
        self.convolutions: dict[str, Counter[Convolution]] = {}
        for name, build in rows.items():
            self._attempt(name, partial(self._build, name, build))

    def _build(self, name: str, build: Callable[[], Row]) -> None:
        self.rows[name] = build()
        self.results[name].precision = self.rows[name].precision

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        """Works for a row that has not failed; the reason of a failure takes its place."""
        result = self.results[name]
        if not result.error:
            try:
                work()
            except Exception as error:  # of any kind: the other rows are worth their time
                text = " ".join(str(error).split())[:200]
                result.error = f"{type(error).__name__}: {text}"
                print(f"{name}: {result.error}", flush=True)

    def count(self, x: Tensor) -> None:
        """Warms up, and counts operations, memory and convolutions of a batch."""
        for name in self.results:
            self._attempt(name, partial(self._count, name, x))

    def _count(self, name: str, x: Tensor) -> None:
        row, result = self.rows[name], self.results[name]
        row.call(x)
        if row.module is None:
            return
        if self.device == "cpu":
            with LiveMemory() as memory:
                row.call(x)
            result.peak_mb = memory.peak / 1e6
        else:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            row.call(x)
            result.peak_mb = (torch.cuda.max_memory_allocated() - before) / 1e6
        result.weights_mb = sum(one.nbytes for one in row.module.parameters()) / 1e6
        self.convolutions[name] = convolutions_of(row.module, partial(row.call, x))
        with FlopCounterMode(display=False) as counter:
            copy.deepcopy(row.module).to("meta")(x.to("meta"))
        result.gflops = counter.get_total_flops() / 1e9

    def take_turns(self, x: Tensor, rounds: int, *, alone: bool) -> None:
        """Times all rows in turns; `alone` the convolutions too."""
        for number in range(rounds + 1):  # the first is for warming up
            for name in self.results:
                self._attempt(name, partial(self._turn, name, x, number, alone))
            print(f"batch {len(x)}: round {number} of {rounds}", flush=True)

    def _turn(self, name: str, x: Tensor, number: int, alone: bool) -> None:
        took = seconds(partial(self.rows[name].call, x), self.device)
        if number:
            result = self.results[name]
            result.times.setdefault(len(x), []).append(took)
            if alone and name in self.convolutions:
                own = seconds_alone(self.convolutions[name], self.device)
                result.shares.append(own / took)


def as_dict(results: dict[str, Result]) -> list[dict[str, object]]:
    """Returns JSON-able rows, with medians."""
    return [
        {
            "name": name,
            **vars(result),
            "median_ms": {
                batch: 1e3 * statistics.median(times) for batch, times in result.times.items()
            },
            "share": statistics.median(result.shares) if result.shares else None,
        }
        for name, result in results.items()
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", default="ccnet_resnet101", metavar="NAME")
    add("--size", type=parse_size, default=(769, 769), metavar="HxW", help="of the images")
    add("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="batch sizes")
    add("--rounds", type=int, default=5, help="turns that are timed; medians count")
    add("--only", metavar="PARTS", help="only rows whose names contain one of PARTS: a,b,...")
    add("--file", type=user_path, action="append", default=[], help="an exported file, as a row")
    add("--device", default="cpu")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--output", type=user_path, default=Path("benchmarks"))
    arguments = parser.parse_args()
    if arguments.rounds < 1 or min(arguments.batch) < 1:
        parser.error("--rounds and --batch must be positive")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no CUDA device: --device cpu")
    return arguments


@torch.no_grad()
def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    networks = Networks(arguments.network, arguments.device)
    rows = builders(networks, arguments.file)
    if arguments.only:
        parts = arguments.only.split(",")
        rows = {name: rows[name] for name in rows if any(part in name for part in parts)}
    if not rows:
        raise SystemExit(f"error: no row has one of {arguments.only!r} in its name")
    measurement = Measurement(rows, arguments.device)
    for index, batch in enumerate(arguments.batch):
        x = torch.randn(batch, 3, *arguments.size).to(arguments.device)
        if index == 0:
            measurement.count(x)
        measurement.take_turns(x, arguments.rounds, alone=index == 0)
    report = {
        "network": arguments.network,
        "size": list(arguments.size),
        "device": arguments.device,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "rows": as_dict(measurement.results),
    }
    text = as_markdown(report)
    print(f"\n{text}", end="")
    arguments.output.mkdir(parents=True, exist_ok=True)
    contents = {"network.md": text, "network.json": f"{json.dumps(report, indent=1)}\n"}
    for name, content in contents.items():
        with atomic_write(arguments.output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    plot(report, arguments.output / "network.png")


if __name__ == "__main__":
    main()
