"""Layers whose norm cannot become in-place without a change of the function, and those that can."""

import copy

import pytest
import torch
from torch import nn

from ccnet.norm import InPlaceABN, convert_inplace_abn

SLOPE = 0.01


def negated(network):
    """Makes every third gain negative."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] = -1
    return network


def twice(module):
    parts = [[module, nn.BatchNorm2d(4), nn.LeakyReLU(SLOPE)] for _ in range(2)]
    return nn.Sequential(*(nn.Sequential(*part) for part in parts))


def with_one_norm():
    norm = nn.BatchNorm2d(4)
    parts = [[nn.Conv2d(4, 4, 3), norm, nn.LeakyReLU(SLOPE)] for _ in range(2)]
    return nn.Sequential(*(nn.Sequential(*part) for part in parts))


def with_one_weight(name):
    parts = [[nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(SLOPE)] for _ in range(2)]
    network = nn.Sequential(*(nn.Sequential(*part) for part in parts))
    network[1].get_submodule(name).weight = network[0].get_submodule(name).weight
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (twice(nn.Conv2d(4, 4, 3)), r"^0\.0 and 1\.0 are one: make copies"),
        (with_one_weight("0"), r"^0\.0\.weight and 1\.0\.weight are one: make copies"),
        (with_one_weight("1"), r"^0\.1\.weight and 1\.1\.weight are one: make copies"),
        (with_one_norm(), r"^0\.1 and 1\.1 are one: make copies"),
        *(
            (
                nn.Sequential(norm(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4), nn.LeakyReLU(SLOPE)),
                r"^the weight of 0 is computed from other parameters: remove weight norm",
            )
            for norm in (
                nn.utils.parametrizations.weight_norm,
                nn.utils.parametrizations.spectral_norm,
                nn.utils.spectral_norm,
            )
        ),
    ],
    ids=[
        "convolution",
        "kernels",
        "gains",
        "norm",
        "weight norm",
        "spectral norm",
        "spectral norm by a hook",
    ],
)
def test_layer_that_cannot_take_a_sign_is_refused(network, message):
    before = copy.deepcopy(negated(network).state_dict())
    with pytest.raises(ValueError, match=message):
        convert_inplace_abn(network)
    assert not any(isinstance(module, InPlaceABN) for module in network.modules())
    kept = network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in before.items())


def test_layers_that_are_reached_in_two_ways_are_converted_once():
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(SLOPE))
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    positive = nn.Sequential(normed, nn.BatchNorm2d(4), nn.LeakyReLU(SLOPE))
    network = nn.Sequential(block, block, positive)
    block[1].weight.data[::2] *= -1
    x = torch.randn(2, 4, 9, 11)
    expected = copy.deepcopy(network.eval())(x)
    torch.testing.assert_close(convert_inplace_abn(network)(x), expected, atol=1e-4, rtol=1e-4)
    assert sum(isinstance(module, InPlaceABN) for module in network.modules()) == 2
