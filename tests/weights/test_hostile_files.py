"""Files that mean harm, or that were damaged on the way, are refused with a clear error."""

import os
import pickle
import re
import zipfile
from dataclasses import replace

import pytest
import torch

import ccnet
from ccnet.weights import ModelWeights, read_weights, write_weights
from ccnet.weights.conversion import convert
from ccnet.weights.pickles import read_pickle
from ccnet.weights.serialization import load_strictly


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


SAVE = {
    "archive": torch.save,
    "old format": lambda content, path: torch.save(
        content, path, _use_new_zipfile_serialization=False
    ),
    "plain pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_code_in_a_pickle_does_not_run(tmp_path, save):
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    save({"state_dict": {"a": torch.zeros(1)}, "meta": Code(trace)}, path)
    with pytest.raises(
        ValueError, match=r"evil\.pth holds more than tensors .*\bposix\.mkdir.* do not load it"
    ) as caught:
        ccnet.ccnet_resnet18(weights=path)
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()
    if save is SAVE["plain pickle"]:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists(), "the file is harmless, and this test cannot fail"


def test_compressed_archive_is_refused(tmp_path):
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


def test_tensor_that_the_archive_calls_a_folder_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.randn(9)}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"a/data/0") - 46 + 38] ^= 0x10  # in the directory, the attributes
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is damaged.*calls a file in it a folder"):
        read_pickle(path)


def test_archive_that_was_packed_again_with_folders_is_read(tmp_path):
    torch.save({"a": torch.arange(9)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source:
        source.extractall(tmp_path)
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for path in [tmp_path / "a", *sorted((tmp_path / "a").rglob("*"))]:
            target.write(path, path.relative_to(tmp_path))
    assert any(entry.external_attr & 0x10 for entry in zipfile.ZipFile(tmp_path / "b.pth").filelist)
    assert torch.equal(read_pickle(tmp_path / "b.pth")["a"], torch.arange(9))


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.weight", "unexpected"])
def test_expanded_tensor_is_refused(name):
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
    write_weights(path, ModelWeights({"a": torch.randn(1000)}, {}))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("name", "write"), [("a.pth", checkpoint), ("a.safetensors", weights)])
def test_truncated_file_is_refused(tmp_path, name, write, keep):
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is (damaged|not an intact)"):
        ccnet.ccnet_resnet18(weights=path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), "text"])
def test_checkpoint_without_a_mapping_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"holds a {type(content).__name__}, not a state dict"):
        read_pickle(tmp_path / "a.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(weights_file, tmp_path, bad):
    weights = read_weights(weights_file)
    weights.state_dict["head.conva.0.weight"].view(-1)[3] = bad
    path = tmp_path / "changed.safetensors"
    write_weights(path, weights)
    with pytest.raises(ValueError, match=r"head\.conva\.0\.weight has values that are not finite"):
        ccnet.ccnet_resnet18(weights=path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loops": 3}, "configuration of .*loops"),
        ({"num_classes": 12}, "12"),
        ({"num_classes": "many"}, "many"),
        ({"recurrence": -1}, "recurrence"),
        ({"backbone": ["resnet18"]}, "resnet18"),
        ({"backbone_options": {"strides": 8}}, "configuration of .*strides"),
        ({"label_set": 3}, "label"),
        ({"label_set": {"colors": []}}, "categories"),
        ({"preprocessing": {"mean": [1.0]}}, "mean"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_configuration_is_refused(weights_file, tmp_path, fields, message):
    weights = read_weights(weights_file)
    path = tmp_path / "changed.safetensors"
    write_weights(path, replace(weights, config={**weights.config, **fields}))
    with pytest.raises(ValueError, match=message):
        ccnet.ccnet_resnet18(weights=path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((f"hf://{name}", re.escape(name)) for name in ("../../etc", "../etc/passwd", "a/b/c")),
        ("../../x", re.escape("../../x")),
        ("", "unknown weights ''"),
        *((name, f"{name} is no address of weights") for name in ("hf://", "hf://@main")),
    ],
)
def test_name_that_climbs_or_leads_nowhere_is_refused(
    name, message, no_network, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        ccnet.ccnet_resnet18(weights=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "x.pth", "x.safetensors"])
def test_urls_are_told_to_be_downloaded(name, no_network):
    url = f"https://example.org/{name}"
    for load in (
        lambda: ccnet.ccnet_resnet18(weights=url),
        lambda: ccnet.CCNet.from_pretrained(url),
        lambda: ccnet.ccnet_resnet18(weights_backbone=url),
    ):
        with pytest.raises(ValueError, match=f"^{url} is a URL: download the file and give its"):
            load()
