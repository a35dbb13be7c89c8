"""The licence of weights goes with them through training, files, scripts and the Hub."""

import re
import shutil
from dataclasses import replace

import convert_checkpoint
import publish_weights
import pytest
import torch
from hub_server import uploads
from small_runs import Scenes

from ccnet import CCNet, ccnet_resnet18
from ccnet.classes import CAMVID, LabelSet
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import build_model
from ccnet.weights import CCNet_ResNet18_Weights, read_weights, write_weights

LICENCE = "CC-BY-NC-4.0"
DETAILS = {
    "license": LICENCE,
    "source": CCNet_ResNet18_Weights.CAMVID.meta["source"],
    "weights": "derived from CCNet_ResNet18_Weights.CAMVID, "
    "trained on CamVid train, LabelMeFacade and rendered StreetScenes",
}
RECIPE = replace(
    RECIPES["finetune"],
    steps=1,
    batch_size=2,
    crop_height=33,
    crop_width=49,
    validate_every=1,
    precision="float32",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that trained the bundled weights further, and the trained model."""
    folder = tmp_path_factory.mktemp("run")
    model = build_model(RECIPE, CAMVID)
    Trainer(model, Scenes(4), Scenes(1, seed=4), RECIPE, folder, workers=0).run()
    return folder, model


def run_script(monkeypatch, script, *arguments):
    monkeypatch.setattr("sys.argv", [script.__name__, *map(str, arguments)])
    script.main()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ccnet_resnet18(weights="DEFAULT", categories=["a", "b"]),
        lambda: build_model(RECIPE, LabelSet.from_config({"categories": ["a", "b"]})),
    ],
    ids=["builder", "recipe"],
)
def test_model_with_new_classes_has_the_licence_of_its_weights(make, tmp_path):
    model = make()
    assert model.card_details == DETAILS
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    assert DETAILS["weights"] in card
    assert "mIoU" not in card
    again = ccnet_resnet18(weights=tmp_path, categories=["c"])
    for loaded in (CCNet.from_pretrained(tmp_path), ccnet_resnet18(weights=tmp_path), again):
        assert loaded.card_details == DETAILS


def test_bundled_weights_have_their_licence(repository, tmp_path):
    model = ccnet_resnet18(weights="DEFAULT")
    assert model.card_details["license"] == LICENCE
    path = shutil.copy(repository / "weights" / "ccnet_resnet18_camvid.safetensors", tmp_path)
    assert ccnet_resnet18(weights=path).card_details == model.card_details
    write_weights(tmp_path / "a.safetensors", model.to_weights())
    assert read_weights(tmp_path / "a.safetensors").details == model.card_details
    assert ccnet_resnet18(weights=tmp_path / "a.safetensors").card_details == model.card_details


def test_training_keeps_the_licence(run):
    folder, model = run
    assert model.card_details == DETAILS
    assert read_weights(folder / "best.safetensors").details == DETAILS
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert ccnet_resnet18(weights=checkpoint).card_details == DETAILS


def test_converted_checkpoint_has_the_licence(run, monkeypatch, tmp_path):
    (checkpoint,) = (run[0] / "checkpoints").iterdir()
    run_script(monkeypatch, convert_checkpoint, checkpoint, "--output", tmp_path / "out")
    assert CCNet.from_pretrained(tmp_path / "out").card_details == DETAILS
    assert "license: cc-by-nc-4.0" in (tmp_path / "out" / "README.md").read_text()


def test_published_file_has_the_licence(run, monkeypatch, tmp_path, capsys):
    path = tmp_path / "mine.safetensors"
    run_script(monkeypatch, publish_weights, run[0] / "best.safetensors", path)
    assert re.search(f"^licence +{LICENCE}$", capsys.readouterr().out, re.MULTILINE)
    assert read_weights(path).details == DETAILS
    assert ccnet_resnet18(weights=path).card_details == DETAILS


@uploads
def test_pushed_model_has_the_licence(run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run[1].push_to_hub("us/model")
    assert b"license: cc-by-nc-4.0" in hub.repositories["us/model"].files["README.md"]
    assert CCNet.from_pretrained("us/model").card_details == DETAILS
    loaded = ccnet_resnet18(weights="hf://us/model", progress=False)
    assert loaded.card_details == DETAILS


def test_file_that_is_to_be_registered_weights_has_their_details(run, monkeypatch, tmp_path):
    path, entry = tmp_path / "mine.safetensors", CCNet_ResNet18_Weights.CAMVID
    trained, weights = tmp_path / "trained.safetensors", read_weights(run[0] / "best.safetensors")
    config = {**weights.config, "backbone_options": {"output_stride": 8}}
    write_weights(trained, replace(weights, config=config))
    run_script(monkeypatch, publish_weights, trained, path, "--entry", str(entry))
    weights = read_weights(path)
    assert weights.details == ccnet_resnet18(weights="DEFAULT").card_details
    assert weights.config == CCNet(**entry.meta["config"]).config
    assert all(one.dtype == torch.float16 for one in weights.state_dict.values() if one.dim() > 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recurrence": 1}, "recurrence is 1, not 2"),
        ({"align_corners": False}, "align_corners is False, not True"),
        ({"backbone_options": {"ceil_mode": False}}, "backbone's ceil_mode is False, not True"),
        ({"backbone_options": {"output_stride": 16}}, "backbone's output_stride is 16, not 8"),
        (
            {"backbone_options": {"negative_slope": 0.01}},
            "backbone's negative_slope is 0.01, not 0.0",
        ),
        (
            {"label_set": {"categories": list(CAMVID.categories[::-1])}},
            r"label_set is .*'bicyclist', .*, not .*'sky'",
        ),
    ],
)
def test_file_of_another_network_does_not_become_registered_weights(
    run, monkeypatch, tmp_path, changed, message
):
    trained, path = tmp_path / "trained.safetensors", tmp_path / "mine.safetensors"
    weights, entry = read_weights(run[0] / "best.safetensors"), str(CCNet_ResNet18_Weights.CAMVID)
    write_weights(trained, replace(weights, config={**weights.config, **changed}))
    with pytest.raises(SystemExit, match=rf"^error: {trained} cannot be {entry}: its {message}"):
        run_script(monkeypatch, publish_weights, trained, path, "--entry", entry)
    assert not path.exists()


def test_other_tensors_do_not_become_registered_weights(make_model, monkeypatch, tmp_path):
    trained, path = tmp_path / "trained.safetensors", tmp_path / "mine.safetensors"
    stem = {"stem_widths": [8, 8, 64], "output_stride": 8}
    write_weights(trained, make_model(11, label_set="camvid", backbone_options=stem).to_weights())
    entry = str(CCNet_ResNet18_Weights.CAMVID)
    with pytest.raises(SystemExit, match=r"backbone\.stem\.0\.weight is \(8, 3, 3, 3\)"):
        run_script(monkeypatch, publish_weights, trained, path, "--entry", entry)
    assert not path.exists()


def test_trained_file_is_not_replaced_by_the_published_one(run, monkeypatch, tmp_path):
    trained, other = tmp_path / "trained.safetensors", tmp_path / "link.safetensors"
    content = (run[0] / "best.safetensors").read_bytes()
    trained.write_bytes(content)
    other.symlink_to(trained)
    for path in (trained, other):
        with pytest.raises(SystemExit, match="is the trained file itself: give another name"):
            run_script(monkeypatch, publish_weights, trained, path)
    assert trained.read_bytes() == content


def test_unknown_entry_is_named(run, monkeypatch, tmp_path):
    with pytest.raises(
        SystemExit, match=r"error: the registry has no CCNet_ResNet18_Weights\.MINE"
    ):
        run_script(
            monkeypatch, publish_weights, run[0] / "best.safetensors", tmp_path / "a.safetensors",
            "--entry", "CCNet_ResNet18_Weights.MINE",
        )  # fmt: skip
    assert not (tmp_path / "a.safetensors").exists()
