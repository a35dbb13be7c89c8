"""A local Hub and checkpoint files for the tests of weights."""

import pytest
import torch
from hub_server import HubServer, connect


@pytest.fixture(scope="session")
def _server():
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(_server, home, monkeypatch):
    """A Hub without repositories, which the client in this process asks; nobody waits to retry."""
    _server.reset()
    connect(monkeypatch, _server.address, home)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return _server


@pytest.fixture
def waits(monkeypatch):
    """The pauses between tries, which nobody waits for."""
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


@pytest.fixture
def hurry(monkeypatch):
    """Has the client wait an instant alone for a server that is silent, or answers without end."""

    def hurry(attack=()):
        if not isinstance(attack, bytes):
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
            monkeypatch.setattr("ccnet.weights.timed_requests.SECONDS", 0.3)

    return hurry


@pytest.fixture
def home(tmp_path):
    """The folder HF_HOME of this process where it uses `hub`; nothing is cached there."""
    return tmp_path / "home"


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint and returns its path."""

    def save(content, name="foreign.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save
