"""Weights from the Hub and from their origin, through the real client and a local server."""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hub_server import COMMIT, HubServer, Repository
from safetensors.torch import save

CLIENT = """
import hashlib, json, sys, time
time.sleep = lambda seconds: None
from torchvision.models import Weights, WeightsEnum
from ccnet.download import load_from_hub, load_weights

def member(meta):
    meta = {"file": "none.safetensors", "sha256": None, "hub": None, "origin": None, **meta}
    class Own(WeightsEnum):
        OWN = Weights(url="", transforms=None, meta=meta)
    return Own.OWN

results = {}
for name, call in json.loads(sys.argv[1]).items():
    try:
        if "meta" in call:
            loaded = load_weights(member(call["meta"]), progress=False)
        else:
            loaded = load_from_hub(call["repo_id"], call.get("revision"), progress=False)
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else type(error)
        results[name] = {"error": kind.__name__, "message": str(error)}
    else:
        digest = hashlib.sha256()
        for key in sorted(loaded.state_dict):
            digest.update(key.encode() + loaded.state_dict[key].numpy().tobytes())
        results[name] = {"digest": digest.hexdigest(), "place": loaded.place}
print(json.dumps(results))
"""

WEIGHTS = {"a": torch.arange(70_000.0), "b": torch.ones(3, 2)}
CONTENT = save(WEIGHTS, metadata={"config": "{}"})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE_WEIGHTS = {"a": torch.arange(3_000_000.0)}
LARGE = save(LARGE_WEIGHTS, metadata={"config": "{}"})
"""More than the 10 MiB that the client takes at a time, and can resume after."""


def digest_of(state_dict):
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        digest.update(key.encode() + state_dict[key].numpy().tobytes())
    return digest.hexdigest()


RIGHT = digest_of(WEIGHTS)


def on_the_hub(name, filename="model.safetensors", revision=COMMIT, sha256=SHA256):
    """What the registry says of weights that are published on the Hub."""
    hub = {"repo_id": name, "filename": filename, "revision": revision, "sha256": sha256}
    return {"meta": {"hub": hub}}


@pytest.fixture(scope="module")
def client(run_python, tmp_path_factory):
    """Makes calls in a process of its own; gives back each one's result."""

    def run(calls, home, address, **variables):
        variables = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
            "CCNET_WEIGHTS_DIR": "",
            **variables,
        }
        folder = tmp_path_factory.mktemp("client")
        result = run_python("-c", CLIENT, json.dumps(calls), cwd=folder, **variables)
        return json.loads(result.stdout)

    return run


def openmmlab_checkpoint():
    """As much of a checkpoint as the conversion looks at, and what it becomes."""
    state = {
        "backbone.layer3.0.conv1.weight": torch.ones(2, 2),
        "backbone.layer3.1.conv1.weight": torch.ones(2, 2),
        "decode_head.cca.gamma.scale": torch.tensor(0.5),
        "decode_head.conv_seg.weight": torch.arange(38.0).reshape(19, 2),
    }
    file = io.BytesIO()
    torch.save({"meta": {}, "state_dict": state}, file)
    ours = {
        "backbone.layer3.0.conv1.weight": torch.ones(2, 2),
        "backbone.layer3.1.conv1.weight": torch.ones(2, 2),
        "head.cca.gamma": torch.tensor([0.5]),
        "head.classifier.weight": torch.arange(38.0).reshape(19, 2),
    }
    return file.getvalue(), digest_of(ours)


FOREIGN, CONVERTED = openmmlab_checkpoint()
FOREIGN_PREFIX = hashlib.sha256(FOREIGN).hexdigest()[:8]


def at_the_origin(address, file="kept.safetensors", prefix=FOREIGN_PREFIX, name="theirs.pth"):
    origin = {"url": f"{address}/files/{name}", "sha256_prefix": prefix}
    return {"meta": {"file": file, "origin": origin, "config": {"backbone": "resnet18"}}}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        files = {"model.safetensors": CONTENT}
        server.repositories |= {
            "us/first": Repository(files),
            "us/pinned": Repository(files, revisions=("main", "v1", COMMIT)),
            "us/private": Repository(files, token="hf_secret"),
            "us/busy": Repository(files, failures=[429, 429]),
            "us/broken": Repository(files, failures=[500, 500]),
            "us/down": Repository(files, failures=[500] * 1000),
            "us/cut": Repository({"model.safetensors": LARGE}, cuts=[11 * 2**20]),
            "us/dead": Repository(files, cuts=[0] * 1000),
            "us/wrong": Repository(files),
            "us/damaged": Repository({"model.safetensors": CONTENT[:-9]}),
            "us/together": Repository(files),
        }
        server.repositories[""].files |= {"theirs.pth": FOREIGN, "cut.pth": FOREIGN}
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub, client, home):
    """The results of calls to a server that is there, without a token."""
    calls = {
        "first": on_the_hub("us/first"),
        "again": on_the_hub("us/first"),
        "named": {"repo_id": "us/pinned"},
        "pinned": {"repo_id": "us/pinned", "revision": "v1"},
        "private": on_the_hub("us/private"),
        "named private": {"repo_id": "us/private"},
        "no repository": on_the_hub("us/nothing"),
        "no revision": on_the_hub("us/first", revision="f" * 40),
        "no file": on_the_hub("us/first", filename="other.safetensors"),
        "named nothing": {"repo_id": "us/nothing"},
        "busy": on_the_hub("us/busy"),
        "broken": on_the_hub("us/broken"),
        "down": on_the_hub("us/down"),
        "cut": on_the_hub("us/cut", sha256=hashlib.sha256(LARGE).hexdigest()),
        "dead": on_the_hub("us/dead"),
        "wrong": on_the_hub("us/wrong", sha256="0" * 64),
        "damaged": {"repo_id": "us/damaged"},
        "climbing": {"repo_id": "../../etc"},
        "origin": at_the_origin(hub.address),
        "wrong origin": at_the_origin(hub.address, "wrong.safetensors", "00000000"),
        "no origin": at_the_origin(hub.address, "none.safetensors", name="none.pth"),
    }
    return client(calls, home, hub.address)


@pytest.fixture(scope="module")
def gone(online, client, home, hub):
    """The results of calls to no server, after those of `online`."""
    calls = {
        "first": on_the_hub("us/first"),
        "named": {"repo_id": "us/pinned"},
        "private": on_the_hub("us/private"),
        "origin": at_the_origin("http://127.0.0.1:9"),
        "new origin": at_the_origin("http://127.0.0.1:9", "new.safetensors"),
    }
    return client(calls, home, "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def offline(online, client, home, hub):
    """The results of calls with HF_HUB_OFFLINE, after those of `online`."""
    calls = {
        "first": on_the_hub("us/first"),
        "named": {"repo_id": "us/pinned"},
        "private": on_the_hub("us/private"),
        "named private": {"repo_id": "us/private"},
        "origin": at_the_origin(hub.address),
        "new origin": at_the_origin(hub.address, "new.safetensors"),
    }
    before = len(hub.asked)
    results = client(calls, home, hub.address, HF_HUB_OFFLINE="1")
    assert len(hub.asked) == before
    return results


@pytest.mark.parametrize("name", ["first", "again", "named", "pinned", "busy", "broken"])
def test_the_hub_gives_the_right_weights(online, name):
    assert online[name].get("digest") == RIGHT, online[name]
    assert online[name]["place"].startswith("hf://us/")


def test_only_the_first_time_is_a_download(online, hub):
    assert len(hub.requests("GET", "us/first/resolve")) == 1
    assert {path.split("/")[4] for _, path, _ in hub.requests("GET", "us/first")} == {COMMIT}


def test_a_named_revision_is_asked_for(online, hub):
    assert online["pinned"]["place"] == "hf://us/pinned@v1"
    assert hub.requests("HEAD", "us/pinned/resolve/v1/model.safetensors")


def test_a_connection_that_breaks_off_is_resumed(online, hub):
    assert online["cut"].get("digest") == digest_of(LARGE_WEIGHTS), online["cut"]
    first, second = (span for _, _, span in hub.requests("GET", "us/cut"))
    assert first is None
    assert second.startswith(f"bytes={10 * 2**20}-")


@pytest.mark.parametrize(
    "name", ["private", "no repository", "no revision", "no file", "down", "dead"]
)
def test_an_error_names_weights_places_and_remedy(online, name):
    result = online[name]
    assert result.get("error") == "FileNotFoundError", result
    message = result["message"]
    assert message.startswith("Own.OWN was not found. Tried:")
    assert "none.safetensors" in message
    assert "hf://us/" in message
    assert message.endswith("CCNET_WEIGHTS_DIR.")


@pytest.mark.parametrize("name", ["named private", "named nothing"])
def test_the_users_own_repository_is_named_too(online, name):
    result = online[name]
    assert result["error"] == "FileNotFoundError"
    assert "hf://us/" in result["message"]
    assert "HF_TOKEN" in result["message"]


def test_a_wrong_hash_is_refused_and_not_kept(online, home):
    assert online["wrong"]["error"] == "ValueError"
    assert SHA256 in online["wrong"]["message"]
    assert "0" * 64 in online["wrong"]["message"]
    folder = home / "hub" / "models--us--wrong"
    assert folder.is_dir()
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert max(sizes, default=0) < len(CONTENT)


def test_a_damaged_file_and_a_climbing_name_are_refused(online, home):
    assert online["damaged"]["error"] == "ValueError"
    assert "not an intact safetensors file" in online["damaged"]["message"]
    assert online["climbing"]["error"] == "ValueError"
    assert "../../etc" in online["climbing"]["message"]


def test_the_origin_is_converted_and_kept(online, home, hub):
    assert online["origin"].get("digest") == CONVERTED, online["origin"]
    assert online["origin"]["place"].startswith(hub.address)
    assert (home / "ccnet" / "kept.safetensors").is_file()


def test_another_file_at_the_origin_is_refused_and_not_kept(online, home):
    assert online["wrong origin"]["error"] == "ValueError"
    assert "/files/theirs.pth is not the published file" in online["wrong origin"]["message"]
    assert online["no origin"]["error"] == "FileNotFoundError"
    assert "/files/none.pth" in online["no origin"]["message"]
    assert "theirs.pth" not in online["no origin"]["message"]
    assert [path.name for path in (home / "ccnet").iterdir()] == ["kept.safetensors"]


@pytest.mark.parametrize("results", ["gone", "offline"])
def test_what_is_cached_needs_no_server(results, request):
    results = request.getfixturevalue(results)
    assert results["first"].get("digest") == RIGHT, results["first"]
    assert results["named"].get("digest") == RIGHT, results["named"]
    assert results["origin"].get("digest") == CONVERTED, results["origin"]


@pytest.mark.parametrize("results", ["gone", "offline"])
def test_what_is_not_cached_is_an_error(results, request):
    for name in ("private", "new origin"):
        result = request.getfixturevalue(results)[name]
        assert result.get("error") == "FileNotFoundError", result
        assert "CCNET_WEIGHTS_DIR" in result["message"]
    if results == "offline":
        assert "HF_HUB_OFFLINE" in result["message"]


def test_a_token_opens_a_private_repository(hub, client, tmp_path):
    calls = {"member": on_the_hub("us/private"), "named": {"repo_id": "us/private"}}
    results = client(calls, tmp_path, hub.address, HF_TOKEN="hf_secret")
    assert {result.get("digest") for result in results.values()} == {RIGHT}, results


def test_a_cache_that_cannot_be_written(hub, client, tmp_path):
    (tmp_path / "file").touch()
    calls = {"hub": on_the_hub("us/first"), "origin": at_the_origin(hub.address)}
    results = client(calls, tmp_path / "file" / "home", hub.address)
    assert results["hub"]["error"] == "FileNotFoundError", results
    assert "hf://us/first" in results["hub"]["message"]
    assert "CCNET_WEIGHTS_DIR" in results["hub"]["message"]
    assert results["origin"].get("digest") == CONVERTED, results


def test_two_processes_at_once(hub, client, tmp_path):
    calls = {"hub": on_the_hub("us/together"), "origin": at_the_origin(hub.address)}
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(client, calls, tmp_path, hub.address) for _ in range(2)]
    for run in runs:
        assert run.result()["hub"].get("digest") == RIGHT, run.result()
        assert run.result()["origin"].get("digest") == CONVERTED, run.result()


def test_the_origins_own_file_may_lie_in_the_folder(client, tmp_path, hub):
    (tmp_path / "theirs.pth").write_bytes(FOREIGN)
    (tmp_path / "changed.pth").write_bytes(FOREIGN + b"1")
    calls = {
        "right": at_the_origin("http://127.0.0.1:9"),
        "changed": at_the_origin("http://127.0.0.1:9", name="changed.pth"),
    }
    variables = {"CCNET_WEIGHTS_DIR": str(tmp_path)}
    results = client(calls, tmp_path / "home", "http://127.0.0.1:9", **variables)
    assert results["right"].get("digest") == CONVERTED, results
    assert results["right"]["place"] == str(tmp_path / "theirs.pth")
    assert results["changed"]["error"] == "ValueError"
    assert "changed.pth" in results["changed"]["message"]
    assert FOREIGN_PREFIX in results["changed"]["message"]


def test_a_damaged_file_among_the_kept_ones_names_itself(client, tmp_path, hub):
    (tmp_path / "ccnet").mkdir()
    (tmp_path / "ccnet" / "kept.safetensors").write_bytes(b"half")
    result = client({"origin": at_the_origin(hub.address)}, tmp_path, hub.address)["origin"]
    if "error" in result:
        assert str(tmp_path / "ccnet" / "kept.safetensors") in result["message"]
        assert "delete" in result["message"].lower()
    else:
        assert result["digest"] == CONVERTED


PUSH = """
import sys
from ccnet import CCNet, ccnet_resnet18
from ccnet.serialization import read_weights
model = ccnet_resnet18(weights=sys.argv[1])
card = {"license": "CC-BY-NC-4.0", "metrics": {"CamVid val": {"mIoU": 12.25}}}
print(model.push_to_hub("someone/pushed", model_card_kwargs=card))
again = ccnet_resnet18(weights="hf://someone/pushed@main", progress=False)
assert again.config == model.config
for name, value in model.state_dict().items():
    assert (again.state_dict()[name] == value).all(), name
"""


def test_a_model_is_uploaded_and_comes_back(hub, run_python, weights_file, tmp_path):
    variables = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    result = run_python("-c", PUSH, weights_file, cwd=tmp_path, **variables)
    assert f"{hub.address}/someone/pushed/commit/{COMMIT}" in result.stdout
    files = hub.repositories["someone/pushed"].files
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    assert json.loads(files["config.json"])["label_set"]["categories"][0] == "sky"
    card = files["README.md"].decode()
    assert "someone/pushed" in card
    assert "license: cc-by-nc-4.0" in card
    assert "| mIoU on CamVid val | 12.25 |" in card
