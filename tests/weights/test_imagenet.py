"""ImageNet weights of torchvision: in torch.hub's cache, or fetched there."""

import pytest
from hub_server import NOWHERE, assert_equal
from raw_server import RawServer, answer
from test_continued_downloads import BIG, SHA256
from torchvision.models import Weights, WeightsEnum

from ccnet.weights.imagenet import load_imagenet
from ccnet.weights.pickles import read_pickle

NAME = f"resnet-{SHA256[:8]}.pth"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The path where torch.hub keeps the weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / NAME
    path.parent.mkdir(parents=True)
    return path


def published(address):
    class Own(WeightsEnum):
        OWN = Weights(url=f"{address}/{NAME}", transforms=None, meta={})

    return Own.OWN


def load(address):
    return load_imagenet(published(address), progress=False)


CHANGES = {
    "changed": lambda kept: kept.write_bytes(BIG[:-1] + b"x"),
    "cut": lambda kept: kept.write_bytes(BIG[:1000]),
    "empty": lambda kept: kept.touch(),
    "a dangling link": lambda kept: kept.symlink_to("nowhere"),
    "missing": lambda kept: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_kept_file_that_has_changed_is_fetched_again(kept, waits, change, caplog):
    change(kept)
    before = kept.read_bytes() if kept.exists() else None
    with pytest.raises(FileNotFoundError, match=rf"{NAME}\n.*{NOWHERE}/{NAME}: .*\n"):
        load(NOWHERE)
    assert before == (kept.read_bytes() if kept.exists() else None)
    assert (f"{kept} is not the published file" in caplog.text) == (before is not None)
    with RawServer(b"", answer(BIG)) as server:
        fetched = load(server.address)
        asked = len(server.asked)
    assert (asked, kept.read_bytes()) == (2, BIG)
    assert_equal(dict(fetched), dict(load(NOWHERE)))
    assert_equal(dict(fetched), dict(read_pickle(kept)))


def test_place_that_cannot_be_written(kept, waits, caplog):
    kept.mkdir()
    with RawServer(answer(BIG)) as server:
        assert load(server.address)["a"].numel() == 100_000
    assert f"{kept} could not be kept" in caplog.text


def test_offline_nothing_is_asked(kept, monkeypatch, no_network):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        load(NOWHERE)
    kept.write_bytes(BIG)
    assert load(NOWHERE)["a"].numel() == 100_000


def test_another_file_is_refused_and_not_kept(kept, waits):
    with (
        RawServer(answer(BIG + b"1")) as server,
        pytest.raises(ValueError, match="not the published file"),
    ):
        load(server.address)
    assert not kept.exists()
