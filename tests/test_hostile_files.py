"""Files that mean harm, or that were damaged on the way, are refused with a clear error."""

import os
import pickle
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import ccnet
from ccnet.conversion import convert, read_pickle
from ccnet.serialization import load_strictly, read_weights, save_weights


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, zipped):
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": Code(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pth is no intact checkpoint"):
        ccnet.ccnet_resnet18(weights=path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file is harmless, and this test cannot fail"


def test_a_plain_pickle_that_runs_code_is_refused(tmp_path):
    path, trace = tmp_path / "evil.bin", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(ValueError, match=r"evil\.bin is no intact checkpoint"):
        ccnet.ccnet_resnet18(weights=path)
    assert not trace.exists()


def test_a_compressed_archive_is_refused_before_it_unpacks(tmp_path):
    stored, bomb = tmp_path / "stored.pth", tmp_path / "bomb.pth"
    torch.save({"head.bottleneck.4.weight": torch.zeros(4_000_000)}, stored)
    with (
        zipfile.ZipFile(stored) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < stored.stat().st_size / 100
    with pytest.raises(ValueError, match=r"bomb\.pth.*compressed"):
        ccnet.ccnet_resnet18(weights=bomb)


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.weight", "unexpected"])
def test_a_tensor_that_repeats_one_number_is_not_spread_out(monkeypatch, name):
    """`expand` makes a tensor of any size from four bytes; nothing may compute on it."""
    state = {"head.bottleneck.3.weight": torch.ones(19, 128, 1, 1)}
    state |= {f"layer3.{index}.conv1.weight": torch.ones(1) for index in range(2)}
    state |= {"bn1.weight": torch.ones(64), "bn1.running_mean": torch.ones(64)}
    state[name] = torch.ones(1).expand(2**60)
    with pytest.raises(ValueError, match=r"\(1152921504606846976,\)"):
        load_strictly(torch.nn.Linear(1, 1), convert(state).state_dict)


def checkpoint(path):
    torch.save({"model": {"a": torch.randn(1000)}, "config": {}}, path)


def weights(path):
    save_weights(path, {"a": torch.randn(1000)}, {})


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("name", "write"), [("a.pth", checkpoint), ("a.safetensors", weights)])
def test_a_truncated_file_is_refused(tmp_path, name, write, keep):
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is .*intact"):
        ccnet.ccnet_resnet18(weights=path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), "text"])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"holds a {type(content).__name__}, not a state dict"):
        read_pickle(tmp_path / "a.pth")


@pytest.fixture
def changed(weights_file, tmp_path):
    """Writes the weights with one tensor or the configuration replaced."""

    def change(name=None, value=None, **fields):
        state, config = read_weights(weights_file)
        if name:
            state[name] = value(state[name])
        save_weights(tmp_path / "changed.safetensors", state, {**config, **fields})
        return tmp_path / "changed.safetensors"

    return change


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(changed, bad):
    def spoil(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[3] = bad
        return tensor

    path = changed("head.conva.0.weight", spoil)
    with pytest.raises(ValueError, match=r"head\.conva\.0\.weight has values that are not finite"):
        ccnet.ccnet_resnet18(weights=path)


def test_wrong_shapes_are_refused(changed):
    path = changed("head.classifier.bias", lambda tensor: torch.zeros(1))
    with pytest.raises(ValueError, match=r"head\.classifier\.bias is \(1,\) instead of \(11,\)"):
        ccnet.ccnet_resnet18(weights=path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loops": 3}, "loops"),
        ({"num_classes": 12}, "12"),
        ({"num_classes": "many"}, "many"),
        ({"recurrence": -1}, "recurrence"),
        ({"backbone": ["resnet18"]}, "resnet18"),
        ({"backbone_options": {"strides": 8}}, "strides"),
        ({"label_set": 3}, "label"),
        ({"label_set": {"colors": []}}, "categories"),
        ({"preprocessing": {"mean": [1.0]}}, "mean"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_configuration_is_refused(changed, fields, message):
    with pytest.raises(ValueError, match=message):
        ccnet.ccnet_resnet18(weights=changed(**fields))


@pytest.mark.parametrize("text", ["{", "[1]", "null", "3"])
def test_a_configuration_that_is_no_mapping_is_refused(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"config": text})
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        ccnet.ccnet_resnet18(weights=tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "hf://../../etc",
        "hf://../etc/passwd",
        "hf://owner/name/more",
        "../../x",
        "/etc",
    ],
)
def test_names_that_climb_or_lead_nowhere_are_refused(name, no_network, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(name.removeprefix("hf://"))):
        ccnet.ccnet_resnet18(weights=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "hf://", "hf://@main"])
def test_empty_names_are_refused(name, no_network):
    with pytest.raises(ValueError, match=r"no weights ''|Repo id must"):
        ccnet.ccnet_resnet18(weights=name)
