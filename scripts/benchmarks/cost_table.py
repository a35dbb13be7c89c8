"""Cost of attention in a network: GFLOPs and memory as in the paper's table, seconds per step.

    python scripts/benchmarks/cost_table.py --json cost.json

The first table is counted on the meta device, so it takes no time and no memory, and is the same on
every machine. The second is measured: the operator and its published formulation are timed in turns
in one network. Published figures are shown beside both and marked as such. Prints Markdown.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from attention_operator import parse_size
from live_memory import LiveMemory
from random_network import CLASSES, random_network
from torch import Tensor, nn, optim
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

import ccnet
from ccnet import CrissCrossAttention2d
from ccnet.baselines import NonLocalBlock2d, PublishedCrissCrossAttention2d
from ccnet.console import prepare_console
from ccnet.files import atomic_write, user_path
from ccnet.losses import OhemCrossEntropyLoss, SegmentationLoss
from ccnet.zoo import NETWORKS

Row = dict[str, float | str | None]

HEIGHT, WIDTH, CHANNELS = 97, 97, 512
"""Size of the feature map in the paper's table: a 769x769 input at output stride 8."""

PAPER = {"Non-local": (108, 1411), "two Non-local": (216, 2820), "RCCA, R=2": (16.5, 127)}
"""GFLOPs and memory (in M) that the paper reports, from its ablation on ResNet-50."""

COST_NOTES = """

Counted for one sample in float32. GFLOPs: twice the multiply-adds of the products of a forward
pass, the 1x1 projections included. Kept: what is alive between forward and backward, the output
included, the input and the parameters not. Peaks: the most of these alive at once, with the block
size of a GPU. Published: the paper's, of its ablation on ResNet-50; what its memory counts it does
not say.
"""

PURE_PYTORCH_TIMES = """
Not measured here, but reported by CCNet-Pure-Pytorch for ResNet-101 on Cityscapes:

| | its operator | the CUDA extension |
| --- | ---: | ---: |
| training, an epoch of 2975 images, batch 4, OHEM, four 2080 Ti | 14 min 32 s | 15 min 22 s |
| evaluation of 500 images, single scale, batch 1, one 2080 Ti | 28 min 44 s | 30 min 59 s |
"""


def context_blocks() -> dict[str, nn.Sequential]:
    """Returns the modules that the paper compares, on the meta device. RCCA's loops share one."""
    with torch.device("meta"):
        first, second = NonLocalBlock2d(CHANNELS), NonLocalBlock2d(CHANNELS)
        attention = CrissCrossAttention2d(CHANNELS)
    blocks = {"Non-local": nn.Sequential(first), "two Non-local": nn.Sequential(first, second)}
    for loops in (1, 2, 3):
        blocks[f"RCCA, R={loops}"] = nn.Sequential(*[attention] * loops)
    return blocks


def count_cost(block: nn.Module) -> dict[str, float]:
    """Counts GFLOPs of a forward pass and MB (1e6 bytes) of a training step, float32, batch size 1.

    Args:
        block: a module on the meta device, for the feature map of the paper's table.

    Returns:
        "gflops": of the matrix products, 2 per multiply-add. "kept_mb": live memory between forward
        and backward pass, the output included, input and parameters excluded. "peak_forward_mb" and
        "peak_step_mb": peak of the same memory during the forward pass, and during both passes.
    """
    x = torch.empty(1, CHANNELS, HEIGHT, WIDTH, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):
        block(x)
    with LiveMemory() as memory, sdpa_kernel(SDPBackend.MATH):
        output = block(x)
        kept, peak_forward = memory.live, memory.peak
        output.backward(torch.empty_like(output))
    return {
        "gflops": flops.get_total_flops() / 1e9,
        "kept_mb": kept / 1e6,
        "peak_forward_mb": peak_forward / 1e6,
        "peak_step_mb": memory.peak / 1e6,
    }


def cost_rows() -> list[Row]:
    rows: list[Row] = []
    for name, block in context_blocks().items():
        gflops, memory = PAPER.get(name, (None, None))
        published = {"published_gflops": gflops, "published_memory_m": memory}
        rows.append({"module": name, **count_cost(block), **published})
    return rows


def cost_table(rows: list[Row]) -> str:
    lines = [
        f"| added on a {HEIGHT}x{WIDTH} map, {CHANNELS} channels | GFLOPs | published "
        "| kept for backward, MB | peak of forward, MB | peak of a step, MB | published, M |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        shown = {key: "-" if value is None else value for key, value in row.items()}
        lines.append(
            "| {module} | {gflops:.2f} | {published_gflops} | {kept_mb:.1f} "
            "| {peak_forward_mb:.1f} | {peak_step_mb:.1f} | {published_memory_m} |".format(**shown)
        )
    return "\n".join(lines) + COST_NOTES


def timing_rows(arguments: argparse.Namespace) -> list[Row]:
    """Times a training step and the evaluation of an image in one network, operators in turns."""
    device, size = arguments.device, arguments.size
    model = random_network(arguments.network).to(device)
    attentions = {
        "this": model.head.cca,
        "published": PublishedCrissCrossAttention2d(model.head.cca),
    }
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loss = SegmentationLoss(main=OhemCrossEntropyLoss())
    images = torch.randn(arguments.batch, 3, *size, device=device)
    labels = torch.randint(0, CLASSES, (arguments.batch, *size), device=device)

    def train(attention: nn.Module) -> None:
        model.train().head.cca = attention
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()

    @torch.inference_mode()
    def evaluate(attention: nn.Module) -> Tensor:
        model.eval().head.cca = attention
        return model(images[:1])["out"]

    this, published = (evaluate(attention) for attention in attentions.values())
    torch.testing.assert_close(this, published, rtol=0, atol=1e-2 * float(this.abs().max()))
    work = {f"training step of batch {arguments.batch}": train, "evaluated image": evaluate}
    return [
        {"measured": name, **take_turns(step, attentions, arguments)} for name, step in work.items()
    ]


def take_turns(
    step: Callable[[nn.Module], object],
    attentions: dict[str, nn.Module],
    arguments: argparse.Namespace,
) -> Row:
    """Returns the seconds of a step with each attention: median and minimum over all rounds."""
    timers = {
        name: Timer(
            "step(attention)",
            globals={"step": step, "attention": attention},
            num_threads=arguments.threads,
        )
        for name, attention in attentions.items()
    }
    rounds = [
        {name: timer.timeit(1).median for name, timer in timers.items()}
        for _ in range(arguments.rounds)
    ]
    row: Row = {}
    for name in attentions:
        seconds = [times[name] for times in rounds]
        row[f"{name}_s"], row[f"{name}_fastest_s"] = statistics.median(seconds), min(seconds)
    return {**row, "published_over_this": row["published_s"] / row["this_s"]}


def timing_table(rows: list[Row], arguments: argparse.Namespace, machine: dict[str, object]) -> str:
    height, width = arguments.size
    lines = [
        f"| measured here, {arguments.network} at {height}x{width} | this operator, s "
        "| published formulation, s | times faster |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            "| {measured} | {this_s:.3f} ({this_fastest_s:.3f}) | {published_s:.3f} "
            "({published_fastest_s:.3f}) | {published_over_this:.3f} |".format(**row)
        )
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    notes = (
        f"\n\nMedians of {arguments.rounds} turns in one run, the fastest in brackets: float32, a "
        "step with OHEM and SGD, an\nimage in one forward pass, reading it left out. "
        f"Measured on: {where}.\n"
    )
    return "\n".join(lines) + notes + PURE_PYTORCH_TIMES


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet18")
    parser.add_argument("--size", type=parse_size, default=(385, 385), help="image size, HxW")
    parser.add_argument("--batch", type=int, default=1, help="batch size of training")
    parser.add_argument("--rounds", type=int, default=7, help="timing rounds; 0 for counts only")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=user_path, help="also write results to this file")
    return parser.parse_args()


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    is_cuda = torch.device(arguments.device).type == "cuda"
    machine: dict[str, object] = {
        "device": torch.cuda.get_device_name() if is_cuda else arguments.device,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "ccnet": ccnet.__version__,
    }
    costs = cost_rows()
    print(cost_table(costs), flush=True)
    report: dict[str, object] = {**machine, "cost": costs}
    if arguments.rounds:
        report["timing"] = times = timing_rows(arguments)
        print(timing_table(times, arguments, machine), end="")
    if arguments.json:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
