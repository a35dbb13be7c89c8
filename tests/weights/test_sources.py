"""Weights from the Hub and from their origin, through the real client and a local server."""

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hub_server import COMMIT, NOWHERE, Repository, assert_equal, connect, registered
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from safetensors import SafetensorError
from safetensors.torch import save

from ccnet.weights.downloads import load_registered
from ccnet.weights.hub import fetch_file
from ccnet.weights.sources import load_weights

CONFIG = json.dumps({"backbone": "resnet18", "num_classes": 2, "recurrence": 0})
WEIGHTS = {"a": torch.arange(70_000.0), "b": torch.ones(3, 2)}
CONTENT = save(WEIGHTS, metadata={"config": CONFIG})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILES = {"model.safetensors": CONTENT}
LARGE_WEIGHTS = {"a": torch.arange(3_000_000.0)}
LARGE = save(LARGE_WEIGHTS, metadata={"config": CONFIG})
"""More than the 10 MiB that the client takes at a time, and can resume after."""


def foreign_checkpoint():
    """As much of OpenMMLab's checkpoint as the conversion looks at, and what it becomes."""
    stage = {f"backbone.layer3.{index}.conv1.weight": torch.ones(2, 2) for index in range(2)}
    classifier = torch.arange(38.0).reshape(19, 2)
    theirs = {**stage, "decode_head.cca.gamma.scale": torch.tensor(0.5)}
    theirs["decode_head.conv_seg.weight"] = classifier
    file = io.BytesIO()
    torch.save({"meta": {}, "state_dict": theirs}, file)
    ours = {**stage, "head.cca.gamma": torch.tensor([0.5]), "head.classifier.weight": classifier}
    return file.getvalue(), ours


FOREIGN, CONVERTED = foreign_checkpoint()
FOREIGN_PREFIX = hashlib.sha256(FOREIGN).hexdigest()[:8]


def on_the_hub(repo_id="us/model", **changes):
    """The entry of weights that are published on the Hub."""
    hub = {"filename": "model.safetensors", "revision": COMMIT, "sha256": SHA256, **changes}
    return registered(hub={"repo_id": repo_id, **hub})


def at_the_origin(address, name="theirs.pth", prefix=FOREIGN_PREFIX, file="kept.safetensors"):
    """The entry of weights that are to be fetched elsewhere and converted."""
    origin = {"url": f"{address}/files/{name}", "sha256_prefix": prefix}
    return registered(file=file, origin=origin, config={"backbone": "resnet18"})


def load(weights):
    if isinstance(weights, str):
        return load_weights(weights, "resnet18", progress=False)
    return load_registered(weights, progress=False)


@pytest.mark.parametrize("failures", [[], [429, 429], [500, 500]], ids=str)
def test_registered_weights_are_downloaded_once(hub, failures):
    hub.repositories["us/model"] = Repository(FILES, failures=failures)
    for _ in range(2):
        loaded = load(on_the_hub())
        assert_equal(loaded.state_dict, WEIGHTS)
        assert loaded.source == f"hf://us/model@{COMMIT}/model.safetensors"
    (request,) = hub.requests("GET", "us/model")
    assert request[1] == f"/us/model/resolve/{COMMIT}/model.safetensors"


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("status", "tries"), [(429, 5), (503, 5), (408, 5), (404, 1), (401, 1)])
def test_only_transient_errors_are_retried(hub, waits, status, tries, hidden):
    hub.repositories["us/model"] = Repository(FILES, failures=[status] * 1000)
    if hidden:
        disable_progress_bars()
    try:
        with pytest.raises(OSError, match=f"{status}|us/model"):
            fetch_file("us/model", "model.safetensors", progress=False)
        assert are_progress_bars_disabled() == hidden
    finally:
        enable_progress_bars()
    assert len(waits) == tries - 1
    assert waits == sorted(waits)


@pytest.mark.parametrize(("suffix", "revision"), [("", "main"), ("@v1", "v1")])
def test_named_revision_is_asked_for(hub, suffix, revision):
    hub.repositories["us/model"] = Repository(FILES, revisions=("main", "v1", COMMIT))
    loaded = load(f"hf://us/model{suffix}")
    assert_equal(loaded.state_dict, WEIGHTS)
    assert loaded.source == f"hf://us/model@{revision}"
    assert hub.requests("HEAD", f"us/model/resolve/{revision}/model.safetensors")


@pytest.mark.parametrize("continues", [True, False])
def test_interrupted_download_is_resumed(hub, continues):
    files = {"model.safetensors": LARGE}
    hub.repositories["us/model"] = Repository(files, cuts=[11 * 2**20], continues=continues)
    loaded = load(on_the_hub(sha256=hashlib.sha256(LARGE).hexdigest()))
    assert_equal(loaded.state_dict, LARGE_WEIGHTS)
    first, second, *again = (span for _, _, span in hub.requests("GET", "us/model"))
    assert first is None
    assert second.startswith(f"bytes={10 * 2**20}-")
    assert not (continues and again)


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        ({"token": "hf_secret"}, {}),
        ({}, {"repo_id": "us/nothing"}),
        ({}, {"revision": "f" * 40}),
        ({}, {"filename": "other.safetensors"}),
        ({"failures": [500] * 1000}, {}),
        ({"cuts": [0] * 1000}, {}),
    ],
    ids=["private", "no repository", "no revision", "no file", "server error", "connection lost"],
)
def test_error_names_the_weights_the_places_and_the_remedy(hub, faults, asked):
    hub.repositories["us/model"] = Repository(FILES, **faults)
    with pytest.raises(FileNotFoundError, match=r"^Own.OWN was not found. Tried:") as caught:
        load(on_the_hub(**asked))
    message = str(caught.value)
    assert "none.safetensors" in message
    assert "hf://us/" in message
    assert message.endswith("set CCNET_WEIGHTS_DIR to its path.")


@pytest.mark.parametrize("name", ["private", "nothing"])
def test_error_names_the_users_own_repository(hub, name):
    hub.repositories["us/private"] = Repository(FILES, token="hf_secret")
    with pytest.raises(FileNotFoundError, match=f"hf://us/{name}(.|\n)*HF_TOKEN"):
        load(f"hf://us/{name}")


def test_token_opens_a_private_repository(hub, monkeypatch):
    hub.repositories["us/model"] = Repository(FILES, token="hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for weights in (on_the_hub(), "hf://us/model"):
        assert_equal(load(weights).state_dict, WEIGHTS)


def test_wrong_hash_is_refused_and_the_file_is_not_kept(hub, home):
    hub.repositories["us/model"] = Repository(FILES)
    with pytest.raises(ValueError, match=f"its SHA-256 is {SHA256}, not {'0' * 64}"):
        load(on_the_hub(sha256="0" * 64))
    folder = home / "hub" / "models--us--model"
    assert folder.is_dir()
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert max(sizes, default=0) < len(CONTENT)


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "unreachable"])
def test_cached_file_that_has_changed_is_fetched_again(hub, home, monkeypatch, caplog, offline):
    hub.repositories["us/model"] = Repository(FILES)
    load(on_the_hub())
    (cached,) = (path for path in home.rglob("blobs/*") if path.is_file())
    cached.write_bytes(CONTENT[:-1] + b"x")
    assert_equal(load(on_the_hub()).state_dict, WEIGHTS)
    assert "is not the published file" in caplog.text
    cached.write_bytes(CONTENT[:-1] + b"x")
    connect(monkeypatch, NOWHERE, home, offline=offline)
    with pytest.raises(FileNotFoundError, match="CCNET_WEIGHTS_DIR"):
        load(on_the_hub())


def test_damaged_file_on_the_hub_is_refused(hub):
    hub.repositories["us/model"] = Repository({"model.safetensors": CONTENT[:-9]})
    with pytest.raises(ValueError, match="not an intact safetensors file"):
        load("hf://us/model")


def test_file_at_the_origin_is_converted_and_kept(hub, home):
    hub.repositories[""].files["theirs.pth"] = FOREIGN
    loaded = load(at_the_origin(hub.address))
    assert_equal(loaded.state_dict, CONVERTED)
    assert loaded.source == f"{hub.address}/files/theirs.pth"
    with pytest.raises(ValueError, match=r"/files/theirs\.pth is not the published file"):
        load(at_the_origin(hub.address, prefix="00000000", file="wrong.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"/files/none\.pth") as caught:
        load(at_the_origin(hub.address, "none.pth", file="none.safetensors"))
    assert "theirs.pth" not in str(caught.value)
    kept = {path.name: path for path in (home / "ccnet").iterdir()}
    assert kept.keys() == {"kept.safetensors", "kept.sha256"}
    converted = hashlib.sha256(kept["kept.safetensors"].read_bytes()).hexdigest()
    assert kept["kept.sha256"].read_text() == (
        f"{converted}  kept.safetensors\n{hashlib.sha256(FOREIGN).hexdigest()}  theirs.pth\n"
    )


def test_file_without_a_published_hash_is_said_to_be_unverified(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "kept.safetensors").write_bytes(CONTENT)
    assert_equal(load(at_the_origin(NOWHERE)).state_dict, WEIGHTS)
    assert "kept.safetensors is taken unverified" in caplog.text


def full(*_, **__):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("problem", ["a file", "full", "a folder in its place"])
def test_cache_that_cannot_be_written(hub, home, tmp_path, monkeypatch, caplog, problem):
    hub.repositories |= {"us/model": Repository(FILES), "": Repository({"theirs.pth": FOREIGN})}
    if problem == "a file":
        (tmp_path / "file").touch()
        connect(monkeypatch, hub.address, tmp_path / "file" / "home")
        with pytest.raises(FileNotFoundError, match=r"hf://us/model(.|\n)*CCNET_WEIGHTS_DIR"):
            load(on_the_hub())
    elif problem == "full":
        monkeypatch.setattr("ccnet.weights.serialization.save_file", full)
    else:
        (home / "ccnet" / "kept.safetensors").mkdir(parents=True)
    assert_equal(load(at_the_origin(hub.address)).state_dict, CONVERTED)
    assert "kept.safetensors could not be kept, and will be downloaded again" in caplog.text
    assert not list(home.rglob(".kept*"))


def test_file_of_the_origin_may_lie_in_the_folder(hub, tmp_path, monkeypatch):
    (tmp_path / "theirs.pth").write_bytes(FOREIGN)
    (tmp_path / "changed.pth").write_bytes(FOREIGN + b"1")
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
    loaded = load(at_the_origin(NOWHERE))
    assert_equal(loaded.state_dict, CONVERTED)
    assert loaded.source == str(tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=rf"changed\.pth .*{FOREIGN_PREFIX}"):
        load(at_the_origin(NOWHERE, "changed.pth"))


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "unreachable"])
def test_only_cached_weights_need_no_server(hub, home, monkeypatch, offline):
    hub.repositories |= {"us/model": Repository(FILES), "": Repository({"theirs.pth": FOREIGN})}
    cached = {on_the_hub(): WEIGHTS, "hf://us/model": WEIGHTS}
    cached[at_the_origin(hub.address)] = CONVERTED
    for weights in cached:
        load(weights)
    asked = list(hub.asked)
    connect(monkeypatch, hub.address if offline else NOWHERE, home, offline=offline)
    for weights, expected in cached.items():
        assert_equal(load(weights).state_dict, expected)
    origin = at_the_origin(hub.address if offline else NOWHERE, file="new.safetensors")
    for weights in (on_the_hub("us/new"), origin):
        with pytest.raises(FileNotFoundError, match="CCNET_WEIGHTS_DIR") as caught:
            load(weights)
    assert ("HF_HUB_OFFLINE" in str(caught.value)) == offline
    assert hub.asked == asked


ALONE = """
import sys
from test_sources import *
assert_equal(load(on_the_hub()).state_dict, WEIGHTS)
assert_equal(load("hf://us/model").state_dict, WEIGHTS)
assert_equal(load(at_the_origin(sys.argv[1])).state_dict, CONVERTED)
"""


def test_two_processes_at_once_and_one_offline(hub, run_forked, repository, home, tmp_path):
    """The environment alone tells these processes where the Hub is."""
    hub.repositories |= {"us/model": Repository(FILES), "": Repository({"theirs.pth": FOREIGN})}
    tests = repository / "tests"
    variables = hub.environment(home)
    variables["PYTHONPATH"] = os.pathsep.join(map(str, (repository, tests, tests / "weights")))
    run = partial(run_forked, "-c", ALONE, cwd=tmp_path)
    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(run, hub.address, **variables) for _ in range(2)]:
            running.result()
    asked = list(hub.asked)
    run(NOWHERE, **{**variables, "HF_HUB_OFFLINE": "1"})
    assert hub.asked == asked
