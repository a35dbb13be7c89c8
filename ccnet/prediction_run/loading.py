"""Loading: the network of a command line with all that results depend on, and bounds of memory."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from ccnet.deployment.optimized.command_line import optimized, settle_precision
from ccnet.distributed import rank_zero_first
from ccnet.inference.marked_png import Origin
from ccnet.inference.memory import GIB
from ccnet.model import CCNet
from ccnet.prediction_run.pipeline import PIXEL_BYTES
from ccnet.prediction_run.stages import Stages
from ccnet.weights.serialization import fingerprint
from ccnet.zoo import find_builder


def load(arguments: argparse.Namespace, options: dict[str, Any], device: torch.device) -> Stages:
    """Loads the network, with all that results depend on beside the picture.

    Args:
        arguments: the command line.
        options: of inference; others are the network's defaults.
        device: of the network.
    """
    with rank_zero_first():
        network: CCNet = find_builder(arguments.network)(weights=arguments.weights)
    options = settle_precision(arguments, options, device)
    protocol = network.default_protocol.replace(**options)
    model = optimized(arguments, network.to(device), protocol.precision)
    recorded = protocol.to_config() | ({"optimized": True} if arguments.optimize else {})
    if protocol.windows is None:
        recorded["memory_limit"] = arguments.memory_limit  # which may turn it into windows
        recorded |= {"batch_size": arguments.batch_size} if arguments.batch_size > 1 else {}
    return Stages(
        model,
        protocol,
        arguments.memory_limit,
        Origin("", fingerprint(network.to_weights()), json.dumps(recorded)),
        arguments.save,
        overwrite=arguments.overwrite,
        batch_size=arguments.batch_size,
    )


@contextmanager
def pictures_within(memory_limit: float) -> Iterator[None]:
    """Has Pillow refuse pictures that would take more GiB inside, beyond twice its own number."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(2, int(memory_limit * GIB / PIXEL_BYTES)) // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
