"""A network of a few layers, and the files that it is exported to, each made and opened once."""

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
    options = {"label_set": "camvid", "training_size": [48, 64], "aux_channels": 0}
    network = make_model(11, recurrence=1, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for name in ("layer1", "layer2", "layer3"):
            setattr(network.backbone, name, Stage())
        network.backbone.layer4 = Stage(nn.Conv2d(64, 512, 3, 2, 1))
    network.card_details = {"license": "CC-BY-NC-4.0", "source": "a test"}
    return network


@pytest.fixture(scope="session")
def exported(small, tmp_path_factory):
    """Gives the path of a file of the small network, what was said of it, and the comparisons."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(suffix, with_preprocessing):
        path = folder / f"{'labels' if with_preprocessing else 'logits'}{suffix}"
        lines = []
        results = ccnet.export_network(
            small, path, with_preprocessing=with_preprocessing, tell=lines.append
        )
        return SimpleNamespace(path=path, lines=lines, results=results)

    return lambda suffix, with_preprocessing=False: export(suffix, with_preprocessing)


@pytest.fixture(scope="session")
def opened(exported):
    """Opens the file of the small network."""

    @functools.cache
    def load(suffix, with_preprocessing):
        return ccnet.load_exported(exported(suffix, with_preprocessing).path, trusted=True)

    return lambda suffix, with_preprocessing=False: load(suffix, with_preprocessing)
