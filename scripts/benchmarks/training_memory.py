"""Memory of a training step of CCNet: batch norm, InPlaceABN, gradient checkpointing.

    python scripts/benchmarks/training_memory.py --backbone resnet101 --size 769

The networks have leaky activations. On the default device, "meta", nothing is computed and byte
counts are exact; on other devices steps are timed as well. Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from live_memory import LiveMemory, kept_for_backward
from torch import Tensor, nn

from ccnet.backbones import BACKBONES
from ccnet.console import prepare_console
from ccnet.losses import SegmentationLoss
from ccnet.model import CCNet
from ccnet.norm import convert_inplace_abn

NEGATIVE_SLOPE = 0.01


def leaky_batch_norm(model: CCNet) -> CCNet:
    """Replaces every ReLU by an in-place leaky ReLU."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
    return model


def inplace_abn(model: CCNet) -> CCNet:
    convert_inplace_abn(model, negative_slope=NEGATIVE_SLOPE)
    return model


def checkpointed(model: CCNet) -> CCNet:
    leaky_batch_norm(model).backbone.gradient_checkpointing = True
    return model


NETWORKS: dict[str, Callable[[CCNet], CCNet]] = {
    "BatchNorm, leaky ReLU in place": leaky_batch_norm,
    "InPlaceABN": inplace_abn,
    "BatchNorm, blocks checkpointed": checkpointed,
}


def measure(
    network: str, backbone: str, batch: int, size: int, device: str, steps: int
) -> dict[str, float]:
    """Measures a step: GiB saved for backward, peak GiB with parameter gradients, seconds."""
    torch.manual_seed(0)
    with torch.device(device):
        model = NETWORKS[network](CCNet(backbone, 19)).train()
        images = torch.rand(batch, 3, size, size)
        labels = torch.zeros(batch, size, size, dtype=torch.int64)
    model.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    loss_function = SegmentationLoss()

    def step() -> Tensor:
        loss: Tensor = loss_function(model(images), labels)
        return loss

    own = (*model.parameters(), *model.buffers())
    result = {"kept": kept_for_backward(step, own) / 2**30}
    with LiveMemory() as memory:
        step().backward()
    result["peak"] = memory.peak / 2**30
    seconds = []
    for _ in range(steps if device != "meta" else 0):
        synchronise(device)
        start = time.perf_counter()
        step().backward()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    if seconds:
        result["seconds"] = statistics.median(seconds)
    return result


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def as_markdown(rows: dict[str, dict[str, float]]) -> str:
    reference = next(iter(rows.values()))
    timed = "seconds" in reference
    lines = ["| network | kept for backward, GiB | less | peak, GiB |" + " step, s |" * timed]
    lines.append("| --- | ---: | ---: | ---: |" + " ---: |" * timed)
    for network, row in rows.items():
        less = 100 * (1 - row["kept"] / reference["kept"])
        line = f"| {network} | {row['kept']:.3f} | {less:.1f}% | {row['peak']:.3f} |"
        lines.append(line + (f" {row['seconds']:.3f} |" if timed else ""))
    return "\n".join(lines)


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet101")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=769, help="image height and width")
    parser.add_argument("--device", default="meta", help="meta, cpu or cuda")
    parser.add_argument("--steps", type=int, default=5, help="number of timed steps")
    settings = vars(parser.parse_args())
    print(as_markdown({network: measure(network, **settings) for network in NETWORKS}))


if __name__ == "__main__":
    main()
