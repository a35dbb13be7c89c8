"""Converting a network changes how it is computed, not what it computes."""

import copy
import re

import pytest
import torch
import training_memory
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.norm import (
    InPlaceABN,
    SyncBatchNorm,
    convert_inplace_abn,
    convert_sync_batchnorm,
    restore_batchnorm,
)

SLOPE = 0.01


def make_leaky(network):
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(SLOPE, inplace=True))
    return network


def negate_some(network):
    """Makes every third norm weight negative, as pretrained networks have some."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.weight.data[::3] *= -1
    return network.train()


@pytest.fixture
def relu_network(make_model):
    """A small CCNet with a deep stem, in training mode, in float64."""
    config = {"backbone_options": {"stem_widths": [8, 8]}, "aux_channels": 16, "dropout": 0.0}
    return negate_some(make_model(3, negative_slope=0.0, **config)).double()


@pytest.fixture
def network(relu_network):
    return make_leaky(relu_network)


@pytest.fixture
def blocks():
    """Two bottlenecks, the first with a convolution in its shortcut."""
    downsample = nn.Sequential(nn.Conv2d(6, 16, 1, 2), nn.BatchNorm2d(16))
    layers = nn.Sequential(Bottleneck(6, 4, 2, downsample), Bottleneck(16, 4))
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return negate_some(make_leaky(layers)).double()


def step(network, x):
    """Outputs, the input's gradient and the parameters' gradients, by their names."""
    x = x.clone().requires_grad_()
    network.zero_grad()
    outputs = network(x)
    outputs = outputs if isinstance(outputs, dict) else {"out": outputs}
    generator = torch.Generator().manual_seed(5)
    sum(
        (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum()
        for output in outputs.values()
    ).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return outputs, x.grad, gradients


def assert_same_function(converted, original, x):
    """Gradients too; where the conversion changed a parameter's sign, its gradient's changes."""
    parameters = dict(original.named_parameters())
    signs = {
        name: torch.where(parameter * parameters[name] < 0, -1.0, 1.0)
        for name, parameter in converted.named_parameters()
    }
    assert any((sign < 0).any() for sign in signs.values())
    outputs, input_gradient, gradients = step(converted, x)
    expected, expected_input_gradient, expected_gradients = step(original, x)
    for name, gradient in expected_gradients.items():
        expected_gradients[name] = gradient * signs[name]
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(input_gradient, expected_input_gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "shape"), [("network", (2, 3, 17, 25)), ("blocks", (3, 6, 5, 4))])
def test_inplace_network_equals_the_leaky_one(request, name, shape, training):
    network = request.getfixturevalue(name)
    copied = copy.deepcopy(network)
    before = tensors_of(copied)
    converted = convert_inplace_abn(copied)
    assert tensors_of(converted) == before
    kinds = {type(module) for module in converted.modules()}
    assert InPlaceABN in kinds
    assert not kinds & {nn.BatchNorm2d, nn.LeakyReLU, BasicBlock, Bottleneck}
    x = torch.randn(shape, dtype=torch.float64)
    assert_same_function(converted.train(training), network.train(training), x)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), network(x), rtol=0, atol=1e-10)


def test_frozen_norms_keep_their_statistics(blocks):
    converted = convert_inplace_abn(blocks.eval())
    before = {name: buffer.clone() for name, buffer in converted.named_buffers()}
    step(converted, torch.randn(2, 6, 5, 4, dtype=torch.float64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in converted.named_buffers())


def test_relu_becomes_leaky_on_request(relu_network):
    converted = convert_inplace_abn(copy.deepcopy(relu_network), negative_slope=SLOPE)
    leaky = make_leaky(relu_network)
    assert_same_function(converted, leaky, torch.randn(2, 3, 17, 25, dtype=torch.float64))


def test_relu_is_refused_by_name(relu_network, blocks):
    message = r"backbone\.stem\.2 is ReLU.*cannot be inverted.*negative_slope, such as 0\.01"
    with pytest.raises(ValueError, match=message):
        convert_inplace_abn(relu_network)
    with pytest.raises(ValueError, match="must be positive"):
        convert_inplace_abn(relu_network, negative_slope=0.0)
    assert not any(isinstance(module, InPlaceABN) for module in relu_network.modules())
    blocks[1].relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"1\.relu is ReLU"):
        convert_inplace_abn(blocks)
    assert type(blocks[0]) is Bottleneck


def tensors_of(network):
    """Parameters and buffers as objects, in their order."""
    return [(name, id(tensor)) for name, tensor in network.state_dict(keep_vars=True).items()]


def test_weights_below_eps_become_eps(blocks):
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    blocks[1].bn3.weight.data.zero_()
    expected = blocks(x)
    converted = convert_inplace_abn(copy.deepcopy(blocks))
    assert not converted[1].bn3.weight.any()
    difference = (converted(x) - expected).abs().max()
    assert 0 < difference < 1e-4


def test_restoring_undoes_the_conversion(network):
    x = torch.randn(2, 3, 17, 25, dtype=torch.float64)
    converted = convert_inplace_abn(copy.deepcopy(network))
    step(converted, x)
    converted.backbone.layer1[0].bn1.weight.data[1] *= -1
    restored = restore_batchnorm(copy.deepcopy(converted))
    assert list(map(type, restored.modules())) == list(map(type, network.modules()))
    fresh = copy.deepcopy(network)
    fresh.load_state_dict(restored.state_dict())
    torch.testing.assert_close(converted.eval()(x), fresh.eval()(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("convert", "layers"),
    [
        (restore_batchnorm, [InPlaceABN(4), nn.Conv2d(4, 4, 1)]),
        (convert_inplace_abn, [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)]),
    ],
    ids=["own InPlaceABN", "cannot be fused"],
)
def test_other_layers_stay(convert, layers):
    assert list(map(type, convert(nn.Sequential(*layers)))) == list(map(type, layers))


def test_sync_conversion_keeps_everything(network):
    network.norms = nn.Sequential(
        nn.BatchNorm1d(3, eps=1e-3, momentum=None, dtype=torch.float16).eval(),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm3d(3, track_running_stats=False),
    )
    originals, tensors = dict(network.named_modules()), tensors_of(network)
    expected = copy.deepcopy(network.state_dict())
    assert convert_sync_batchnorm(network) is network
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
    for name, module in network.named_modules():
        if isinstance(module, SyncBatchNorm):
            for setting in ("eps", "momentum", "affine", "track_running_stats", "training"):
                assert getattr(module, setting) == getattr(originals[name], setting)
    assert tensors_of(network) == tensors
    torch.testing.assert_close(network.state_dict(), expected, rtol=0, atol=0)


def test_sync_and_inplace_conversions_combine(blocks):
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    inplace_first = convert_sync_batchnorm(convert_inplace_abn(copy.deepcopy(blocks)))
    sync_first = convert_inplace_abn(convert_sync_batchnorm(copy.deepcopy(blocks)))
    for converted in (inplace_first, sync_first):
        assert converted[0].downsample[1].synchronized
        assert converted[1].bn3.synchronized
        torch.testing.assert_close(converted(x), blocks(x), rtol=0, atol=1e-10)
    assert isinstance(restore_batchnorm(sync_first)[0].bn1, SyncBatchNorm)


def test_single_or_shared_norm_is_converted():
    assert isinstance(convert_sync_batchnorm(nn.BatchNorm1d(3)), SyncBatchNorm)
    norm = nn.BatchNorm2d(3)
    pair = convert_sync_batchnorm(nn.ModuleList([norm, norm]))
    assert isinstance(pair[0], SyncBatchNorm)
    assert pair[0] is pair[1]


@pytest.mark.gpu
def test_conversion_on_cuda_takes_the_norm_of_torch():
    norm = convert_sync_batchnorm(nn.BatchNorm2d(3).cuda())
    assert type(norm) is nn.SyncBatchNorm


@pytest.mark.slow
def test_inplace_network_compiles_without_a_break(blocks):
    converted = convert_inplace_abn(blocks)
    compiled = torch.compile(converted, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    expected = step(converted, x)
    actual = step(compiled, x)
    torch.testing.assert_close(actual[:2], expected[:2], rtol=0, atol=1e-10)
    gradients = {name.removeprefix("_orig_mod."): value for name, value in actual[2].items()}
    torch.testing.assert_close(gradients, expected[2], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("backbone", "least"), [("resnet50", 45), pytest.param("resnet101", 47, marks=pytest.mark.slow)]
)
def test_a_training_step_keeps_much_less(backbone, least, monkeypatch, capsys):
    """At 769 x 769, in percent of the leaky network on batch norm."""
    arguments = ["training_memory.py", "--backbone", backbone, "--batch", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    training_memory.main()
    table = capsys.readouterr().out
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d.]+) \| ([\d.]+)% \| ([\d.]+) \|$", table, re.M)
    less = {name: float(share) for name, _, share, _ in rows}
    assert list(less) == list(training_memory.NETWORKS)
    assert less["InPlaceABN"] > least
    assert less["BatchNorm, blocks checkpointed"] > least
    assert all(float(peak) > float(kept) for _, kept, _, peak in rows)
