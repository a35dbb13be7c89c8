"""Comparison of an exported file with the network that it was made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.deployment.exported.contract import LABELS, Contract
from ccnet.deployment.exported.programs import random_batch
from ccnet.schema import reason_of

UNTRACED = ((1, 65, 131), (2, 98, 60), (1, 129, 97), (1, 33, 33), (1, 192, 256), (1, 257, 193))
"""Number, height and width of pictures that no program was traced at, most of them odd.

The smallest and larger ones are among them, and one of many factors: networks may treat such sizes
in a way of their own.
"""

LIMITS = {
    torch.float64: (1e-4, 0.999),
    torch.float32: (1e-4, 0.999),
    torch.float16: (2e-2, 0.99),
    torch.bfloat16: (1e-1, 0.95),
}
"""By precision: largest difference, relative to the largest logit; least share of equal labels."""


LEAST_IN_INTEGERS = 0.9
"""Least share of equal labels on pictures: the bundled network has more than 0.97 on each."""


@dataclass(frozen=True)
class Comparison:
    """How a file and a network agree on a batch.

    Attributes:
        size: number, height and width of the pictures.
        difference: the largest one of logits, relative to the largest logit; None for labels.
        equal: the share of pixels with the same label, 0..1.
    """

    size: tuple[int, ...]
    difference: float | None
    equal: float

    def __str__(self) -> str:
        count, height, width = self.size
        of_logits = "" if self.difference is None else f"difference {self.difference:.1e}, "
        return f"{count} x {width}x{height}: {of_logits}{self.equal:.2%} of labels equal"


def sizes_to_compare(contract: Contract) -> list[tuple[int, ...]]:
    """Returns sizes that a file takes, of which it was traced at none if it takes others."""
    ranges = contract.sizes
    sizes = [
        tuple(min(max(n, low), high) for n, (low, high) in zip(size, ranges, strict=True))
        for size in UNTRACED
    ]
    return list(dict.fromkeys(sizes))


@torch.no_grad()
def compare_labels(
    run: Callable[[Tensor], Tensor],
    program: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
) -> Comparison:
    """Compares the labels of a file in 8-bit integers with those of the network, on pictures.

    Raises:
        ValueError: if they do not agree.
    """
    equal, total, size = 0, 0, (0, 0, 0)
    for batch in batches:
        found, expected = run(batch), program(batch)
        if expected.dim() == 4:
            found, expected = found.argmax(1), expected.argmax(1)
        equal += int((found == expected).sum())
        total += expected.numel()
        size = (size[0] + len(expected), *expected.shape[1:])
    result = Comparison(size, None, equal / max(1, total))
    if result.equal < LEAST_IN_INTEGERS:
        raise ValueError(
            "in 8-bit integers the file does not agree with the network on the pictures: "
            f"{result.equal:.1%} of labels equal (limit {LEAST_IN_INTEGERS:.0%})"
        )
    return result


@torch.no_grad()
def compare(
    run: Callable[[Tensor], Tensor],
    program: Callable[[Tensor], Tensor],
    contract: Contract,
    size: tuple[int, ...],
    precision: torch.dtype,
) -> Comparison:
    """Runs a file and a network on one batch.

    Raises:
        ValueError: if they do not agree.
    """
    batch = random_batch(size, contract, seed=sum(size))
    expected = program(batch)
    try:
        found = run(batch)
    except Exception as error:
        raise ValueError(f"the file does not run on {size}: {reason_of(error)}") from error
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(
            f"the file gives {found.dtype} {tuple(found.shape)}, and the network "
            f"{expected.dtype} {tuple(expected.shape)}"
        )
    difference = None
    if contract.output != LABELS:
        largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        difference = ((found - expected).abs().max() / largest).item()
        found, expected = found.argmax(1), expected.argmax(1)
    equal = (found == expected).double().mean().item()
    result = Comparison(size, difference, equal)
    most, least = LIMITS[precision]
    if not ((difference is None or difference <= most) and equal >= least):
        raise ValueError(
            f"the file does not agree with the network: {result} (limits {most:g}, {least:.1%})"
        )
    return result
