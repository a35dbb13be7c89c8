"""Numerical precision of criss-cross attention and of its published formulation.

    python scripts/check_precision.py

First runs the check of CCNet-Pure-Pytorch on every map from 2x2 to 40x40: queries 1, keys 2, values
3 should give exactly 3, and a gradient of the values of exactly 1. Then compares random inputs with
float64, in units in the last place of the largest value.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ccnet import criss_cross_attention
from ccnet.attention_kernel import multiplication
from ccnet.baselines import published_criss_cross_attention
from ccnet.console import prepare_console

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]
OPERATORS: dict[str, Operator] = {
    "this": criss_cross_attention,
    "published": published_criss_cross_attention,
}


def constant_maps(operator: Operator, largest: int) -> tuple[int, int, float, float, int]:
    """Counts maps with exact output and with exact gradient; also returns worst errors, total."""
    exact_output = exact_gradient = maps = 0
    worst_output = worst_gradient = 0.0
    for height in range(2, largest + 1):
        for width in range(2, largest + 1):
            query = torch.ones(1, 8, height, width)
            value = torch.full((1, 8, height, width), 3.0, requires_grad=True)
            output = operator(query, 2 * query, value)
            (gradient,) = torch.autograd.grad(output.sum(), value)
            output_error = (output - 3).abs().max().item()
            gradient_error = (gradient - 1).abs().max().item()
            maps += 1
            exact_output += output_error == 0
            exact_gradient += gradient_error == 0
            worst_output = max(worst_output, output_error)
            worst_gradient = max(worst_gradient, gradient_error)
    return exact_output, exact_gradient, worst_output, worst_gradient, maps


def random_errors(
    operator: Operator, dtype: torch.dtype, scale: float, seed: int
) -> dict[str, float]:
    """Measures the largest errors of output and gradients, in ulp of the largest value."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        (factor * torch.randn(1, channels, 17, 23, generator=generator)).to(dtype).requires_grad_()
        for factor, channels in ((scale, 16), (scale, 16), (1, 32))
    ]
    upstream = torch.randn(1, 32, 17, 23, generator=generator).to(dtype)
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact_output = published_criss_cross_attention(*wide)
    exact = [exact_output, *torch.autograd.grad(exact_output, wide, upstream.double())]
    output = operator(*inputs)
    results = [output, *torch.autograd.grad(output, inputs, upstream)]
    errors = {}
    for name, wanted, got in zip(("out", "dq", "dk", "dv"), exact, results, strict=True):
        if not got.isfinite().all():
            raise ArithmeticError(f"{name} is not finite for {dtype}, scale {scale}, seed {seed}")
        unit = torch.finfo(dtype).eps * wanted.abs().max().item()
        errors[name] = (got.double() - wanted).abs().max().item() / unit
    return errors


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=40, help="side of the largest constant map")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument(
        "--batched", action="store_true", help="compute in the schedule of other devices"
    )
    arguments = parser.parse_args()
    if arguments.batched:
        multiplication.BLOCKWISE.clear()
    print("| operator | output exactly 3 | worst error | gradient exactly 1 | worst error |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, operator in OPERATORS.items():
        output, gradient, worst_output, worst_gradient, maps = constant_maps(
            operator, arguments.largest
        )
        print(
            f"| {name} | {output} of {maps} | {worst_output:.2g} "
            f"| {gradient} of {maps} | {worst_gradient:.2g} |"
        )
    print("\nLargest error over all seeds (median over seeds), in units in the last place:\n")
    print("| operator | dtype | energies about | output | query grad | key grad | value grad |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for scale in (0.5, 9.0):
            for name, operator in OPERATORS.items():
                if dtype == torch.float64 and name == "published":
                    continue
                runs = [
                    random_errors(operator, dtype, scale, seed) for seed in range(arguments.seeds)
                ]
                cells = [
                    f"{max(run[key] for run in runs):.2f} "
                    f"({statistics.median(run[key] for run in runs):.2f})"
                    for key in ("out", "dq", "dk", "dv")
                ]
                label = str(dtype).removeprefix("torch.")
                print(f"| {name} | {label} | {4 * scale**2:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
