"""Waiting for what does not answer: said after a moment, and soon over."""

import threading

import pytest
from hub_server import NOWHERE, connect
from raw_server import RawServer, answer
from test_continued_downloads import BIG
from test_imagenet import load as load_imagenet
from test_sources import FOREIGN, at_the_origin, load, on_the_hub

from ccnet.weights import retries


@pytest.fixture(autouse=True)
def _soon(hub, waits, hurry, monkeypatch, tmp_path):
    """Limits of an instant."""
    hurry()
    monkeypatch.setattr("ccnet.weights.timed_requests.NOTICE", 0.05)
    monkeypatch.setattr("ccnet.weights.timed_requests.CONNECTION", 0.6)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


ROADS = {
    "a name on the Hub": lambda address: load("hf://us/model"),
    "a backbone on the Hub": lambda address: load(on_the_hub()),
    "an origin": lambda address: load(at_the_origin(address)),
    "torchvision": load_imagenet,
}
"""How weights are loaded, with the server at an address."""


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_server_that_says_nothing_is_asked_twice(hub, home, monkeypatch, caplog, waits, road):
    with RawServer([20.0]) as server:
        connect(monkeypatch, server.address, home)
        with pytest.raises(FileNotFoundError, match=r"no answer within 0 s\n.*path"):
            road(server.address)
        assert len(server.asked) == 2 < retries.TRIES
    assert len(waits) == 1
    assert f"waiting for an answer of {server.address}" in caplog.text


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_name_server_that_says_nothing_is_asked_once(hub, home, monkeypatch, caplog, waits, road):
    """Resolvers wait for up to a minute, and no timeout of a client ends that."""
    is_over = threading.Event()

    def resolve(*_, **__):
        is_over.wait(20)
        raise OSError("no answer")

    connect(monkeypatch, "http://nothing.invalid", home)
    monkeypatch.setattr("socket.getaddrinfo", resolve)
    try:
        with pytest.raises(FileNotFoundError, match="no connection within 0 s"):
            road("http://nothing.invalid")
    finally:
        is_over.set()
    assert not waits
    assert "waiting for an answer of http://nothing.invalid" in caplog.text


@pytest.mark.parametrize("offline", [False, True])
def test_last_line_names_what_helps(hub, home, monkeypatch, offline):
    connect(monkeypatch, NOWHERE, home, offline=offline)
    helps = "unset HF_HUB_OFFLINE" if offline else "HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror"
    with pytest.raises(
        FileNotFoundError, match=rf"hf://us/model.*\n.*the path of .*{helps}[^\n]*$"
    ):
        load("hf://us/model")
    with pytest.raises(
        FileNotFoundError, match=r"\nSet HF_ENDPOINT to a mirror .*, or put [^\n]*$"
    ):
        load(on_the_hub())
    with pytest.raises(
        FileNotFoundError, match=r"\nPut [^\n]* set CCNET_WEIGHTS_DIR to its path.$"
    ):
        load(at_the_origin(NOWHERE))
    with pytest.raises(FileNotFoundError, match=r"\nPut [^\n]*pth into .*, or pass its path.$"):
        load_imagenet(NOWHERE)


def test_slow_servers_are_waited_for(hub, caplog, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 10)
    monkeypatch.setattr("ccnet.weights.timed_requests.SECONDS", 10)
    with RawServer([0.4, answer(FOREIGN)], [0.4, answer(BIG)]) as server:
        load(at_the_origin(server.address))
        load_imagenet(server.address)
        assert len(server.asked) == 2
    assert caplog.text.count("waiting for an answer") == 2
