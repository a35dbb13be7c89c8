"""What several test files share."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import forked_python
import pytest
import torch
from torch import nn

from ccnet.launchers import LAUNCHERS
from ccnet.model import CCNet
from ccnet.weights import write_weights

for _name in ("RANK", "WORLD_SIZE", *(name for one in LAUNCHERS for name in one if name)):
    os.environ.pop(_name, None)  # the tests are one process, wherever they are started

for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    _number = getattr(signal, _name, None)
    if _number and signal.getsignal(_number) is signal.SIG_IGN:  # as in a script's background
        signal.signal(_number, _usual)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def camvid_root():
    """The folder of the real CamVid."""
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("the variable CAMVID_ROOT does not name a folder of CamVid")
    return Path(os.environ["CAMVID_ROOT"])


@pytest.fixture(scope="session")
def run_python(repository):
    """Runs a fresh interpreter that finds this repository's package, and gives back its result."""
    return partial(_run, repository, _fresh)


@pytest.fixture(scope="session")
def run_forked(repository):
    """As `run_python`, in a process that has imported PyTorch already, which saves seconds."""
    return partial(_run, repository, forked_python.run)


def _run(repository, runner, *arguments, cwd, succeeds=True, **variables):
    environment = {**os.environ, "PYTHONPATH": str(repository), **variables}
    result = runner(arguments, cwd, environment, timeout=300)
    assert (result.returncode == 0) == succeeds, result.stdout + result.stderr
    return result


def _fresh(arguments, cwd, environment, timeout):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _randomise(model):
    """Moves everything that starts at 0 or 1 away from there: gamma, biases, norms."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.6, 1.4)
    if model.head.cca is not None:
        nn.init.constant_(model.head.cca.gamma, 0.7)


@pytest.fixture(scope="session")
def make_model():
    """Builds a CCNet on ResNet-18 in evaluation mode, every parameter random, gamma 0.7."""

    def make(num_classes=5, seed=1, backbone="resnet18", **config):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = CCNet(backbone, num_classes, **config)
            _randomise(model)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model(make_model):
    """A network of five classes, for tests that do not change it."""
    return make_model()


@pytest.fixture(scope="session")
def weights_file(make_model, tmp_path_factory):
    """Weights of a network with CamVid's classes and an auxiliary head, as they are saved."""
    path = tmp_path_factory.mktemp("weights") / "camvid.safetensors"
    trained = make_model(11, label_set="camvid")
    write_weights(path, trained.to_weights())
    return path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"tried to connect to {arguments[1:]}")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture
def pixels():
    """A random picture (3, 33, 49), uint8."""
    return torch.randint(0, 256, (3, 33, 49), dtype=torch.uint8)
