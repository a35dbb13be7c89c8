"""The operator in graphs: compiled ones hold it as one node, exported ones as plain operations."""

import pytest
import reference
import torch
import torch._dynamo.testing
from live_memory import kept_for_backward
from reference import random_inputs
from schedules import computed

from ccnet import CrissCrossAttention2d, criss_cross_attention

tells_exporting = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"), reason="this PyTorch cannot tell who compiles"
)


@tells_exporting
@pytest.mark.parametrize("schedule", ["blockwise", "batched"])
def test_a_compiled_step_is_the_eager_one_and_keeps_as_much(schedule):
    torch._dynamo.reset()
    compiled = torch.compile(criss_cross_attention, fullgraph=True, backend="aot_eager")
    inputs = random_inputs((9, 13), batch=2, channels=(4, 8), dtype=torch.float32)
    with computed(schedule):
        expected, actual = criss_cross_attention(*inputs), compiled(*inputs)
        assert torch.equal(actual, expected)
        assert actual.stride() == expected.stride()
        weights = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, inputs, weights)
        for one, other in zip(torch.autograd.grad(actual, inputs, weights), wanted, strict=True):
            assert torch.equal(one, other)
        kept = [
            kept_for_backward(lambda operator=operator: operator(*inputs), inputs)
            for operator in (criss_cross_attention, compiled)
        ]
    assert kept[0] == kept[1]


@tells_exporting
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiles_to_one_graph_for_many_sizes():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criss_cross_attention, fullgraph=True, dynamic=True, backend=counter)
    compiled(*random_inputs((11, 12)))
    graphs = counter.frame_count
    for shape in [(7, 6), (4, 9), (8, 10)]:
        inputs = random_inputs(shape)
        actual = compiled(*inputs)
        expected = reference.criss_cross_attention(*inputs)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
        weights = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, inputs, weights)
        torch.testing.assert_close(torch.autograd.grad(actual, inputs, weights), wanted)
        assert counter.frame_count == graphs


@tells_exporting
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiles_under_functional_transforms():
    torch._dynamo.reset()
    query, key, value = (tensor.detach() for tensor in random_inputs((3, 4), batch=6))
    per_sample = [tensor.unflatten(0, (3, 2)) for tensor in (query, key, value)]

    def gradient(query):
        return torch.func.grad(lambda q: criss_cross_attention(q, key, value).square().sum())(query)

    mapped = torch.vmap(criss_cross_attention)
    for function, inputs in ((mapped, per_sample), (gradient, [query])):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), function(*inputs))


class Operator(torch.nn.Module):
    def forward(self, query, key, value):
        return criss_cross_attention(query, key, value)


def named_sizes(smallest):
    sizes = {"n": (1, 64), "h": (smallest, 2048), "w": (smallest, 2048)}
    dims = [torch.export.Dim(name, min=low, max=high) for name, (low, high) in sizes.items()]
    return dict(zip((0, 2, 3), dims, strict=True))


def test_exports_plain_operations_with_named_sizes():
    module = CrissCrossAttention2d(8, reduction=2).eval()
    torch.nn.init.constant_(module.gamma, 0.7)
    operator = Operator()
    for function, channels in ((module, (8,)), (operator, (3, 3, 5))):
        inputs = tuple(torch.randn(2, count, 40, 37) for count in channels)
        shapes = [named_sizes(33)] * len(channels)
        exported = torch.export.export(function, inputs, dynamic_shapes=shapes, strict=False)
        assert "ccnet" not in str(exported.graph)
        for batch, height, width in [(1, 33, 41), (3, 35, 33)]:
            inputs = tuple(torch.randn(batch, count, height, width) for count in channels)
            torch.testing.assert_close(exported.module()(*inputs), function(*inputs))
