"""Converting a foreign checkpoint from the command line."""

import hashlib
import re

import pytest
import torch
from families import DEFINITIONS, mmseg_checkpoint, random_state
from hub_server import HubServer

from ccnet import CCNet, ccnet_resnet50

MEMBER = "CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_769X769_80K"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("foreign") / "mmseg.pth"
    state = random_state(DEFINITIONS["openmmlab"])
    torch.save(mmseg_checkpoint(state, align_corners=True), path)
    return path


@pytest.fixture(scope="module")
def script(repository):
    return repository / "scripts" / "convert_checkpoint.py"


def test_a_dry_run_writes_nothing(script, run_python, checkpoint, tmp_path):
    result = run_python(script, checkpoint, "--output", "out", "--dry-run", cwd=tmp_path)
    assert "OpenMMLab's CCNet" in result.stdout
    assert re.search(r"^logits +[0-9a-f]{64} ", result.stdout, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_what_is_written_computes_the_same(script, run_python, checkpoint, tmp_path):
    result = run_python(script, checkpoint, "--output", "out", cwd=tmp_path)
    weights = tmp_path / "out" / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"sha256      {sha256}" in result.stdout
    x = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        converted = CCNet.from_pretrained(tmp_path / "out")(x)["out"]
        assert torch.equal(converted, ccnet_resnet50(weights=checkpoint)(x)["out"])


def test_a_file_that_is_not_the_registered_one_is_refused(script, run_python, checkpoint, tmp_path):
    arguments = ("--output", "out", "--registered", MEMBER)
    result = run_python(script, checkpoint, *arguments, cwd=tmp_path, succeeds=False)
    assert "is not the published file" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    arguments = ("--output", "out", "--registered", "CCNet_ResNet50_Weights.MINE")
    result = run_python(script, checkpoint, *arguments, cwd=tmp_path, succeeds=False)
    assert "the registry has no CCNet_ResNet50_Weights.MINE" in result.stderr


def test_pushing_needs_a_server_that_answers(script, run_python, checkpoint, tmp_path):
    with HubServer() as server:
        address = server.address
    result = run_python(
        script,
        checkpoint,
        *("--output", "out", "--push", "someone/model"),
        cwd=tmp_path,
        succeeds=False,
        HF_ENDPOINT=address,
        HF_HOME=str(tmp_path / "home"),
    )
    assert "for the registry" not in result.stdout
    assert 'from_pretrained("someone/model")' in (tmp_path / "out" / "README.md").read_text()
