"""Downloads from the Hub that go wrong: all end in the error that names it, or in the file."""

import pytest
from hub_server import COMMIT, NOWHERE, Repository, assert_equal, connect
from raw_server import RawServer, answer
from test_fetching import PERMANENT, TRANSIENT
from test_sources import CONTENT, WEIGHTS, load, on_the_hub

from ccnet.weights import retries

OTHERS = {
    "no commit": answer(CONTENT, ETag='"1"'),
    "no version": answer(CONTENT, X_Repo_Commit=COMMIT),
    "version of any length": answer(CONTENT, X_Repo_Commit=COMMIT, ETag="x" * 5000),
    "commit that is a path": answer(CONTENT, X_Repo_Commit="../..", ETag='"1"'),
}
"""Answers to a question that the client cannot work with."""

ATTACKS = {**TRANSIENT, **{name: attack for name, (attack, _) in PERMANENT.items()}}


@pytest.fixture
def attacked(monkeypatch, home, waits, hurry):
    """Points the client to a server that attacks; nothing is tried more than twice."""
    monkeypatch.setattr(retries, "TRIES", 2)

    def attacked(server, attack):
        hurry(attack)
        connect(monkeypatch, server.address, home)

    return attacked


def after_the_head(attack):
    """Answers questions as the Hub does, and downloads as an attack."""
    head = answer(length=len(CONTENT), X_Repo_Commit=COMMIT, ETag='"1"')
    return lambda asked: head if asked.startswith("HEAD") else attack


@pytest.mark.parametrize("attack", [*ATTACKS.values(), *OTHERS.values()], ids=[*ATTACKS, *OTHERS])
def test_question_that_is_answered_wrong(attacked, home, attack):
    with RawServer(attack) as server:
        attacked(server, attack)
        for weights in (on_the_hub(), "hf://us/model"):
            with pytest.raises(FileNotFoundError, match="hf://us/model@"):
                load(weights)
    assert not list(home.rglob("*.safetensors"))


SOON = {name: attack for name, attack in ATTACKS.items() if not name.endswith(("and then", "end"))}
"""Attacks on a download: those without an end are up to the Hub's client."""


@pytest.mark.parametrize("attack", SOON.values(), ids=SOON)
def test_download_that_is_answered_wrong(attacked, home, attack):
    with RawServer(after_the_head(attack)) as server:
        attacked(server, attack)
        with pytest.raises((FileNotFoundError, ValueError), match=r"hf://us/model@|published file"):
            load(on_the_hub())
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.parametrize("place", [NOWHERE, "http://nothing.invalid"])
def test_hub_that_does_not_answer_is_asked_twice(hub, home, monkeypatch, waits, caplog, place):
    hub.repositories["us/model"] = Repository({"model.safetensors": CONTENT})
    load("hf://us/model")
    connect(monkeypatch, place, home)
    with pytest.raises(FileNotFoundError, match=r"(refused|not known|resol).*\n.*HF_ENDPOINT"):
        load("hf://us/other")
    assert len(waits) == 1
    assert_equal(load("hf://us/model").state_dict, WEIGHTS)
    assert len(waits) == 1
    assert "what was downloaded before is taken" in caplog.text
