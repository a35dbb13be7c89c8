"""The registry of pretrained weights: nothing invented, nothing mistaken for another."""

import importlib
import re
from urllib.error import URLError

import pytest
import torch
from torchvision.models import ResNet18_Weights

import ccnet
from ccnet import download, pretrained
from ccnet.backbone import Backbone
from ccnet.download import Loaded, load_weights
from ccnet.model import CCNet
from ccnet.weights import BackboneWeights

CHOICES = {
    "resnet18": ccnet.CCNet_ResNet18_Weights,
    "resnet50": ccnet.CCNet_ResNet50_Weights,
    "resnet101": ccnet.CCNet_ResNet101_Weights,
}
NETWORKS = [member for choice in CHOICES.values() for member in choice]
MEMBERS = [*NETWORKS, *BackboneWeights]
OPENMMLAB = [member for member in NETWORKS if member.name.startswith("OPENMMLAB")]
AUTHORS = [member for member in NETWORKS if member.name.startswith("AUTHORS")]


def test_there_are_as_many_as_are_published():
    assert (len(OPENMMLAB), len(AUTHORS)) == (8, 3)
    assert len(MEMBERS) == 13


def test_no_two_members_are_one():
    for choice in (*CHOICES.values(), BackboneWeights):
        aliases = {name for name, member in choice.__members__.items() if member.name != name}
        assert aliases <= {"DEFAULT"}
    for index, one in enumerate(MEMBERS):
        for other in MEMBERS[:index]:
            assert one is not other
            assert one.meta != other.meta
            assert one.meta["file"] != other.meta["file"]


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_what_is_on_the_hub_is_pinned(member):
    hub = member.meta["hub"]
    if hub is not None:
        assert re.fullmatch("[0-9a-f]{40}", hub["revision"])
        assert re.fullmatch("[0-9a-f]{64}", hub["sha256"])
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", hub["repo_id"])
        assert hub["filename"].endswith(".safetensors")


def test_the_timm_backbone_is_the_stated_one():
    hub = BackboneWeights.RESNET101S_GLUON_IN1K.meta["hub"]
    assert hub["repo_id"] == "timm/resnet101s.gluon_in1k"
    assert hub["revision"] == "d22a5724a07d2e87b1491825c635150f993b9d97"
    assert hub["sha256"].startswith("71b3a168cb34fe67")


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.meta["hub"] is None], ids=str
)
def test_what_is_not_on_the_hub_is_never_asked_for_there(member, monkeypatch, tmp_path, no_network):
    asked = []

    def refuse(url, *_):
        asked.append(url)
        raise URLError("no network here")

    def never(*arguments, **_):
        raise AssertionError(f"asked the Hub for {arguments}")

    monkeypatch.setattr(download, "BUNDLED_DIRS", ())
    monkeypatch.setattr(download, "hf_hub_download", never)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("CCNET_WEIGHTS_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match=re.escape(str(member))) as caught:
        load_weights(member)
    origin = member.meta["origin"]
    assert asked == ([origin["url"]] if origin else [])
    assert all(url in str(caught.value) for url in asked)
    if member in AUTHORS:
        assert "Google Drive" in str(caught.value)
        assert 'weights="CS_scenes_60000.pth"' in str(caught.value)


@pytest.mark.parametrize("member", OPENMMLAB, ids=str)
def test_openmmlabs_addresses_end_in_their_hash(member):
    url, prefix = member.meta["origin"]["url"], member.meta["origin"]["sha256_prefix"]
    assert re.fullmatch("[0-9a-f]{8}", prefix)
    depth, crop, schedule = re.fullmatch(
        r"https://download\.openmmlab\.com/mmsegmentation/v0\.5/ccnet/"
        r"(?P<name>ccnet_r(50|101)-d8_(512x1024|769x769)_([48]0k)_cityscapes)/"
        rf"(?P=name)_\d{{8}}_\d{{6}}-{prefix}\.pth",
        url,
    ).groups()[1:]
    assert member.meta["config"]["backbone"] == f"resnet{depth}"
    assert member.name == f"OPENMMLAB_CITYSCAPES_{crop}_{schedule}".upper()
    slides = crop == "769x769"
    assert member.meta["config"]["align_corners"] is slides
    assert member.meta["protocol"]["mode"] == ("slide" if slides else "whole")


def test_openmmlabs_figures_are_the_published_ones():
    published = {
        "4123f401": (77.76, 78.87),
        "a3b84ba6": (76.35, 78.19),
        "76d11884": (78.46, 79.93),
        "4f57c8d0": (76.94, 78.62),
        "869a3423": (79.03, 80.16),
        "ffae8917": (78.87, 79.90),
        "73eed8ca": (79.29, 81.08),
        "ad3cd481": (79.45, 80.66),
    }
    registered = {
        member.meta["origin"]["sha256_prefix"]: tuple(
            member.meta["metrics"]["Cityscapes val"].values()
        )
        for member in OPENMMLAB
    }
    assert registered == published


@pytest.mark.parametrize("member", NETWORKS, ids=str)
def test_the_network_is_as_large_as_stated(member):
    with torch.device("meta"):
        model = CCNet(**member.meta["config"])
    assert sum(value.numel() for value in model.parameters()) == member.meta["num_params"]
    assert list(model.label_set.categories) == member.meta["categories"]
    assert [list(color) for color in model.label_set.colors] == member.meta["colors"]
    assert model.transforms() == member.transforms()


def test_defaults():
    name = "OPENMMLAB_CITYSCAPES_769X769_80K"
    for backbone, miou in (("resnet101", 79.45), ("resnet50", 79.29)):
        default = CHOICES[backbone].DEFAULT
        assert default.name == name
        assert default.meta["metrics"]["Cityscapes val"]["mIoU"] == miou
    assert ccnet.CCNet_ResNet18_Weights.DEFAULT is ccnet.CCNet_ResNet18_Weights.CAMVID


def test_weights_and_backbone_weights_exclude_each_other(weights_file):
    with pytest.raises(ValueError, match="either weights or weights_backbone"):
        ccnet.ccnet_resnet18(weights=weights_file, weights_backbone="DEFAULT")


@pytest.mark.parametrize("choice", ["DEFAULT", "IMAGENET1K_V1", ResNet18_Weights.IMAGENET1K_V1])
def test_the_plain_stem_takes_torchvisions_weights(choice, monkeypatch):
    from torchvision.models import resnet18

    theirs = resnet18().state_dict()
    asked = []

    def give(self, **options):
        asked.append((self, options["check_hash"]))
        return theirs

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", give)
    model = ccnet.ccnet_resnet18(weights_backbone=choice)
    assert asked == [(ResNet18_Weights.IMAGENET1K_V1, True)]
    assert torch.equal(model.backbone.stem[0].weight, theirs["conv1.weight"])
    assert torch.equal(model.backbone.layer4[1].bn2.weight, theirs["layer4.1.bn2.weight"])


@pytest.mark.parametrize("choice", ["DEFAULT", BackboneWeights.RESNET101S_GLUON_IN1K])
def test_the_deep_stem_takes_timms_weights(choice, monkeypatch):
    with torch.device("meta"):
        ours = Backbone("resnet101").state_dict()
    names = {"stem.0": "conv1.0", "stem.1": "conv1.1", "stem.3": "conv1.3"}
    names |= {"stem.4": "conv1.4", "stem.6": "conv1.6", "stem.7": "bn1"}
    theirs = {"fc.weight": torch.ones(1)}
    for name, value in ours.items():
        layer, _, kind = name.rpartition(".")
        theirs[f"{names.get(layer, layer)}.{kind}"] = torch.full_like(value, 0.5, device="cpu")
    asked = []

    def load(member, progress):
        asked.append(member)
        return Loaded(theirs, {}, "here")

    monkeypatch.setattr(pretrained, "load_weights", load)
    model = ccnet.ccnet_resnet101(weights_backbone=choice, aux_channels=8)
    assert asked == [BackboneWeights.RESNET101S_GLUON_IN1K]
    for value in model.backbone.parameters():
        assert (value == 0.5).all()
    assert model.head.classifier.weight.std() > 0


@pytest.mark.parametrize("name", ["mine", "RESNET101S_GLUON_IN1K", ResNet18_Weights.DEFAULT])
def test_backbone_weights_of_another_network_are_refused(name):
    with pytest.raises(ValueError, match=r"no ImageNet weights .* for resnet50"):
        ccnet.ccnet_resnet50(weights_backbone=name, aux_channels=0)


def test_a_pretrained_network_initialises_nothing(weights_file, monkeypatch):
    real = []

    def record(module):
        real.extend(value for value in module.parameters() if not value.is_meta)

    monkeypatch.setattr("torch.nn.Conv2d.reset_parameters", record)
    monkeypatch.setattr("torch.nn.BatchNorm2d.reset_parameters", record)
    monkeypatch.setattr(
        "torch.nn.init.kaiming_normal_",
        lambda tensor, **_: None if tensor.is_meta else real.append(tensor),
    )
    model = ccnet.ccnet_resnet18(weights=weights_file)
    assert not real
    assert not any(value.is_meta for value in model.state_dict().values())
    CCNet("resnet18", 11)
    assert real, "an untrained network initialises, or this test sees nothing"


def test_the_readme_has_the_table_of_the_registry(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "scripts")
    table = importlib.import_module("weights_table")
    readme = (repository / "README.md").read_text()
    assert table.replace_table(readme) == readme
    assert table.replace_table(readme.replace("79.45", "80.45")) == readme
    assert len(table.make_table().splitlines()) == 2 + 1 + 4 + 7
