"""Weights of timm's networks: from the Hub, from files, adapted, strictly."""

import pytest
import torch
from hub_server import COMMIT, NOWHERE, Repository, connect
from safetensors.torch import save, save_file

import ccnet

timm = pytest.importorskip("timm")

TAGS = {
    "test_resnet": "timm/test_resnet.r160_in1k",
    "test_convnext": "timm/test_convnext.r160_in1k",
}
"""Networks and the repository of the weights that timm names for them."""


def classifier(name):
    """A whole network of timm, with weights that no other has, and norms that are not trivial."""
    network = timm.create_model(name).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.01, 0.1)
    return network


def expected_maps(network, x):
    with torch.no_grad():
        return network.forward_intermediates(x, intermediates_only=True)[-2:]


@pytest.mark.parametrize(("name", "repo_id"), TAGS.items())
def test_default_weights_come_from_the_hub_with_their_revision(
    name, repo_id, hub, home, monkeypatch
):
    network = classifier(name)
    hub.repositories[repo_id] = Repository({"model.safetensors": save(network.state_dict())})
    options = {"output_stride": 32}
    build = {"weights_backbone": "DEFAULT", "num_classes": 3, "backbone_options": options}
    model = ccnet.build_ccnet(f"timm:{name}", **build).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(list(model.backbone(x)), expected_maps(network, x))
    assert model.card_details["weights"] == f"derived from hf://{repo_id}@{COMMIT}"
    pinned = {**build, "weights_backbone": f"hf://{repo_id}@{COMMIT}"}
    connect(monkeypatch, NOWHERE, home, offline=True)  # both are kept
    for again in (build, pinned):
        same = ccnet.build_ccnet(f"timm:{name}", **again).backbone.state_dict()
        torch.testing.assert_close(same, model.backbone.state_dict(), rtol=0, atol=0)


def test_weights_that_cannot_be_had_are_told(hub, home, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"hf://timm/test_resnet\.r160_in1k could not be"):
        ccnet.build_ccnet("timm:test_resnet", weights_backbone="DEFAULT")
    connect(monkeypatch, hub.address, home, offline=True)
    hub.asked.clear()
    message = r"hf://timm/test_resnet\.r160_in1k could not be .*\nGive the path .* HF_HUB_OFFLINE"
    with pytest.raises(FileNotFoundError, match=message):
        ccnet.build_ccnet("timm:test_resnet", weights_backbone="DEFAULT")
    assert not hub.asked
    model = ccnet.CCNet("timm:test_resnet", 3, 0)
    model.backbone.network.pretrained_cfg.pop("hf_hub_id")
    message = r"knows no weights .*timm:test_resnet: take timm:test_resnet\.r160_in1k, or give the"
    with pytest.raises(ValueError, match=message):
        ccnet.backbones.load_timm(model.backbone, "DEFAULT")
    with pytest.raises(ValueError, match=r"^https://example\.org/x is a URL: download"):
        ccnet.build_ccnet("timm:test_resnet", weights_backbone="https://example.org/x")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*mine"):
        ccnet.build_ccnet("timm:test_resnet", weights_backbone="mine")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_file_of_timms_weights_is_adapted_to_the_channels(channels, wrapped, tmp_path):
    network = classifier("test_resnet")
    path = tmp_path / ("mine.pth" if wrapped else "mine.safetensors")
    if wrapped:
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    else:
        save_file(network.state_dict(), path)
    model = ccnet.build_ccnet("timm:test_resnet", weights_backbone=path, in_channels=channels)
    kernels = network.conv1[0].weight
    expected = {1: kernels.sum(1, keepdim=True), 3: kernels, 4: kernels[:, [0, 1, 2, 0]] * 0.75}
    torch.testing.assert_close(model.backbone.network.conv1[0].weight, expected[channels])


@pytest.mark.parametrize(
    ("name", "lost"),
    [("test_resnet", "layer3.0.conv1.weight"), ("test_efficientnet", "blocks.1.0.conv_exp.weight")],
)
def test_weights_that_lack_something_are_refused(name, lost, tmp_path):
    tensors = classifier(name).state_dict()
    del tensors[lost]
    save_file(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=lost):
        ccnet.build_ccnet(f"timm:{name}", weights_backbone=tmp_path / "mine.safetensors")


def test_backbone_of_a_saved_network_fits_another_one(tmp_path):
    whole = ccnet.CCNet("timm:test_convnext", num_classes=3, recurrence=0)
    whole.save_pretrained(tmp_path)
    model = ccnet.build_ccnet("timm:test_convnext", weights_backbone=tmp_path, num_classes=5)
    torch.testing.assert_close(model.backbone.state_dict(), whole.backbone.state_dict())


def test_weights_have_no_name_where_none_are_registered():
    with pytest.raises(ValueError, match=r"unknown weights 'DEFAULT': expected \(none are regist"):
        ccnet.build_ccnet("timm:test_resnet", weights="DEFAULT")
