"""The operator in graphs: compiled ones hold it as one node, exported ones as plain operations."""

import itertools

import pytest
import reference
import torch
import torch._dynamo.testing
from live_memory import kept_for_backward
from reference import random_inputs
from schedules import SCHEDULES, computed
from torch._subclasses.fake_tensor import FakeTensorMode

from ccnet import CrissCrossAttention2d, CrissCrossAttention3d, criss_cross_attention
from ccnet.attention_kernel import autograd, multiplication

tells_exporting = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"), reason="this PyTorch cannot tell who compiles"
)


@tells_exporting
@pytest.mark.parametrize(("schedule", "autocast"), [("blockwise", True), ("batched", False)])
def test_a_compiled_step_is_the_eager_one_and_keeps_as_much(schedule, autocast):
    torch._dynamo.reset()
    compiled = torch.compile(criss_cross_attention, fullgraph=True, backend="aot_eager")
    inputs = random_inputs((9, 13), batch=2, channels=(4, 8), dtype=torch.float32)
    with computed(schedule), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
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


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("instructions", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_are_told_the_true_layouts(monkeypatch, schedule, instructions, dtype):
    """Of what the operator and its backward return, for dense and for sliced inputs."""
    monkeypatch.setattr(multiplication, "has_instructions", lambda dtype: instructions)
    options = (torch.contiguous_format, torch.channels_last), (5, 6), (7, 8), (1, 3)
    for memory_format, height, width, batch in itertools.product(*options):
        stored = [torch.randn(batch, channels, 6, 8) for channels in (4, 4, 5)]
        stored = [tensor.to(dtype, memory_format=memory_format) for tensor in stored]
        inputs = [tensor[:, :, :height, :width] for tensor in stored]
        with computed(schedule):
            results = described(inputs)
            with FakeTensorMode() as fake:
                told = described([fake.from_tensor(tensor) for tensor in inputs])
        assert told == results


def described(inputs):
    outputs = autograd._forward_operator(*inputs)
    gradients = autograd._backward_operator(outputs[0], *inputs, outputs[1])
    return [(x.shape, x.stride(), x.dtype) for x in (*outputs, *gradients)]


@tells_exporting
def test_batches_of_all_sizes_share_a_graph():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criss_cross_attention, fullgraph=True, backend=counter)
    with computed("batched"):
        for batch in (2, 3, 4, 7):
            inputs = random_inputs((3, 4), batch=batch)
            torch.autograd.grad(compiled(*inputs).sum(), inputs)
        assert counter.frame_count == 2
        marked = [tensor.detach() for tensor in random_inputs((5, 6), batch=5)]
        for tensor in marked:
            torch._dynamo.mark_dynamic(tensor, 0)
        assert torch.equal(compiled(*marked), criss_cross_attention(*marked))


@tells_exporting
def test_gradients_of_graphs_that_autograd_runs_can_be_differentiated():
    torch._dynamo.reset()
    inputs = random_inputs((3, 4))
    compiled = torch.compile(criss_cross_attention, fullgraph=True, backend="eager")
    second = []
    for operator in (criss_cross_attention, compiled):
        gradients = torch.autograd.grad(operator(*inputs).sum(), inputs, create_graph=True)
        energy = sum(gradient.square().sum() for gradient in gradients)
        second.append(torch.autograd.grad(energy, inputs))
    for actual, expected in zip(*second, strict=True):
        torch.testing.assert_close(actual, expected)


@tells_exporting
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiles_to_one_graph_for_many_sizes():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criss_cross_attention, fullgraph=True, dynamic=True, backend=counter)
    compiled(*random_inputs((11, 12)))
    graphs = counter.frame_count
    for batch, shape in [(3, (7, 6)), (2, (4, 9)), (5, (8, 10))]:
        inputs = random_inputs(shape, batch=batch)
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


def named_sizes(axes):
    sizes = {"n": (1, 64), **dict.fromkeys("thw"[3 - axes :], (33, 2048))}
    dims = [torch.export.Dim(name, min=low, max=high) for name, (low, high) in sizes.items()]
    return dict(zip((0, *range(2, axes + 2)), dims, strict=True))


def channels_last(*shape):
    return torch.randn(shape).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("module", "channels", "make"),
    [
        (Operator(), (3, 3, 5), torch.randn),
        (Operator(), (3, 3, 5), channels_last),
        (CrissCrossAttention2d(8, reduction=2), (8,), torch.randn),
        pytest.param(
            *(CrissCrossAttention3d(8, reduction=2), (8,), torch.randn), marks=pytest.mark.slow
        ),
    ],
)
def test_exports_plain_operations_with_named_sizes(module, channels, make):
    axes = 3 if isinstance(module, CrissCrossAttention3d) else 2
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = tuple(make(2, count, *(34, 35, 36)[:axes]) for count in channels)
    shapes = [named_sizes(axes)] * len(channels)
    exported = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    assert "ccnet" not in str(exported.graph)
    for batch, *size in [(1, 33, 37, 34), (3, 35, 33, 33)]:
        inputs = tuple(make(batch, count, *size[:axes]) for count in channels)
        torch.testing.assert_close(exported.module()(*inputs), module(*inputs))
