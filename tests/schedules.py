"""Ways to have the operator computed on a CPU as it is on other devices."""

import contextlib

import pytest
import torch

from ccnet.attention_kernel import multiplication, small_maps

SCHEDULES = ("blockwise", "small maps", "batched", "half operands")
"""On a CPU; there for small maps; on other devices; on those that multiply halves into float32."""


@contextlib.contextmanager
def computed(schedule):
    """Has the operator computed in one of the schedules."""
    with pytest.MonkeyPatch.context() as patch:
        if schedule in ("blockwise", "small maps"):
            limit = 10**9 if schedule == "small maps" else 0
            patch.setattr(small_maps, "LIMIT", limit)
            patch.setattr(small_maps, "LIMIT_OF_HALVES", limit)
        else:
            patch.setattr(multiplication, "BLOCKWISE", set())
        if schedule == "half operands":
            patch.setattr(multiplication, "widens", lambda device_type: True)
            patch.setattr(multiplication, "multiply_halves", _multiply_halves)
        yield


def _multiply_halves(left, right, out):
    assert left.dtype != torch.float32
    out.copy_(left.to(out.dtype) @ right.to(out.dtype))
