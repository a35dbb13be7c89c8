"""The repository as torch.hub sees it."""

import doctest
import sys
import types

import pytest
import torch

ENTRIES = [
    *("ccnet_resnet18", "ccnet_resnet50", "ccnet_resnet101"),
    *("criss_cross_attention_2d", "criss_cross_attention_3d"),
]

OFFLINE = """
import socket, sys
def refuse(*arguments):
    raise AssertionError(f"tried to connect: {arguments[1:]}")
socket.socket.connect = refuse
import torch
path = list(sys.path)
model = torch.hub.load(sys.argv[1], "ccnet_resnet18", source="local")
assert not model.training
result = model.predict(torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8))
assert result.labels.shape == (90, 120)
assert "bicyclist" in result.categories
assert sys.path[:len(path)] == path
assert sys.path.count(sys.argv[1]) == path.count(sys.argv[1])
"""


@pytest.fixture
def hub(repository, tmp_path, monkeypatch):
    """This repository in torch.hub's cache, where it needs no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "owner_ccnet_main").symlink_to(repository, target_is_directory=True)
    return {"github": "owner/ccnet:main", "trust_repo": True, "skip_validation": True}


def test_entry_points_are_exactly_these(hub, no_network):
    assert sorted(torch.hub.list(**hub, verbose=False)) == sorted(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_example_of_every_entry_point_runs(hub, entry, repository, monkeypatch, no_network):
    text = torch.hub.help(model=entry, **hub)
    assert "Returns:" in text
    monkeypatch.chdir(repository)
    example = doctest.DocTestParser().get_doctest(text, {}, entry, None, None)
    assert example.examples
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_bare_module_is_built(repository, no_network):
    module = torch.hub.load(
        str(repository), "criss_cross_attention_2d", source="local", in_channels=16, reduction=4
    )
    assert module.query_conv.out_channels == 4
    torch.nn.init.constant_(module.gamma, 0.5)
    x = torch.randn(2, 16, 5, 8)
    assert module(x).shape == x.shape
    assert not torch.allclose(module(x), x)


def test_weights_and_options_reach_the_builder(repository, weights_file, no_network):
    model = torch.hub.load(
        str(repository),
        "ccnet_resnet18",
        source="local",
        weights=str(weights_file),
        num_classes=3,
        recurrence=1,
    )
    assert not model.training
    assert (model.config["num_classes"], model.config["recurrence"]) == (3, 1)


@pytest.mark.parametrize("entry", ["ccnet_resnet50", "ccnet_resnet101"])
def test_published_weights_are_an_error_without_a_network(repository, entry, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="OPENMMLAB_CITYSCAPES_769X769_80K was not found"):
        torch.hub.load(str(repository), entry, source="local")


def test_bundled_weights_load_without_a_network(repository, run_python, tmp_path):
    # PyTorch 2.6 leaves the removal of a folder to the interpreter.
    strict = ("-W", "error", "-W", "ignore::ResourceWarning")
    run_python(*strict, "-c", OFFLINE, repository, cwd=tmp_path, PYTHONPATH="")


@pytest.mark.parametrize("path", [["/elsewhere/ccnet"], None], ids=["package", "module"])
def test_another_package_or_module_of_this_name_is_an_error(repository, monkeypatch, path):
    """A file ccnet.py is no package and has no __path__."""
    other = types.ModuleType("ccnet")
    other.__file__ = "/elsewhere/ccnet.py"
    if path:
        other.__path__, other.__file__ = path, "/elsewhere/ccnet/__init__.py"
    monkeypatch.setitem(sys.modules, "ccnet", other)
    with pytest.raises(ImportError, match=r"/elsewhere/ccnet(.|\n)*separate process") as caught:
        torch.hub.load(str(repository), "criss_cross_attention_2d", source="local", in_channels=8)
    assert str(repository) in str(caught.value)


PRETRAINED = {"pretrained": True}, {"pretrained": True, "weights": "CAMVID"}, {"pretrained": False}


@pytest.mark.parametrize("options", PRETRAINED, ids=str)
def test_pretrained_is_taken_for_weights(repository, no_network, caplog, options):
    model = torch.hub.load(str(repository), "ccnet_resnet18", source="local", **options)
    has_weights = options["pretrained"]
    assert (model.label_set.categories[0] == "sky") == has_weights
    assert model.training == (not has_weights)
    chosen = options.get("weights", "DEFAULT") if has_weights else None
    said = f"pretrained={has_weights} is taken as weights={chosen!r}, as it is called here"
    assert caplog.messages == [said]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": "imagenet"}, "pretrained must be True or False, not 'imagenet'"),
        ({"pretrained": False, "weights": "CAMVID"}, "contradicts weights='CAMVID'"),
        ({"pretrained": True, "weights": None}, "contradicts weights=None"),
    ],
)
def test_pretrained_that_says_something_else_is_refused(repository, no_network, options, message):
    with pytest.raises(ValueError, match=message):
        torch.hub.load(str(repository), "ccnet_resnet50", source="local", **options)
