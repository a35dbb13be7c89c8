"""Benchmark of criss-cross attention: its published formulation, full attention, bare products.

    python scripts/benchmarks/attention_operator.py --output results

The implementations are timed in turns in one process, so that ratios hold even if absolute times
drift. mmcv's module is included if it is installed. Writes a Markdown table, the same as JSON, and
a plot.

    python scripts/benchmarks/attention_operator.py --count

Prints instead how many tensor operations the operator, its published formulation and a training
step of `ccnet_resnet101` take off the CPU, and the GB (1e9 bytes) that they read and write: forward
and backward. Counted on the meta device, so it needs no other and is the same everywhere.
"""

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from attention_report import Row, as_markdown, fitted_exponents, plot
from live_memory import LiveMemory, kept_for_backward
from operation_counts import operator_table, step_table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer

from ccnet import criss_cross_attention
from ccnet.baselines import published_criss_cross_attention
from ccnet.console import prepare_console
from ccnet.files import user_path

Operator = Callable[[Tensor, Tensor, Tensor], Tensor | list[Tensor]]

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SIZES = [(33, 33), (65, 65), (97, 97), (97, 193), (129, 129), (129, 257), (257, 257)]
LARGEST_FULL_ATTENTION = 129 * 129
COUNTED_SIZE = (97, 97)
COUNTED_STEP = ("ccnet_resnet101", (2, 3, 769, 769))


def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    flat = (tensor.flatten(2).transpose(1, 2) for tensor in (query, key, value))
    attended = F.scaled_dot_product_attention(*flat, scale=1.0)
    return attended.transpose(1, 2).unflatten(2, query.shape[2:])


def matrix_products(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Computes only the products, on operands in channels-last order: no softmax, no sum."""
    outputs = []
    for sample in zip(query, key, value, strict=True):
        for axes in ((1, 2, 0), (2, 1, 0)):
            queries, keys, values = (tensor.permute(axes) for tensor in sample)
            outputs.append(queries.bmm(keys.transpose(1, 2)).bmm(values))
    return outputs


OPERATORS: dict[str, Operator] = {
    "this": criss_cross_attention,
    "published": published_criss_cross_attention,
    "full": full_attention,
    "products": matrix_products,
}


def mmcv_attention() -> Operator:
    """Returns mmcv's module without its projections; its residual sum, with zeros, remains.

    Raises:
        ImportError: if mmcv with its operators is not installed.
    """
    from mmcv.ops import CrissCrossAttention

    class Give(nn.Module):
        def __init__(self, tensor: Tensor) -> None:
            super().__init__()
            self.tensor = tensor

        def forward(self, _: Tensor) -> Tensor:
            return self.tensor

    module = CrissCrossAttention(in_channels=8)
    module.gamma = nn.Identity()

    def operator(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            setattr(module, f"{name}_conv", Give(tensor))
        return module(value.new_zeros(len(value), 1, *value.shape[2:]))

    return operator


with suppress(ImportError):
    OPERATORS["mmcv"] = mmcv_attention()


def make_inputs(
    size: tuple[int, int], batch: int, dtype: torch.dtype, layout: str, device: str
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    memory_format = LAYOUTS[layout]
    # Values of the meta device are none, so they are not drawn first.
    where = {"device": "meta"} if device == "meta" else {"generator": generator}
    return [
        torch.randn(batch, channels, *size, **where)
        .mul(0.3)
        .to(device, dtype)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for channels in (64, 64, 512)
    ]


def measure(
    operators: dict[str, Operator], inputs: list[Tensor], backward: bool, seconds: float
) -> dict[str, Row]:
    """Measures the time (median and quartiles, in turns) and memory of each operator."""

    def step(operator: Operator, upstream: list[Tensor]) -> None:
        if backward:
            torch.autograd.grad(tree_leaves(operator(*inputs)), inputs, upstream)
        else:
            with torch.no_grad():
                operator(*inputs)

    timers, upstreams = {}, {}
    for name, operator in operators.items():
        with torch.no_grad():
            upstream = [torch.ones_like(output) for output in tree_leaves(operator(*inputs))]
        upstreams[name] = upstream if backward else []
        names = {"step": step, "operator": operator, "upstream": upstreams[name]}
        threads = torch.get_num_threads()  # Timer's default is one thread
        timers[name] = Timer("step(operator, upstream)", globals=names, num_threads=threads)
    times: dict[str, list[float]] = {name: [] for name in operators}
    for name, timer in timers.items():
        first = timer.timeit(1).median
        rounds = max(3, min(25, int(seconds / max(first, 1e-6))))
        times[name] = [math.nan] * rounds
    for turn in range(max(map(len, times.values()))):
        for name, timer in timers.items():
            if turn < len(times[name]):
                times[name][turn] = timer.timeit(1).median
    results: dict[str, Row] = {}
    for name, operator in operators.items():
        with LiveMemory() as memory:
            step(operator, upstreams[name])
        kept = kept_for_backward(partial(operator, *inputs), inputs) / 1e6
        low, median, high = statistics.quantiles(times[name], n=4)
        results[name] = {
            "median_ms": 1e3 * median,
            "quartile_low_ms": 1e3 * low,
            "quartile_high_ms": 1e3 * high,
            "peak_mb": memory.peak / 1e6,
            "kept_mb": kept if backward else 0.0,
        }
    return results


def run(arguments: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    cases = itertools.product(
        arguments.sizes, arguments.batches, arguments.dtypes, arguments.layouts, (False, True)
    )
    for size, batch, dtype, layout, backward in cases:
        operators = {name: OPERATORS[name] for name in arguments.operators}
        if math.prod(size) > LARGEST_FULL_ATTENTION:
            operators.pop("full", None)
        if dtype != "float32":  # mmcv adds a float32 mask, which torch rejects
            operators.pop("mmcv", None)
        inputs = make_inputs(size, batch, getattr(torch, dtype), layout, arguments.device)
        results = measure(operators, inputs, backward, arguments.seconds)
        for name, result in results.items():
            row: Row = {
                "map": f"{size[0]}x{size[1]}",
                "positions": math.prod(size),
                "batch": batch,
                "dtype": dtype,
                "layout": layout,
                "pass": "forward + backward" if backward else "forward",
                "operator": name,
                **result,
                "published_over_this": (
                    float(results["published"]["median_ms"]) / float(result["median_ms"])
                ),
            }
            rows.append(row)
            print(as_markdown([row]).splitlines()[-1], flush=True)
    return rows


def parse_size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=user_path, default=Path("benchmarks"))
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, help="map sizes, HxW")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument(
        "--operators",
        nargs="+",
        choices=OPERATORS,
        default=list(OPERATORS),
        help="must include published",
    )
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument(
        "--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), help="memory formats"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="approximate time per operator and case"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", action="store_true", help="count operations and bytes instead")
    return parser.parse_args()


def print_counts() -> None:
    operators = {name: OPERATORS[name] for name in ("this", "published")}
    dtypes = ("float32", "float16")
    print(operator_table(operators, make_inputs, COUNTED_SIZE, (1, 2, 8), dtypes, LAYOUTS))
    print()
    print(step_table(*COUNTED_STEP))


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.count:
        print_counts()
        return
    print(as_markdown([]), end="")
    rows = run(arguments)
    exponents = fitted_exponents(rows)
    for name, exponent in exponents.items():
        print(f"time grows as positions to the power {exponent:.2f}: {name}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "operator.md").write_text(as_markdown(rows))
    report = {"torch": torch.__version__, "threads": arguments.threads, "device": arguments.device}
    (arguments.output / "operator.json").write_text(
        json.dumps({**report, "rows": rows, "exponents": exponents}, indent=1) + "\n"
    )
    plot(rows, list(OPERATORS), arguments.output / "operator.png")


if __name__ == "__main__":
    main()
