"""Weights on disk: exact, strict, silent, all or nothing; and the way through the Hub."""

import json
import re

import pytest
import torch
from hub_server import HubServer, Repository
from safetensors.torch import load_file, save_file
from torch import nn

from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_weights, save_weights

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


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def change_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_a_saved_model_comes_back_exactly(saved, tmp_path, pixels, capsys, no_network):
    saved.save_pretrained(tmp_path / "a" / "model")
    assert {path.name for path in (tmp_path / "a" / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    loaded = CCNet.from_pretrained(tmp_path / "a" / "model")
    assert capsys.readouterr() == ("", "")
    assert not loaded.training
    assert_same_state(loaded, saved)
    assert loaded.config == saved.config
    assert loaded.preprocessing == saved.preprocessing
    assert loaded.label_set == saved.label_set
    assert torch.equal(loaded.predict(pixels).labels, saved.predict(pixels).labels)


def test_the_model_card_names_the_task_and_no_licence_that_nobody_gave(folder):
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert "license" not in card
    assert "1811.11721" in card


@pytest.mark.parametrize("name", ["/nowhere/model", "no/such/folder", "model.safetensors"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(
    folder, name, monkeypatch, no_network
):
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match=f"^no folder {name}"):
        CCNet.from_pretrained(name)


def test_arguments_replace_those_of_the_configuration(folder):
    assert CCNet.from_pretrained(folder, recurrence=2).config["recurrence"] == 2


def test_saving_over_an_older_model_replaces_weights_and_configuration(folder, make_model):
    (folder / "README.md").write_text("my own card\n")
    newer = make_model(4, seed=2)
    newer.save_pretrained(folder)
    loaded = CCNet.from_pretrained(folder)
    assert loaded.config == newer.config
    assert_same_state(loaded, newer)
    assert (folder / "README.md").read_text() == "my own card\n"


def drop_a_tensor(state):
    del state["head.cca.gamma"]


def add_a_tensor(state):
    state["head.extra.weight"] = torch.zeros(2)


def reshape_a_tensor(state):
    state["head.classifier.bias"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda path: (path / "config.json").unlink(), FileNotFoundError, "no config.json in"),
        (
            lambda path: (path / "model.safetensors").unlink(),
            FileNotFoundError,
            "no model.safetensors in",
        ),
        (
            lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
            FileNotFoundError,
            "no model.safetensors in",
        ),
        (
            lambda path: change_weights(path, drop_a_tensor),
            ValueError,
            r"missing head\.cca\.gamma \(1,\)",
        ),
        (
            lambda path: change_weights(path, add_a_tensor),
            ValueError,
            r"unexpected head\.extra\.weight \(2,\)",
        ),
        (
            lambda path: change_weights(path, reshape_a_tensor),
            ValueError,
            r"head\.classifier\.bias is \(7,\) instead of \(3,\)",
        ),
        (lambda path: change_config(path, looops=2), ValueError, "config.json .*looops"),
        (
            lambda path: change_config(path, backbone_options={"strides": 8}),
            ValueError,
            "config.json .*strides",
        ),
        (
            lambda path: (path / "config.json").write_text('{"backbone": '),
            ValueError,
            "config.json is not JSON",
        ),
        (lambda path: (path / "config.json").write_text("[1, 2]"), ValueError, "config.json"),
        (
            lambda path: (path / "model.safetensors").write_bytes(b"\x00" * 50),
            ValueError,
            "model.safetensors is not an intact safetensors file",
        ),
        (
            lambda path: (path / "model.safetensors").write_bytes(
                (path / "model.safetensors").read_bytes()[:-1000]
            ),
            ValueError,
            "model.safetensors is not an intact safetensors file",
        ),
        (
            lambda path: (path / "model.safetensors").write_bytes(b""),
            ValueError,
            "model.safetensors is not an intact safetensors file",
        ),
    ],
    ids=[
        "no config",
        "no weights",
        "pickle only",
        "missing key",
        "extra key",
        "wrong shape",
        "unknown argument",
        "unknown backbone option",
        "config is not JSON",
        "config is a list",
        "corrupt weights",
        "truncated weights",
        "empty weights",
    ],
)
def test_a_damaged_model_is_an_error_that_says_so(folder, capsys, damage, error, message):
    damage(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        CCNet.from_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert capsys.readouterr() == ("", "")


def test_every_wrong_tensor_is_named():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    del state["0.bias"]
    state["2.weight"] = torch.zeros(5)
    state["1.weight"] = torch.zeros(6)
    with pytest.raises(ValueError, match="not for this network") as caught:
        load_strictly(module, state)
    for part in ("missing 0.bias (4,)", "unexpected 2.weight (5,)", "1.weight is (6,) instead of"):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_parts_may_be_left_as_they_are():
    module = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = {name: value + 1 for name, value in before.items() if name.startswith("a.")}
    load_strictly(module, given, fresh=["b."])
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name] + name.startswith("a."))
    with pytest.raises(ValueError, match=r"unexpected b\.bias"):
        load_strictly(module, {**given, "b.bias": torch.zeros(3)}, fresh=["b."])


def test_a_networks_own_dtype_stays(saved, folder):
    half = CCNet(**saved.config).bfloat16()
    load_strictly(half, read_weights(folder / "model.safetensors")[0])
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}


def test_weights_that_are_not_contiguous_are_saved(tmp_path):
    state = {
        "a": torch.randn(4, 3, 5, 2).to(memory_format=torch.channels_last),
        "b": torch.randn(3, 5).T,
    }
    save_weights(tmp_path / "a.safetensors", state, {"backbone": "resnet18", "n": [1]})
    loaded, config = read_weights(str(tmp_path / "a.safetensors"))
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert config == {"backbone": "resnet18", "n": [1]}


def test_a_file_without_a_configuration_has_an_empty_one(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors")[1] == {}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.safetensors"):
        read_weights(tmp_path / "none.safetensors")


def test_a_failure_while_writing_leaves_the_older_files(folder, pristine, make_model, monkeypatch):
    def write_half(tensors, path, metadata):
        path.write_bytes(b"half of the file")
        raise OSError("no space left")

    monkeypatch.setattr("ccnet.serialization.save_file", write_half)
    with pytest.raises(OSError, match="no space left"):
        make_model(4).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == pristine


def test_a_configuration_that_is_not_json_leaves_the_older_file(tmp_path):
    save_weights(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {})
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_weights(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {"device": object()})
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


FROM_HUB = """
import sys
import torch
from huggingface_hub.errors import HfHubHTTPError
from ccnet import CCNet
model = CCNet.from_pretrained("someone/model")
again = CCNet.from_pretrained("someone/model", revision="main", local_files_only=True)
assert again.config == model.config
try:
    CCNet.from_pretrained("someone/nothing")
except HfHubHTTPError as error:
    assert "404" in str(error), error
else:
    raise AssertionError("a repository that does not exist was loaded")
torch.save({"state": model.state_dict(), "config": model.config}, sys.argv[1])
"""


@pytest.fixture
def hub(pristine):
    with HubServer() as server:
        server.repositories["someone/model"] = Repository(pristine)
        yield server


def test_a_model_is_loaded_from_the_hub(hub, saved, run_python, tmp_path):
    out = tmp_path / "loaded.pt"
    variables = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    result = run_python("-c", FROM_HUB, out, cwd=tmp_path, **variables)
    assert result.stdout == ""
    loaded = torch.load(out, weights_only=True)
    assert loaded["config"] == saved.config
    state = saved.state_dict()
    assert loaded["state"].keys() == state.keys()
    assert all(torch.equal(loaded["state"][name], state[name]) for name in state)
    fetched = hub.requests("GET", "/someone/model/")
    assert sorted(path.rsplit("/", 1)[1] for _, path, _ in fetched) == [
        "config.json",
        "model.safetensors",
    ]
