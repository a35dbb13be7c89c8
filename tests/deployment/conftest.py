"""A network of a few layers, and the files that it is exported to, each made once."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ccnet
from ccnet.backbones.resnet import Stage


@pytest.fixture(scope="session")
def small(make_model):
    """A network with few layers, which is soon traced; it learnt from pictures of 48 x 64."""
    network = make_model(11, label_set="camvid", training_size=[48, 64], aux_channels=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = (None, (64, 128, 2), (128, 256, 1), (256, 512, 1))
        for number, layer in enumerate(layers, start=1):
            stage = Stage(nn.Conv2d(layer[0], layer[1], 3, layer[2], 1)) if layer else Stage()
            setattr(network.backbone, f"layer{number}", stage)
    network.card_details = {"license": "CC-BY-NC-4.0", "source": "a test"}
    return network


@pytest.fixture(scope="session")
def exported(small, tmp_path_factory):
    """Gives the path of a file of the small network, what was said of it, and the comparisons."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(suffix, with_preprocessing=False):
        path = folder / f"{'labels' if with_preprocessing else 'logits'}{suffix}"
        lines = []
        results = ccnet.export_network(
            small, path, with_preprocessing=with_preprocessing, tell=lines.append
        )
        return SimpleNamespace(path=path, lines=lines, results=results)

    return export
