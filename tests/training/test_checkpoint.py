"""Checkpoints: a seal that every change breaks, interrupts while writing, details of a run."""

import hashlib

import pytest
import torch
from small_runs import small_model, trainer

from ccnet.training.checkpoint import Checkpoints, load_checkpoint, saving
from ccnet.weights.pickles import read_pickle

STATE = {
    "model": {"a": torch.zeros(4), "b": torch.ones(4)},
    **{"step": 1, "recipe": {"seed": 0}, "config": {"backbone": "resnet18"}},
}


@pytest.fixture
def saved(tmp_path):
    """The path and the bytes of a checkpoint."""
    path = Checkpoints(tmp_path).save(STATE)
    return path, path.read_bytes()


def without_seal(content):
    """The file as `torch.save` alone writes it, and as older versions did."""
    start = content.rindex(b"ccnet sha256 ")
    return content[: start - 2] + b"\0\0"


def test_every_flipped_bit_is_found(saved, monkeypatch):
    """In the directory and the seal every bit, in the rest one of every byte."""
    path, content = saved
    file = {"content": content}
    monkeypatch.setattr(type(path), "read_bytes", lambda _: file["content"])
    directory = content.index(b"PK\x01\x02")
    for index in range(len(content)):
        for bit in range(8) if index >= directory else [index % 8]:
            changed = bytearray(content)
            changed[index] ^= 1 << bit
            file["content"] = bytes(changed)
            with pytest.raises(ValueError, match=r"step-00000001\.pt is damaged"):
                load_checkpoint(path)
    file["content"] = content
    assert torch.equal(load_checkpoint(path)["model"]["b"], torch.ones(4))


@pytest.mark.parametrize("cut", [1, 64, 77, 79, 99, 200])
def test_checkpoint_without_its_end_is_damaged(saved, cut):
    path, content = saved
    path.write_bytes(content[:-cut])
    with pytest.raises(ValueError, match=r"step-00000001\.pt is damaged"):
        load_checkpoint(path)


def test_seal_is_the_hash_of_what_torch_wrote(saved):
    path, content = saved
    digest = hashlib.sha256(without_seal(content)).hexdigest().encode()
    assert content.endswith(b"ccnet sha256 " + digest)
    assert torch.load(path, weights_only=True).keys() == STATE.keys()
    assert read_pickle(path).keys() == STATE.keys()


def test_checkpoint_of_before_seals_is_resumed_with_a_warning(saved, caplog):
    path, content = saved
    path.write_bytes(without_seal(content))
    assert torch.equal(load_checkpoint(path)["model"]["b"], torch.ones(4))
    assert f"{path} was written before checkpoints had a checksum" in caplog.text


def test_newest_checkpoint_that_is_whole_is_taken(tmp_path, saved, caplog):
    path, _ = saved
    newer = Checkpoints(tmp_path).save({**STATE, "step": 2})
    content = bytearray(newer.read_bytes())
    content[content.rindex(b"data/1") + 5] ^= 1
    newer.write_bytes(content)
    found, state = Checkpoints(tmp_path).newest()
    assert (found, state["step"]) == (path, 1)
    assert "skipping a damaged checkpoint" in caplog.text


def test_interrupt_while_writing_is_not_taken_for_a_full_disk(tmp_path):
    def write():
        with saving(tmp_path / "step.pt"):
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("unexpected pos 978")  # as torch.save does

    with pytest.raises(KeyboardInterrupt):
        write()


def test_resumed_run_keeps_the_details_of_its_checkpoint(tmp_path):
    model = small_model()
    model.card_details = {"license": "CC-BY-NC-4.0"}
    trainer(tmp_path, model=model).run()
    resumed = trainer(tmp_path, resume=True)
    assert resumed.model.card_details == {"license": "CC-BY-NC-4.0"}
