"""Precision of a run: chosen where it starts, kept where it is resumed, computed in."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from ccnet import distributed
from ccnet.precision import HALVES, describe_slowness, fast_precision

logger = logging.getLogger(__name__)


def choose_precision(precision: str, device: torch.device, started_with: str | None) -> str:
    """Replaces the precision "auto" and says so in the log; warns of a precision that is slow.

    All ranks must call this, and train in the precision that rank 0 chooses.

    Args:
        precision: that of the recipe that was asked for.
        device: the device of the model.
        started_with: the precision of the run to resume; None for a new run.
    """
    chosen, why = precision, ""
    is_first = distributed.rank() == 0
    if chosen == "auto" and started_with is not None:
        chosen, why = started_with, "with which the run was started"
    elif chosen == "auto":
        if is_first:
            chosen = fast_precision(device)
            slowness = describe_slowness("bfloat16", device, training=True)
            why = slowness or f"at which this {device.type} device is faster than at float32"
        chosen = distributed.all_gather(chosen)[0]
    if is_first:
        if why:
            logger.info("precision: %s (%s)", chosen, why)
        if slowness := describe_slowness(chosen, device, training=True):
            logger.warning("training will be slow: %s", slowness)
    return chosen


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Returns a context manager in which networks compute in a precision, not "auto"."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, HALVES[precision])
