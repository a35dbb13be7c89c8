"""Weights that are pinned on the Hub come from there, to the byte, or not at all."""

import pytest
from hub_server import COMMIT, Repository, assert_equal, registered
from test_sources import CONTENT, FILES, FOREIGN, FOREIGN_PREFIX, SHA256, WEIGHTS, load

from ccnet.weights import REGISTRY, BackboneWeights
from ccnet.weights.pins import read_pins


@pytest.fixture
def pinned(hub):
    """The entry of weights that are on the Hub, and at their origin too."""
    hub.repositories |= {"us/model": Repository(FILES), "": Repository({"theirs.pth": FOREIGN})}
    return registered(
        hub={
            "repo_id": "us/model",
            "revision": COMMIT,
            "filename": "model.safetensors",
            "sha256": SHA256,
        },
        origin={"url": f"{hub.address}/files/theirs.pth", "sha256_prefix": FOREIGN_PREFIX},
        config={"backbone": "resnet18"},
    )


def test_pins_are_of_members():
    members = [one for choice in (*REGISTRY.values(), BackboneWeights) for one in choice]
    assert read_pins() == {str(one): one.meta["hub"] for one in members if one.meta["hub"]}


def test_origin_is_not_asked(hub, pinned):
    assert_equal(load(pinned).state_dict, WEIGHTS)
    assert not hub.requests("GET", "/files/")


def test_branch_that_moved_changes_nothing(hub, pinned):
    hub.repositories["us/model"].commit({"model.safetensors": b"another"})
    assert_equal(load(pinned).state_dict, WEIGHTS)


def rewrite(repository):
    repository.commit({"model.safetensors": CONTENT})
    repository.history.clear()


FAULTS = {
    "changed file": (
        lambda repository: repository.files.update({"model.safetensors": CONTENT[:-1] + b"1"}),
        *(ValueError, "is not the published file: its SHA-256 is"),
    ),
    "rewritten history": (
        *(rewrite, FileNotFoundError),
        "does not have this revision, or no longer",
    ),
    "private": (
        lambda repository: setattr(repository, "token", "hf_secret"),
        *(FileNotFoundError, "or a private one, which needs HF_TOKEN or `hf auth login`"),
    ),
    "file that is gone": (
        lambda repository: repository.files.clear(),
        *(FileNotFoundError, "does not have this file at this revision"),
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_is_one_error_and_no_other_file(hub, pinned, change, error, message):
    hub.repositories["us/model"].files = dict(FILES)
    change(hub.repositories["us/model"])
    with pytest.raises(error, match=message) as caught:
        load(pinned)
    assert f"hf://us/model@{COMMIT}/model.safetensors" in str(caught.value)
    assert str(caught.value).endswith("into a folder and set CCNET_WEIGHTS_DIR to its path.")
    assert not hub.requests("GET", "/files/")
