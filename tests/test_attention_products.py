"""Batched products: written or added, into views, of halves."""

import itertools

import pytest
import torch
from schedules import SCHEDULES, computed
from torch._subclasses.fake_tensor import FakeTensorMode

from ccnet import criss_cross_attention
from ccnet.attention_kernel.multiplication import multiply, widens


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("wider", [False, True])
def test_products_are_written_or_added_wherever_they_go(schedule, add, wider):
    dtype = torch.bfloat16 if wider else torch.float32
    for lines, step in itertools.product([(3,), (2, 3)], [1, 2]):
        left = torch.randn(*lines, 4, 5).to(dtype)
        right = torch.randn(*lines, 5, 6).to(dtype)
        out = torch.randn(*lines, 4, 6 * step)[..., ::step]
        expected = left.float() @ right.float() + (out if add else 0)
        with computed(schedule):
            multiply(left, right, out, add=add)
        # In bfloat16 first, unless the device has products of halves in float32.
        tolerance = 1e-5 if not wider or schedule == "half operands" else 5e-2
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


def test_tensors_without_data_leave_nothing_behind():
    """What is found out about a device, once a process, is found out on none of them."""
    widens.cache_clear()
    half = torch.randn(2, 3, 4, 5).half()
    with computed("batched"):
        with FakeTensorMode() as fake:
            criss_cross_attention(*[fake.from_tensor(half)] * 3)
        output = criss_cross_attention(half, half, half)
    torch.testing.assert_close(output, criss_cross_attention(half, half, half), rtol=0, atol=1e-2)
