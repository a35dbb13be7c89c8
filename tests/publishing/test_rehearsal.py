"""The whole zoo goes to the Hub with one command, and comes back from there alone."""

import hashlib
import json
import re

import pytest
import torch
from families import AUTHORS, OPENMMLAB, PURE_PYTORCH, difference, forward, random_input
from hub_server import uploads
from huggingface_hub import ModelCard
from rehearsal import BY_HAND, LARGE, LATE, MEMBERS, OWN

import ccnet
from ccnet.weights import CCNet_ResNet18_Weights
from ccnet.weights.pins import read_pins

BUNDLED = CCNet_ResNet18_Weights.CAMVID
PUBLISHED = {
    BUNDLED: "us/ccnet_resnet18_camvid",
    LARGE: "us/ccnet_resnet101_openmmlab_cityscapes_769x769_80k",
}

LOAD = """
import socket, sys
import torch
port = int(sys.argv[1])
connect = socket.socket.connect
def only_the_hub(self, address):
    assert address[1] == port, f"tried to connect to {address}"
    return connect(self, address)
socket.socket.connect = only_the_hub
model = torch.hub.load(sys.argv[2], "ccnet_resnet101", source="local", progress=False)
with torch.inference_mode():
    torch.save(model(torch.load("x.pt"))["out"], "y.pt")
"""

pytestmark = uploads


@pytest.fixture(scope="module")
def printed(rehearsal):
    """What the command prints that publishes all that can be had."""
    rehearsal.offer(LARGE)
    return rehearsal.publish("--yes", status=1)


def test_what_can_be_had_is_published_whatever_fails(printed):
    for member in MEMBERS:
        state = "published" if member in PUBLISHED else "failed"
        state = "by hand" if member.name.startswith("AUTHORS") else state
        assert f"\n{state:<9}  {member} " in printed
    assert printed.count("the server answered 404") == 15
    assert "2 published, 3 by hand, 15 failed" in printed


def test_pins_are_those_of_what_was_uploaded(rehearsal, printed):
    pins = read_pins(rehearsal.pins)
    assert pins.keys() == set(map(str, PUBLISHED))
    for member, repo_id in PUBLISHED.items():
        repository = rehearsal.server.repositories[repo_id]
        assert pins[str(member)] == {
            "repo_id": repo_id,
            "revision": repository.head,
            "filename": "model.safetensors",
            "sha256": hashlib.sha256(repository.files["model.safetensors"]).hexdigest(),
        }
        names = {"README.md", "config.json", "example.png", "model.safetensors"}
        second = {"weights/ccnet_resnet18_camvid.md"} if member is BUNDLED else set()
        assert repository.files.keys() == names | second
        backbone = member.meta["config"]["backbone"]
        assert json.loads(repository.files["config.json"])["backbone"] == backbone


def test_network_comes_from_the_hub_alone_and_then_from_the_cache(
    rehearsal, printed, run_forked, tmp_path
):
    x = random_input((33, 49))
    torch.save(x.float(), tmp_path / "x.pt")
    expected = forward(OPENMMLAB, rehearsal.states[LARGE], x)[0]
    environment = rehearsal.server.environment(tmp_path / "fresh")
    port = rehearsal.server.address.rpartition(":")[2]
    for offline in ("0", "1"):
        rehearsal.server.asked.clear()
        variables = {**environment, "HF_HUB_OFFLINE": offline}
        run_forked("-c", LOAD, port, rehearsal.copy, cwd=tmp_path, **variables)
        assert difference(torch.load(tmp_path / "y.pt"), expected) < 1e-3
        (tmp_path / "y.pt").unlink()
        paths = {path for _, path, _ in rehearsal.server.asked if not path.startswith("/api/")}
        revision = read_pins(rehearsal.pins)[str(LARGE)]["revision"]
        file = f"/{PUBLISHED[LARGE]}/resolve/{revision}/model.safetensors"
        assert paths == (set() if offline == "1" else {file})


def test_it_goes_on_where_it_stopped(rehearsal, printed):
    rehearsal.offer(LATE)
    before = rehearsal.pins.read_bytes()
    rehearsal.server.asked.clear()
    again = rehearsal.publish("--yes", status=1)
    assert "1 published, 2 pinned, 3 by hand, 14 failed" in again
    sent = {path for method, path, _ in rehearsal.server.asked if method != "HEAD"}
    assert not [path for path in sent for repo_id in PUBLISHED.values() if repo_id in path]
    assert json.loads(before).items() < read_pins(rehearsal.pins).items()


@pytest.mark.slow
def test_other_families_go_the_same_way(rehearsal, printed):
    for key, definition, recurrence, options in (
        (BY_HAND, AUTHORS, 1, ("--only", BY_HAND)),
        (OWN, PURE_PYTORCH, 2, ("--name", OWN)),
    ):
        options = ("--yes", "--file", rehearsal.save(key), *options)
        address = re.search(r"^published +\S+ +(hf://\S+);", rehearsal.publish(*options), re.M)[1]
        model = ccnet.ccnet_resnet18(weights=address, progress=False)
        x = random_input((33, 49))
        expected = forward(definition, rehearsal.states[key], x, recurrence)[0]
        with torch.inference_mode():
            assert difference(model.double()(x)["out"], expected) < 1e-4
    assert (
        read_pins(rehearsal.pins)[str(BY_HAND)]["revision"]
        in rehearsal.server.repositories["us/ccnet_resnet101_authors_cityscapes_r1"].revisions
    )


def test_card_is_what_the_hub_shows(rehearsal, printed):
    files = rehearsal.server.repositories[PUBLISHED[LARGE]].files
    card = ModelCard(files["README.md"].decode())
    data = card.data.to_dict()
    assert (data["pipeline_tag"], data["library_name"], data["license"], data["datasets"]) == (
        *("image-segmentation", "ccnet-pytorch", "apache-2.0"),
        ["cityscapes"],
    )
    assert "![Segmentation by this network](example.png)" in card.text
    assert files["example.png"].startswith(b"\x89PNG")
    single, several = card.data.eval_results
    assert (single.dataset_name, single.dataset_split) == ("Cityscapes val", "val")
    assert (single.metric_type, single.metric_value) == ("mean_iou", 79.45)
    assert (single.source_name, single.source_url) == ("OpenMMLab", LARGE.meta["source"])
    assert (single.metric_args["mode"], single.metric_args["stride"]) == ("slide", [513, 513])
    assert (several.metric_value, several.metric_args["flip"]) == (80.66, True)
    assert f'CCNet.from_pretrained("{PUBLISHED[LARGE]}")' in card.text
    assert f"--backbone resnet101 --weights hf://{PUBLISHED[LARGE]}" in card.text
