"""Memory of the operator off the CPU, counted on the meta device; layouts of what it returns."""

import math

import pytest
import torch
from live_memory import LiveMemory
from schedules import computed

from ccnet import criss_cross_attention
from ccnet.attention_kernel import batched
from ccnet.attention_kernel.multiplication import widens
from ccnet.baselines import published_criss_cross_attention


def meta_inputs(batch, channels, size, dtype):
    shapes = [(batch, count, *size) for count in channels]
    return [torch.empty(s, dtype=dtype, device="meta", requires_grad=True) for s in shapes]


def size_in_bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("batch", [2, 8])
def test_a_step_needs_no_more_than_that_of_the_published_formulation(batch, dtype):
    inputs = meta_inputs(batch, (64, 64, 512), (97, 97), dtype)
    peaks = []
    for operator in (criss_cross_attention, published_criss_cross_attention):
        with LiveMemory() as memory:
            output = operator(*inputs)
            torch.autograd.grad(output, inputs, torch.empty_like(output))
        peaks.append(memory.peak)
    # Before PyTorch 2.8, halves are widened for their products.
    most = 1 if widens("meta") else 1.02
    assert peaks[0] <= most * peaks[1]


@pytest.mark.parametrize(("dtype", "times"), [(torch.float32, (1, 3)), (torch.float16, (2, 3))])
@pytest.mark.parametrize(
    ("batch", "size", "limit"),
    [(24, (16, 24), 3.5), (1, (64, 16), 0.2), (4, (64, 16), 0.2), (1, (40, 8, 16), 0.3)],
)
def test_weights_at_a_time_are_limited(monkeypatch, batch, size, limit, dtype, times):
    """The limit is in samples; sizes are multiples of 8, so that no padding counts."""
    monkeypatch.setattr(batched, "LIMIT", int(limit * math.prod(size) * sum(size)))
    inputs = meta_inputs(batch, (1, 1, 1), size, dtype)
    with LiveMemory() as forward:
        output = criss_cross_attention(*inputs)
    upstream = torch.empty_like(output)
    with LiveMemory() as backward:
        torch.autograd.grad(output, inputs, upstream)
    others = (len(size) - 1) * size_in_bytes(inputs)
    for memory, most in zip((forward, backward), times, strict=True):
        assert memory.peak <= most * 4 * batched.LIMIT + others


@pytest.mark.parametrize("schedule", ["blockwise", "batched"])
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_are_channels_last_if_inputs_are_or_if_computed_so(schedule, batch):
    shapes = [(batch, channels, 5, 7) for channels in (4, 4, 6)]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        inputs = [torch.randn(s).to(memory_format=memory_format) for s in shapes]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        with computed(schedule):
            output = criss_cross_attention(*inputs)
            gradients = torch.autograd.grad(output, inputs, torch.ones_like(output))
        assert output.is_contiguous(memory_format=memory_format)
        computed_so = schedule == "blockwise" or batch == 1
        expected = torch.channels_last if computed_so else memory_format
        assert all(tensor.is_contiguous(memory_format=expected) for tensor in gradients)
