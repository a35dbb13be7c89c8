"""The registry of pretrained weights: complete, consistent, nothing mistaken for another."""

import json
import re

import pytest
import torch
import weights_table

from ccnet.classes import ADE20K, CITYSCAPES, VOC, LabelSet
from ccnet.model import CCNet
from ccnet.weights import REGISTRY, BackboneWeights, CCNet_ResNet18_Weights
from ccnet.weights.registry import details_of, find_member

NETWORKS = [member for choice in REGISTRY.values() for member in choice]
MEMBERS = [*NETWORKS, *BackboneWeights]
OPENMMLAB = [member for member in NETWORKS if member.name.startswith("OPENMMLAB")]


def test_members_are_distinct():
    for choice in (*REGISTRY.values(), BackboneWeights):
        aliases = {name for name, member in choice.__members__.items() if member.name != name}
        assert aliases <= {"DEFAULT"}
    assert len({member.meta["file"] for member in MEMBERS}) == len(MEMBERS)


@pytest.mark.parametrize("backbone", REGISTRY)
def test_every_network_has_a_default(backbone):
    assert REGISTRY[backbone].DEFAULT in REGISTRY[backbone]
    assert {member.meta["config"]["backbone"] for member in REGISTRY[backbone]} == {backbone}


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_files_are_pinned(member):
    assert member.meta["file"].endswith(".safetensors")
    hub = member.meta["hub"] or {}
    for sha256 in (member.meta["sha256"], hub.get("sha256")):
        assert sha256 is None or re.fullmatch("[0-9a-f]{64}", sha256)
    if hub:
        assert re.fullmatch("[0-9a-f]{40}", hub["revision"])
        assert hub["sha256"]
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", hub["repo_id"])
        assert hub["filename"].endswith(".safetensors")


@pytest.mark.parametrize("member", OPENMMLAB, ids=str)
def test_openmmlab_urls_end_in_their_hash(member):
    url, prefix = member.meta["origin"]["url"], member.meta["origin"]["sha256_prefix"]
    assert re.fullmatch("[0-9a-f]{8}", prefix)
    depth, crop, schedule, data = re.fullmatch(
        r"https://download\.openmmlab\.com/mmsegmentation/v0\.5/ccnet/"
        r"(?P<name>ccnet_r(50|101)-d8_(512x1024|769x769|512x512)_(\d+0k)"
        r"_(cityscapes|ade20k|voc12aug))/"
        rf"(?P=name)_\d{{8}}_\d{{6}}-{prefix}\.pth",
        url,
    ).groups()[1:]
    assert member.meta["config"]["backbone"] == f"resnet{depth}"
    assert member.name == f"OPENMMLAB_{data}_{crop}_{schedule}".upper()
    is_sliding = crop == "769x769"
    assert member.meta["config"]["align_corners"] is is_sliding
    assert member.meta["protocol"].mode == ("slide" if is_sliding else "whole")
    assert member.meta["protocol"].box == (None if data == "cityscapes" else (2048, 512))
    labels, measured_on, batch = {
        "cityscapes": (CITYSCAPES, "Cityscapes val", 8),
        "ade20k": (ADE20K, "ADE20K val", 16),
        "voc12aug": (VOC, "Pascal VOC 2012 val", 16),
    }[data]
    assert LabelSet.from_config(member.meta["config"]["label_set"]) == labels
    assert list(member.meta["metrics"]) == [measured_on]
    assert member.meta["recipe"].startswith(f"batch {batch}, {schedule} steps, crop {crop}, ")


@pytest.mark.parametrize("member", NETWORKS, ids=str)
def test_entry_describes_its_network(member):
    with torch.device("meta"):
        model = CCNet(**member.meta["config"])
    assert sum(value.numel() for value in model.parameters()) == member.meta["num_params"]
    assert list(model.label_set.categories) == member.meta["categories"]
    assert [list(color) for color in model.label_set.colors] == member.meta["colors"]
    assert model.transforms() == member.transforms()


@pytest.mark.parametrize("member", NETWORKS, ids=str)
def test_details_are_complete_and_json_able(member):
    details = details_of(member)
    assert json.loads(json.dumps(details)) == details
    assert {"weights", "dataset", "metrics", "whose", "protocol", "license"} <= details.keys()


def test_readme_has_the_table_of_the_registry(repository):
    readme = (repository / "README.md").read_text()
    assert weights_table.replace_table(readme) == readme
    assert weights_table.replace_table(readme.replace("79.45", "80.45")) == readme
    assert len(weights_table.make_table().splitlines()) == 2 + 1 + 8 + 11


def test_torchvisions_way_of_loading_is_refused():
    with pytest.raises(ValueError, match=r"pass CCNet_ResNet18_Weights\.CAMVID as weights="):
        CCNet_ResNet18_Weights.CAMVID.get_state_dict(progress=False)


def test_members_are_found_by_their_full_name():
    assert find_member("CCNet_ResNet18_Weights.CAMVID") is CCNet_ResNet18_Weights.CAMVID
    for name in ("CAMVID", "REGISTRY.resnet18", "CCNet_ResNet18_Weights.meta", ""):
        with pytest.raises(ValueError, match=f"the registry has no {name}"):
            find_member(name)
