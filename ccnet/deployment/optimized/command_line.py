"""Command-line option for the optimised copy of a network."""

import argparse
from typing import Any

import torch

from ccnet import distributed
from ccnet.deployment.optimized.optimization import optimize_for_inference
from ccnet.model import CCNet
from ccnet.precision import HALVES, fast_precision

FASTEST = "the one that the device is faster in"


def add_optimize_option(parser: argparse.ArgumentParser, default: str = FASTEST) -> None:
    """Adds `--optimize`, and says what its default precision is."""
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="use a faster copy of the network, with norms folded, whose weights are in "
        f"--precision (default then: {default})",
    )


def settle_precision(
    arguments: argparse.Namespace, options: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Returns the inference options; with `--optimize`, a precision is among them.

    All ranks must call this; they compute in the precision that rank 0 chooses.
    """
    if not arguments.optimize or "precision" in options:
        return options
    fastest = distributed.all_gather(fast_precision(device, training=False))[0]
    return {**options, "precision": fastest}


def optimized(arguments: argparse.Namespace, model: CCNet, precision: str) -> CCNet:
    """Returns the network, or its optimised copy in this precision if one is asked for."""
    if not arguments.optimize:
        return model
    return optimize_for_inference(model, HALVES.get(precision, torch.float32))
