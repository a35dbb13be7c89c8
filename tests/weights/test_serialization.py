"""Weights on disk: exact, strict, silent, all or nothing."""

import os
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ccnet.model import CCNet
from ccnet.weights import ModelWeights, read_weights, write_weights
from ccnet.weights.serialization import load_strictly

assert_equal = partial(torch.testing.assert_close, rtol=0, atol=0)

ARGUMENTS = {
    "recurrence": 1,
    "aux_channels": 24,
    "align_corners": False,
    "preprocessing": {"mean": [1.0, 2.0, 3.0], "channel_order": "BGR"},
    "label_set": {"categories": list("abc"), "colors": [[9, 8, 7], [6, 5, 4], [3, 2, 1]]},
}


@pytest.fixture(scope="module")
def saved(make_model):
    return make_model(3, **ARGUMENTS)


@pytest.fixture(scope="module")
def pristine(saved, tmp_path_factory):
    """The files of a saved model, by name."""
    folder = tmp_path_factory.mktemp("saved")
    saved.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(pristine, tmp_path):
    """A saved model that a test may damage."""
    for name, content in pristine.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_saved_model_comes_back_exactly(saved, tmp_path, pixels, capsys, no_network):
    folder = tmp_path / "a" / "model"
    saved.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    loaded = CCNet.from_pretrained(folder)
    assert capsys.readouterr() == ("", "")
    assert not loaded.training
    assert_equal(loaded.state_dict(), saved.state_dict())
    assert loaded.config == saved.config
    assert loaded.preprocessing == saved.preprocessing
    assert loaded.label_set == saved.label_set
    assert torch.equal(loaded.predict(pixels).labels, saved.predict(pixels).labels)
    assert CCNet.from_pretrained(folder, recurrence=2).config["recurrence"] == 2


def test_model_card_names_the_task_and_no_licence_that_nobody_gave(folder):
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert "license" not in card
    assert "1811.11721" in card


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/model", "no folder /nowhere/model"),
        ("no/such/folder", "no folder no/such/folder"),
        (
            "model.safetensors",
            r'model\.safetensors is a file: .* ccnet\.build_ccnet\("resnet18", weights="model\.s',
        ),
        (
            "README.md",
            r"README\.md is a file: give its folder, or .* ccnet\.build_ccnet\(BACKBONE,",
        ),
    ],
)
def test_what_is_no_folder_is_not_looked_for_on_the_hub(
    folder, name, message, monkeypatch, no_network
):
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match=f"^{message}"):
        CCNet.from_pretrained(name)


def test_saving_over_an_older_model_replaces_weights_and_configuration(folder, make_model):
    (folder / "README.md").write_text("my own card\n")
    newer = make_model(4, seed=2)
    newer.save_pretrained(folder)
    loaded = CCNet.from_pretrained(folder)
    assert loaded.config == newer.config
    assert_equal(loaded.state_dict(), newer.state_dict())
    assert (folder / "README.md").read_text() == "my own card\n"


def set_tensor(name, value):
    def change(folder):
        state = load_file(folder / "model.safetensors")
        state[name] = value
        if value is None:
            del state[name]
        save_file(state, folder / "model.safetensors")

    return change


def set_file(name, change):
    def write(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return write


def test_folder_without_safetensors_is_an_error(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=f"^no model.safetensors in {folder}$"):
        CCNet.from_pretrained(folder)


NOT_INTACT = "model.safetensors is not an intact safetensors file"
DAMAGES = {
    "missing key": (set_tensor("head.cca.gamma", None), r"missing head\.cca\.gamma \(1,\)"),
    "extra key": (
        set_tensor("head.extra.weight", torch.zeros(2)),
        r"unexpected head\.extra\.weight \(2,\)",
    ),
    "wrong shape": (
        set_tensor("head.classifier.bias", torch.zeros(7)),
        r"head\.classifier\.bias is \(7,\) instead of \(3,\)",
    ),
    "no JSON": (set_file("config.json", lambda _: b'{"backbone": '), "config.json is not JSON"),
    "list": (set_file("config.json", lambda _: b"[1, 2]"), "config.json is a list"),
    "corrupt weights": (set_file("model.safetensors", lambda _: b"\x00" * 50), NOT_INTACT),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_model_is_an_error_that_says_so(folder, capsys, damage, message):
    damage(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        CCNet.from_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert capsys.readouterr() == ("", "")


def test_every_wrong_tensor_is_named():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    del state["0.bias"]
    state |= {"2.weight": torch.zeros(5), "1.weight": torch.zeros(6)}
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        load_strictly(module, state)
    for part in ("missing 0.bias (4,)", "unexpected 2.weight (5,)", "1.weight is (6,) instead of"):
        assert part in str(caught.value)
    assert_equal(dict(module.state_dict()), before)


@pytest.mark.parametrize("dtype", ["int8", "bool", "float8_e4m3fn", "float8_e5m2", "complex64"])
def test_quantised_weights_are_not_taken_for_weights(dtype):
    module = nn.BatchNorm2d(4)
    state = {name: value.to(getattr(torch, dtype)) for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=rf"weight is torch\.{dtype}: the network needs floating"):
        load_strictly(module, state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_precision_are_taken(dtype):
    module = nn.BatchNorm2d(4)
    load_strictly(module, {key: value.to(dtype) + 1 for key, value in module.state_dict().items()})
    assert (module.weight.tolist(), module.num_batches_tracked.tolist()) == ([2.0] * 4, 1)


def test_fresh_parts_keep_their_values():
    module = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = {name: value + 1 for name, value in before.items() if name.startswith("a.")}
    load_strictly(module, given, fresh=["b."])
    assert_equal(dict(module.state_dict()), {**before, **given})
    with pytest.raises(ValueError, match=r"unexpected b\.bias"):
        load_strictly(module, {**given, "b.bias": torch.zeros(3)}, fresh=["b."])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_network_keeps_its_dtype(saved, folder, device):
    with torch.device(device):
        half = CCNet(**saved.config).bfloat16()
    load_strictly(half, read_weights(folder / "model.safetensors").state_dict)
    found = {(value.dtype, value.device.type) for value in half.parameters()}
    assert found == {(torch.bfloat16, "cpu")}


def test_file_holds_tensors_of_any_layout_configuration_and_details(tmp_path):
    images = torch.randn(4, 3, 5, 2).to(memory_format=torch.channels_last)
    state = {"a": images, "b": torch.randn(3, 5).T}
    config, details = {"backbone": "resnet18", "n": [1]}, {"license": "MIT"}
    path = tmp_path / "a.safetensors"
    write_weights(path, ModelWeights(state, config, details))
    loaded = read_weights(str(path))
    assert_equal(loaded.state_dict, state)
    assert (loaded.config, loaded.details, loaded.source) == (config, details, str(path))


def test_file_name_need_not_be_utf8(tmp_path):
    state, path = {"a": torch.randn(9)}, tmp_path / os.fsdecode(b"w\xff.safetensors")
    write_weights(path, ModelWeights(state, {"recurrence": 2}, {"license": "MIT"}))
    loaded = read_weights(path)
    assert_equal(loaded.state_dict, state)
    assert (loaded.config, loaded.details) == ({"recurrence": 2}, {"license": "MIT"})
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is not an intact safetensors file"):
        read_weights(path)


def test_changed_bit_is_noticed(tmp_path):
    state = {"a": torch.randn(9), "b": torch.ones(3, dtype=torch.bfloat16), "n": torch.tensor(3)}
    config, details = {"backbone": "resnet18", "num_classes": 2, "recurrence": 2}, {"license": "x"}
    path = tmp_path / "a.safetensors"
    write_weights(path, ModelWeights(state, config, details))
    content = path.read_bytes()
    noticed = 0
    for index in range(len(content)):
        changed = bytearray(content)
        changed[index] ^= 1 << index % 8
        path.write_bytes(changed)
        try:
            found = read_weights(path)
        except ValueError:
            noticed += 1
        else:
            assert_equal(found.state_dict, state)
            assert (found.config, found.details) == (config, details)
    assert noticed > 0.8 * len(content)


def test_configuration_beside_the_file_is_used_and_said(folder, caplog):
    config = (folder / "config.json").read_text()
    assert CCNet.from_pretrained(folder).config["recurrence"] == 1
    assert not caplog.text
    (folder / "config.json").write_text(config.replace('"recurrence": 1', '"recurrence": 3'))
    assert CCNet.from_pretrained(folder).config["recurrence"] == 3
    assert "config.json is used, though model.safetensors has another one" in caplog.text


def test_failure_while_writing_leaves_the_older_files(folder, pristine, make_model, monkeypatch):
    def write_half(tensors, path, metadata):
        path.write_bytes(b"half of the file")
        raise OSError("no space left")

    monkeypatch.setattr("ccnet.weights.serialization.save_file", write_half)
    with pytest.raises(OSError, match="no space left"):
        make_model(4).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == pristine


def test_configuration_that_is_not_json_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_weights(path, ModelWeights({"a": torch.ones(2)}, {}))
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_weights(path, ModelWeights({"a": torch.zeros(2)}, {"device": object()}))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_same_weights_are_the_same_bytes(tmp_path, model):
    weights = replace(model.to_weights(), details={"license": "MIT", "source": "Strasse \u00df"})
    written = set()
    for index in range(8):
        write_weights(tmp_path / f"{index}.safetensors", weights)
        written.add((tmp_path / f"{index}.safetensors").read_bytes())
    assert len(written) == 1
    loaded = read_weights(tmp_path / "0.safetensors")
    assert (loaded.config, loaded.details) == (weights.config, weights.details)
    assert_equal(loaded.state_dict, weights.state_dict)
