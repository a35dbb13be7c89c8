"""Converting a foreign checkpoint from the command line."""

import hashlib
import importlib
import json
import re
import sys

import pytest
import torch
from families import DEFINITIONS, mmseg_checkpoint, random_state
from hub_server import HubServer, connect, uploads

from ccnet import CCNet, ccnet_resnet18

MEMBER = "CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_769X769_80K"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("foreign") / "mmseg.pth"
    state = random_state(DEFINITIONS["openmmlab"], "resnet18")
    torch.save(mmseg_checkpoint(state, align_corners=True), path)
    return path


@pytest.fixture
def convert(repository, checkpoint, tmp_path, monkeypatch, capsys):
    """Converts the checkpoint into the folder "out" with some options, and returns the output."""
    monkeypatch.syspath_prepend(repository / "scripts")
    script = importlib.import_module("convert_checkpoint")

    def run(*options):
        arguments = [str(checkpoint), "--output", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *arguments])
        script.main()
        return capsys.readouterr().out

    return run


def test_dry_run_writes_nothing(repository, run_forked, checkpoint, tmp_path):
    script = repository / "scripts" / "convert_checkpoint.py"
    result = run_forked(script, checkpoint, "--output", "out", "--dry-run", cwd=tmp_path)
    assert "OpenMMLab's CCNet" in result.stdout
    assert re.search(r"^logits +[0-9a-f]{64} ", result.stdout, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_converted_weights_compute_the_same(convert, checkpoint, tmp_path):
    output = convert()
    weights = tmp_path / "out" / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"sha256      {sha256}" in output
    x = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        converted = CCNet.from_pretrained(tmp_path / "out")(x)["out"]
        assert torch.equal(converted, ccnet_resnet18(weights=checkpoint)(x)["out"])


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (MEMBER, "is not the published file"),
        ("CCNet_ResNet50_Weights.MINE", "the registry has no CCNet_ResNet50_Weights.MINE"),
        ("Mine.MINE", "the registry has no Mine.MINE"),
    ],
)
def test_unregistered_file_is_refused(convert, tmp_path, capsys, member, message):
    with pytest.raises(SystemExit) as caught:
        convert("--registered", member)
    assert message in f"{caught.value}{capsys.readouterr().err}"
    assert not (tmp_path / "out").exists()


@uploads
def test_pushed_repository_is_pinned(convert, tmp_path, monkeypatch):
    with HubServer() as server:
        connect(monkeypatch, server.address, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        output = convert("--push", "someone/model")
        repository = server.repositories["someone/model"]
    files = repository.files
    pin = json.loads(re.search(r"^pin +(.*)", output, re.MULTILINE)[1])
    sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert pin == {
        "repo_id": "someone/model",
        "revision": repository.head,
        "filename": "model.safetensors",
        "sha256": sha256,
    }
    assert b'from_pretrained("someone/model")' in files["README.md"]


def test_pushing_needs_a_server_that_answers(convert, tmp_path, monkeypatch, capsys):
    connect(monkeypatch, "http://127.0.0.1:9", tmp_path / "home")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SystemExit, match="error: "):
        convert("--push", "someone/model")
    assert "pin  " not in capsys.readouterr().out
    assert 'from_pretrained("someone/model")' in (tmp_path / "out" / "README.md").read_text()
