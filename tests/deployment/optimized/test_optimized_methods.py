"""Methods that were replaced on modules of a network count in its optimised copy."""

import copy
from types import MethodType

import pytest
import torch
from torch import nn

import ccnet
from ccnet.backbones.resnet import Stage
from ccnet.norm import convert_inplace_abn

REPLACED = {
    "convolution": ("backbone.layer1.0.conv1", "forward"),
    "norm": ("backbone.layer1.1.bn2", "forward"),
    "activation": ("backbone.layer1.0.relu", "forward"),
    "shortcut": ("backbone.layer2.0.downsample", "forward"),
    "block": ("backbone.layer2.0", "forward"),
    "stage": ("backbone.layer3", "forward"),
    "convolution of the head": ("head.conva.0", "forward"),
    "norm of the head": ("head.convb.1", "forward"),
    "activation of the head": ("head.bottleneck.2", "forward"),
    "bottleneck": ("head.bottleneck", "forward"),
    "head": ("head", "forward"),
    "joint of the head": ("head", "join"),
}


def of_the_class(module, name):
    """A method that calls that of its class, of whichever module it is bound to after a copy."""
    original = getattr(type(module), name)
    return MethodType(lambda self, *inputs: original(self, *inputs) * 2 + 1, module)


def around(module, name):
    """A function around a bound method, which is that of the network after a copy too."""
    original = getattr(module, name)
    return lambda *inputs: original(*inputs) * 2 + 1


@pytest.fixture(scope="module")
def network(make_model):
    """A network with few layers, of all kinds."""
    options = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}
    network = make_model(3, aux_channels=0, recurrence=1, **options)
    network.backbone.layer3 = Stage(nn.Conv2d(128, 512, 3))
    network.backbone.layer4 = Stage()
    return network


@pytest.mark.parametrize(
    ("path", "name", "convert"),
    [
        *((*parts, lambda network: network) for parts in REPLACED.values()),
        ("backbone.layer1.1.bn2", "forward", convert_inplace_abn),
        ("backbone.layer2.0", "forward", convert_inplace_abn),
    ],
    ids=[*REPLACED, "norm in place", "block in place"],
)
def test_replaced_methods_count(network, path, name, convert):
    x = torch.randn(2, 3, 25, 33)
    for replacement in (of_the_class, around):
        network = convert(copy.deepcopy(network)).eval()
        module = network.get_submodule(path)
        with torch.no_grad():
            before = network(x)["out"]
            setattr(module, name, replacement(module, name))
            expected = network(x)["out"]
            found = ccnet.optimize_for_inference(network, torch.float32)(x)["out"]
        scale = float(expected.abs().max())
        assert float((expected - before).abs().max()) > 1e-3 * scale
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)
