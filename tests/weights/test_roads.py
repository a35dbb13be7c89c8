"""Folders and repositories give the same network on every road."""

import json

import pytest
from hub_server import NOWHERE, Repository, assert_equal, connect, uploads
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file

from ccnet import CCNet, ccnet_resnet18
from ccnet.weights import ModelWeights, write_weights

HUB_ROADS = {
    "from_pretrained(owner/name)": lambda _: CCNet.from_pretrained("us/model"),
    "weights=hf://": lambda _: ccnet_resnet18(weights="hf://us/model", progress=False),
}
ROADS = {
    "from_pretrained(folder)": lambda folder: CCNet.from_pretrained(folder),
    "weights=folder": lambda folder: ccnet_resnet18(weights=folder),
    **HUB_ROADS,
}
each_road = pytest.mark.parametrize("load_model", ROADS.values(), ids=ROADS)


@pytest.fixture(scope="module")
def saved(make_model):
    return make_model(3, recurrence=1, aux_channels=24, align_corners=False)


@pytest.fixture
def publish(hub, saved, tmp_path):
    """Puts the weights into a folder and on the Hub, with these configurations beside them."""

    def publish(header, config):
        folder = tmp_path / "model"
        folder.mkdir()
        if header is None:
            save_file(saved.state_dict(), folder / "model.safetensors")
        else:
            write_weights(folder / "model.safetensors", ModelWeights(saved.state_dict(), header))
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hub.repositories["us/model"] = Repository(files)
        return folder

    return publish


@each_road
@pytest.mark.parametrize("places", ["config.json", "header", "config.json before the header"])
def test_configuration_is_found_on_every_road(publish, saved, places, load_model):
    other = {**saved.config, "recurrence": 2, "align_corners": True}
    header = {"config.json": None, "header": saved.config}.get(places, other)
    folder = publish(header, None if places == "header" else saved.config)
    model = load_model(folder)
    assert model.config == saved.config
    assert_equal(model.state_dict(), saved.state_dict())


@each_road
def test_weights_without_any_configuration_are_measured(publish, saved, load_model, caplog):
    model = load_model(publish(None, None))
    assert_equal(model.state_dict(), saved.state_dict())
    assert "model does not tell everything; assumed" in caplog.text.replace("@main", "")
    assert "recurrence=2; the names of the 3 classes (just numbered)" in caplog.text


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "unreachable"])
@pytest.mark.parametrize("has_config", [True, False], ids=["config.json", "header"])
def test_cached_repository_needs_no_server(
    hub, publish, saved, home, monkeypatch, capsys, has_config, offline
):
    publish(None if has_config else saved.config, saved.config if has_config else None)
    CCNet.from_pretrained("us/model")
    CCNet.from_pretrained("us/model", revision="main", local_files_only=True)
    fetched = [path.rsplit("/", 1)[1] for _, path, _ in hub.requests("GET", "us/model")]
    assert fetched.count("model.safetensors") == 1
    assert fetched.count("config.json") == has_config
    asked = list(hub.asked)
    connect(monkeypatch, NOWHERE, home, offline=offline)
    for load_model in HUB_ROADS.values():
        model = load_model(None)
        assert model.config == saved.config
        assert_equal(model.state_dict(), saved.state_dict())
    assert hub.asked == asked
    assert capsys.readouterr().out == ""


def test_repository_that_does_not_exist_is_an_error(hub):
    with pytest.raises(HfHubHTTPError, match="404"):
        CCNet.from_pretrained("us/nothing")


@uploads
def test_pushed_model_comes_back(hub, weights_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    model = ccnet_resnet18(weights=weights_file)
    card = {"license": "CC-BY-NC-4.0", "metrics": {"CamVid val": {"mIoU": 12.25}}}
    url = model.push_to_hub("us/model", model_card_kwargs=card)
    repository = hub.repositories["us/model"]
    assert url == f"{hub.address}/us/model/commit/{repository.head}"
    files = repository.files
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    assert json.loads(files["config.json"])["label_set"]["categories"][0] == "sky"
    text = files["README.md"].decode()
    for part in ("us/model", "license: cc-by-nc-4.0", "| mIoU on CamVid val | 12.25 |"):
        assert part in text
    again = ccnet_resnet18(weights="hf://us/model@main", progress=False)
    assert again.config == model.config
    assert_equal(again.state_dict(), model.state_dict())
