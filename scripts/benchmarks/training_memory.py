"""Measures what a training step of CCNet keeps for backward, by the kind of normalisation.

    python scripts/benchmarks/training_memory.py --backbone resnet101 --size 769

The same leaky network on BatchNorm with activations in place, on InPlaceABN, and on BatchNorm with
gradient checkpointing of the backbone's blocks. On the device "meta", the default, nothing is
computed and bytes are exact; on another one a step is timed as well. Prints a Markdown table.
"""

import argparse
import functools
import statistics
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from ccnet.backbone import BACKBONES
from ccnet.losses import SegmentationLoss
from ccnet.model import CCNet
from ccnet.norm import convert_inplace_abn

NEGATIVE_SLOPE = 0.01


def leaky_batch_norm(model: CCNet) -> CCNet:
    """Makes every ReLU a leaky one that works in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
    return model


def inplace_abn(model: CCNet) -> CCNet:
    convert_inplace_abn(model, negative_slope=NEGATIVE_SLOPE)
    return model


def checkpointed(model: CCNet) -> CCNet:
    """Recomputes the inside of every residual block of the leaky network in backward."""
    leaky_batch_norm(model)
    backbone = model.backbone
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        for block in stage.children():
            block.forward = functools.partial(
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )
    return model


NETWORKS: dict[str, Callable[[CCNet], CCNet]] = {
    "BatchNorm, leaky ReLU in place": leaky_batch_norm,
    "InPlaceABN": inplace_abn,
    "BatchNorm, blocks checkpointed": checkpointed,
}


class LiveMemory(TorchDispatchMode):
    """The largest sum of the storages made inside that were alive at one time, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {identity(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and identity(tensor) not in given | self.known:
                storage = tensor.untyped_storage()
                self.known.add(identity(tensor))
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, identity(tensor), storage.nbytes())
        return result

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def kept_for_backward(model: nn.Module, step: Callable[[], Tensor]) -> int:
    """The bytes that autograd keeps after `step`, parameters and buffers apart."""
    own = {identity(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if identity(tensor) not in own:
            kept[identity(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    del loss
    return sum(kept.values())


def measure(
    network: str, backbone: str, batch: int, size: int, device: str, steps: int
) -> dict[str, float]:
    """GiB kept and at the peak of a step, gradients of parameters included; seconds of a step."""
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

    result = {"kept": kept_for_backward(model, step) / 2**30}
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet101")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=769, help="pixels along both sides")
    parser.add_argument("--device", default="meta", help="meta, cpu, cuda")
    parser.add_argument("--steps", type=int, default=5, help="that are timed")
    settings = vars(parser.parse_args())
    print(as_markdown({network: measure(network, **settings) for network in NETWORKS}))


if __name__ == "__main__":
    main()
