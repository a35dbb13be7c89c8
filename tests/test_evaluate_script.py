"""scripts/evaluate.py: data, weights, protocols, reports, and what is published."""

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from cityscapes_layout import write_cityscapes
from PIL import Image

from ccnet.classes import CAMVID
from ccnet.evaluation import evaluate
from ccnet.serialization import save_weights
from ccnet.street_scenes import StreetScenes
from ccnet.weights import CCNet_ResNet18_Weights, CCNet_ResNet50_Weights
from ccnet.zoo import ccnet_resnet18

SCENES = StreetScenes(3, size=(96, 128), seed=5)


@pytest.fixture(scope="session")
def main(repository):
    """The script's main function, which takes its arguments."""
    path = repository / "scripts" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main(["--device", "cpu", *map(str, arguments)])


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """Three rendered scenes in CamVid's layout."""
    root = tmp_path_factory.mktemp("camvid")
    for index, (image, labels) in enumerate(SCENES):
        for folder, array in (("val", image.movedim(0, -1)), ("valannot", labels)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array.numpy()).save(root / folder / f"frame {index}.png")
    return root


@pytest.fixture(scope="module")
def scores():
    """Of the bundled weights on these scenes."""
    return evaluate(ccnet_resnet18(weights="DEFAULT"), SCENES)


@pytest.fixture
def published(monkeypatch):
    """Sets the registry's figure for the bundled weights on CamVid val."""
    metrics = CCNet_ResNet18_Weights.CAMVID.meta["metrics"]
    return lambda miou: monkeypatch.setitem(metrics, "CamVid val", {"mIoU": miou})


def refused(main, capsys, *arguments):
    """The one line that an error is."""
    with pytest.raises(SystemExit) as error:
        main(*arguments)
    assert capsys.readouterr().out == ""
    message = error.value.code
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_the_bundled_weights_are_measured_by_default(main, camvid, scores, capsys, tmp_path):
    main("camvid", "--root", camvid, "--report", tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("CCNet_ResNet18_Weights.CAMVID on CamVid val: whole, no flip")
    assert scores.table() in printed
    assert f"pixel accuracy {scores.pixel_accuracy:.2f} %" in printed
    assert f"mean accuracy {scores.mean_accuracy:.2f} %" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["confusion"] == scores.confusion.tolist()
    assert report["protocol"] == CCNet_ResNet18_Weights.CAMVID.meta["protocol"]
    assert [image["name"] for image in report["images"]] == ["frame 0", "frame 1", "frame 2"]


def test_the_right_figure_is_confirmed(main, camvid, scores, published, capsys):
    published(round(scores.miou, 2))
    main("camvid", "--root", camvid, "--confirm")
    assert "(this project), difference +0.00" in capsys.readouterr().out.replace("-0.00", "+0.00")


@pytest.mark.parametrize("shift", [0.11, -0.11])
def test_a_wrong_figure_fails(main, camvid, scores, published, capsys, shift):
    published(scores.miou + shift)
    with pytest.raises(SystemExit, match=r"^error: .*CAMVID on CamVid val: not within 0\.1 of"):
        main("camvid", "--root", camvid, "--confirm")
    assert f"difference {-shift:+.2f}" in capsys.readouterr().out
    main("camvid", "--root", camvid, "--confirm", "--tolerance", 0.2)


def test_a_wrong_figure_is_an_exit_status(repository, run_python, camvid, tmp_path):
    """The registry's figure is that of the real CamVid, not of these scenes."""
    script = repository / "scripts" / "evaluate.py"
    arguments = ("camvid", "--root", camvid, "--confirm", "--device", "cpu")
    result = run_python(script, *arguments, cwd=tmp_path, succeeds=False)
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: CCNet_ResNet18_Weights.CAMVID on CamVid val: not within"
    )
    assert "published mIoU 58.63 %" in result.stdout


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        (["--flip"], {"flip": True}),
        (["--scales", "0.75,1"], {"scales": [0.75, 1.0]}),
        (
            ["--mode", "slide", "--crop", "64,96", "--stride", "48"],
            {"mode": "slide", "crop": [64, 96], "stride": [48, 48]},
        ),
    ],
)
def test_options_change_the_protocol(main, camvid, tmp_path, capsys, options, protocol):
    main("camvid", "--root", camvid, "--limit", 1, "--report", tmp_path, *options)
    report = json.loads((tmp_path / "report.json").read_text())
    own = CCNet_ResNet18_Weights.CAMVID.meta["protocol"]
    assert report["protocol"] == {**own, **protocol}
    assert (report["dataset"], report["published mIoU"]) == ("CamVid val, the first 1", None)
    model = ccnet_resnet18(weights="DEFAULT")
    one = evaluate(model, StreetScenes(1, size=(96, 128), seed=5), protocol=protocol)
    assert report["confusion"] == one.confusion.tolist()
    assert "published" not in capsys.readouterr().out


def test_options_that_say_what_the_protocol_is_change_nothing(main, camvid, scores, published):
    published(scores.miou)
    main("camvid", "--root", camvid, "--confirm", "--mode", "whole", "--scales", 1, "--no-flip")


@pytest.mark.parametrize("options", [["--flip"], ["--mode", "slide"], ["--precision", "bfloat16"]])
def test_only_the_weights_own_protocol_is_confirmed(main, camvid, capsys, options):
    message = refused(main, capsys, "camvid", "--root", camvid, "--confirm", *options)
    assert "--confirm measures by the weights' own protocol (whole, no flip, float32)" in message


def test_only_figures_of_the_registry_are_confirmed(main, camvid, weights_file, capsys):
    arguments = ("camvid", "--root", camvid, "--confirm", "--weights", weights_file)
    message = refused(main, capsys, *arguments)
    assert message.endswith(f"the registry has no mIoU of {weights_file} on CamVid val")
    message = refused(main, capsys, "street-scenes", "--confirm")
    assert message.endswith("no mIoU of CCNet_ResNet18_Weights.CAMVID on StreetScenes")
    assert "--limit" in refused(main, capsys, "camvid", "--root", camvid, "--confirm", "--limit", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "NOWHERE"], "no weights 'NOWHERE': expected one of CAMVID, DEFAULT"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--network", "ccnet_resnet101"], "knows 19 classes (road, .*the data set has 11 (sky, "),
        (["--weights", "CCNet_ResNet50_Weights.DEFAULT"], "knows 19 classes"),
        (["--split", "nowhere"], "no PNG files in .*nowhere"),
        (["--root", "/nowhere"], "no PNG files in /nowhere/val"),
        (["--limit", "0"], "--limit 0 must be positive"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--report", __file__], f"File exists: '{__file__}'"),
        (["--crop", "96"], "crop is an option of mode='slide'"),
        (["--mode", "slide", "--crop", "9", "--stride", "10"], "leaves gaps"),
        (
            ["--weights", "all", "--network", "ccnet_resnet50"],
            "no weights for these classes: sky, building",
        ),
    ],
)
def test_mistakes_are_one_line(main, camvid, capsys, options, message):
    found = refused(main, capsys, "camvid", "--root", camvid, *options)
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), found)


def test_the_folder_is_asked_for(main, capsys, monkeypatch):
    for dataset, variable in (("camvid", "CAMVID_ROOT"), ("cityscapes", "CITYSCAPES_DATASET")):
        monkeypatch.delenv(variable, raising=False)
        assert f"--root, or the variable {variable}" in refused(main, capsys, dataset)
    assert "--root" in refused(main, capsys, "folder")
    assert "no splits" in refused(main, capsys, "street-scenes", "--split", "val")


def test_the_folder_may_be_a_variable(main, camvid, capsys, monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", str(camvid))
    main("camvid", "--limit", 1)
    assert "on CamVid val, the first 1:" in capsys.readouterr().out


def test_a_broken_image_is_one_line(main, camvid, capsys, tmp_path):
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes((camvid / folder / "frame 0.png").read_bytes())
    (tmp_path / "val" / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read" in refused(main, capsys, "camvid", "--root", tmp_path)


def test_weights_from_a_file_on_a_folder_of_masks(main, make_model, capsys, tmp_path):
    classes = ["grass", "sand", "water"]
    model = make_model(3, label_set={"categories": classes})
    save_weights(tmp_path / "mine.safetensors", model.state_dict(), model.config)
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    rng = np.random.default_rng(0)
    for folder, shape in (("images", (40, 56, 3)), ("masks", (40, 56))):
        (tmp_path / folder).mkdir()
        high = 256 if folder == "images" else 3
        Image.fromarray(rng.integers(0, high, shape, np.uint8)).save(tmp_path / folder / "a.png")
    main("folder", "--root", tmp_path, "--weights", tmp_path / "mine.safetensors")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{tmp_path / 'mine.safetensors'} on {tmp_path}: whole, no flip")
    assert re.search(r"\| water \| \d", printed)
    (tmp_path / "classes.json").write_text(json.dumps(classes[::-1]))
    arguments = ("folder", "--root", tmp_path, "--weights", tmp_path / "mine.safetensors")
    message = refused(main, capsys, *arguments)
    assert "knows 3 classes (grass, sand, water)" in message
    assert message.endswith("but the data set has 3 (water, sand, grass)")


def test_all_weights_that_fit_are_measured(main, camvid, capsys, tmp_path, monkeypatch):
    """A second set of weights for these classes is not there: it is listed, the first measured."""
    fitting = CCNet_ResNet18_Weights.CAMVID.meta["categories"]
    missing = CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_512X1024_40K
    monkeypatch.setitem(missing.meta, "categories", fitting)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^error: CCNet_ResNet50_Weights\.\w+ was not found"):
        main("camvid", "--root", camvid, "--weights", "all", "--report", tmp_path, "--limit", 1)
    assert capsys.readouterr().out.count("mean (mIoU)") == 1
    assert (tmp_path / "CCNet_ResNet18_Weights.CAMVID" / "report.md").exists()


def test_label_ids_are_written_even_where_no_labels_are_known(main, make_model, capsys, tmp_path):
    """The test split of Cityscapes: results for the server, and nothing to measure."""
    names = write_cityscapes(tmp_path, 2, size=(64, 128), split="test")
    model = make_model(19, label_set="cityscapes")
    save_weights(tmp_path / "mine.safetensors", model.state_dict(), model.config)
    arguments = ["cityscapes", "--root", tmp_path, "--split", "test", "--network", "ccnet_resnet18"]
    arguments += ["--weights", tmp_path / "mine.safetensors"]
    main(*arguments, "--save-label-ids", tmp_path / "ids", "--report", tmp_path / "report")
    assert "no pixel has a label: there is nothing to measure" in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "ids").iterdir())
    assert written == [f"{name}.png" for name in names]
    for name, path in zip(names, sorted((tmp_path / "ids").iterdir()), strict=True):
        city = name.partition("_")[0]
        predicted = model.predict(tmp_path / "leftImg8bit" / "test" / city / f"{name}.png").labels
        with Image.open(path) as file:
            assert file.mode == "L"
            ids = torch.from_numpy(np.array(file))
        assert torch.equal(ids, torch.tensor(model.label_set.label_ids)[predicted.long()].byte())


def test_street_scenes_need_nothing(main, capsys):
    main("street-scenes", "--limit", 1)
    printed = capsys.readouterr().out
    assert "on StreetScenes, the first 1: whole" in printed
    assert all(f"| {name} |" in printed for name in CAMVID.categories)


def test_the_bundled_weights_have_their_published_miou_on_camvid(main, camvid_root, capsys):
    main("camvid", "--root", camvid_root, "--confirm")
    assert "published mIoU 58.63 % (this project)" in capsys.readouterr().out
