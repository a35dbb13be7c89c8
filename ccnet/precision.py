"""Precision: which of float32 and half precision a device computes faster, found out once."""

import logging
import math
import sys
import time
from functools import cache
from threading import RLock

import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The names of dtypes for autocast. Without it, precision is called "float32"."""

_ROUNDS, _SECONDS = 8, 0.25
"""Bounds of a measurement, of which the shortest times count: other processes disturb it."""

_cpu_clock = time.perf_counter if sys.platform == "win32" else time.thread_time
"""Time that other processes take does not count; Windows counts it in steps of 16 ms."""

_once = RLock()
"""Held so that threads neither disturb a measurement nor repeat it."""


def fast_precision(device: torch.device, *, training: bool = True) -> str:
    """Returns the precision to compute in: "bfloat16" where it is faster than "float32"."""
    return "bfloat16" if slowdown("bfloat16", device, training=training) < 1 else "float32"


def slowdown(precision: str, device: torch.device, *, training: bool) -> float:
    """Returns the time that convolutions take in a precision, as a multiple of that in float32.

    It is measured, in some hundredths of a second and once per process. CUDA devices are asked:
    the answer is 0 if they have instructions for the dtype, and infinity if not.

    Args:
        precision: "float32", or a name in `HALVES`.
        device: the device.
        training: whether gradients are computed too.
    """
    if precision not in HALVES:
        return 1.0
    with _once:
        return _slowdown(HALVES[precision], device.type, training)


def describe_slowness(precision: str, device: torch.device, *, training: bool) -> str:
    """Says how slow the device is in a precision; empty if it is not slower than in float32."""
    factor = slowdown(precision, device, training=training)
    if factor <= 1:
        return ""
    cost = f"takes {factor:.1f} times as long as float32" if factor < math.inf else "is emulated"
    return f"{precision} {cost} on this {device.type} device"


def warn_of_slow_inference(precision: str, device: torch.device) -> None:
    """Logs a warning if the device is slow in a precision, once per process."""
    with _once:
        _warn_of_slow_inference(precision, device)


@cache
def _warn_of_slow_inference(precision: str, device: torch.device) -> None:
    if slowness := describe_slowness(precision, device, training=False):
        logger.warning("%s", slowness)


@cache
def _slowdown(dtype: torch.dtype, device: str, training: bool) -> float:
    if device == "cuda":
        supported = dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(False)
        return 0.0 if supported else math.inf
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # several would wait for each other wherever one is disturbed
        return _measured(dtype, device, training)
    except (RuntimeError, TypeError):  # the device has no such dtype
        return math.inf
    finally:
        torch.set_num_threads(threads)


def _measured(dtype: torch.dtype, device: str, training: bool) -> float:
    shortest = {torch.float32: math.inf, dtype: math.inf}
    started = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= 2 and time.perf_counter() > started + _SECONDS:
            break
        for each, seconds in shortest.items():
            shortest[each] = min(seconds, _time_of_convolution(each, device, training))
    return shortest[dtype] / shortest[torch.float32]


def _time_of_convolution(dtype: torch.dtype, device: str, training: bool) -> float:
    side, clock = (32, _cpu_clock) if device == "cpu" else (256, time.perf_counter)
    options = {"dtype": dtype, "device": device, "requires_grad": training}
    pixels = torch.ones(1, 64, side, side, **options)  # type: ignore[call-overload]
    kernel = torch.ones(64, 64, 3, 3, **options)  # type: ignore[call-overload]
    with torch.autocast(device, enabled=False), torch.set_grad_enabled(training):
        batch = pixels.contiguous(memory_format=torch.channels_last)
        started = clock()
        output = F.conv2d(batch, kernel, padding=1)
        if training:
            output = torch.autograd.grad(output.sum(), (pixels, kernel))[1]
        output.sum().item()  # waits for the device
        return clock() - started
