"""Converted weights that were kept: changed ones are noticed, those without a hash are said."""

import hashlib
import os

import pytest
from hub_server import NOWHERE, assert_equal, connect
from test_sources import CONTENT, CONVERTED, FOREIGN, FOREIGN_PREFIX, at_the_origin, load


def flip_a_value(kept):
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)


CHANGES = {
    "half": lambda kept: kept.write_bytes(kept.read_bytes()[:100]),
    "flipped bit": flip_a_value,
    "another file": lambda kept: kept.write_bytes(CONTENT),
    "a dangling link": lambda kept: (kept.unlink(), kept.symlink_to("nowhere")),
    "half a hash": lambda kept: kept.with_suffix(".sha256").write_text("0  kept.safetensors"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_kept_file_that_has_changed_is_fetched_again(hub, home, caplog, change):
    hub.repositories[""].files["theirs.pth"] = FOREIGN
    load(at_the_origin(hub.address))
    kept = home / "ccnet" / "kept.safetensors"
    change(kept)
    is_there = kept.exists()
    with pytest.raises(FileNotFoundError, match="files/theirs"):
        load(at_the_origin(NOWHERE))
    assert_equal(load(at_the_origin(hub.address)).state_dict, CONVERTED)
    assert ("kept.safetensors is not as it was kept" in caplog.text) == is_there
    assert_equal(load(at_the_origin(NOWHERE)).state_dict, CONVERTED)


@pytest.mark.parametrize("place", ["online", "unreachable", "offline"])
def test_kept_file_without_a_hash_is_fetched_again_or_said_to_be_unverified(
    hub, home, caplog, monkeypatch, place
):
    hub.repositories[""].files["theirs.pth"] = FOREIGN
    load(at_the_origin(hub.address))
    sums = home / "ccnet" / "kept.sha256"
    sums.unlink()
    asked = len(hub.asked)
    connect(monkeypatch, hub.address, home, offline=place == "offline")
    weights = at_the_origin(NOWHERE if place == "unreachable" else hub.address)
    assert_equal(load(weights).state_dict, CONVERTED)
    assert len(hub.asked) - asked == (place == "online")
    assert "kept.safetensors is unverified: no hash was kept beside it" in caplog.text
    assert ("kept.safetensors is taken unverified" in caplog.text) == (place != "online")
    assert "not as it was kept" not in caplog.text
    caplog.clear()
    load(weights)
    assert not caplog.text
    flip_a_value(sums.with_suffix(".safetensors"))
    connect(monkeypatch, hub.address, home, offline=True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        load(weights)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names on this system")
def test_pipe_in_place_of_the_hashes_is_neither_waited_for_nor_replaced(hub, home, caplog):
    hub.repositories[""].files["theirs.pth"] = FOREIGN
    load(at_the_origin(hub.address))
    sums = home / "ccnet" / "kept.sha256"
    sums.unlink()
    os.mkfifo(sums)
    assert_equal(load(at_the_origin(hub.address)).state_dict, CONVERTED)
    assert sums.is_fifo()
    assert f"{sums} cannot be written: it is no regular file" in caplog.text


def test_file_fetched_again_is_the_one_fetched_first(hub, home):
    """The published eight digits of the hash would let another file pass."""
    hub.repositories[""].files["theirs.pth"] = FOREIGN
    load(at_the_origin(hub.address, prefix=FOREIGN_PREFIX[:1]))
    (home / "ccnet" / "kept.safetensors").unlink()
    forged = next(
        other
        for number in range(1000)
        if hashlib.sha256(other := FOREIGN + b"%d" % number).hexdigest()[0] == FOREIGN_PREFIX[0]
    )
    hub.repositories[""].files["theirs.pth"] = forged
    with pytest.raises(ValueError, match=r"theirs\.pth is not the published file"):
        load(at_the_origin(hub.address, prefix=FOREIGN_PREFIX[:1]))
