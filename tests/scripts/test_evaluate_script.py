"""`scripts/evaluate.py`: data sets, weights, protocols, reports, published mIoU."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from cityscapes_layout import write_cityscapes
from PIL import Image

from ccnet.classes import CAMVID
from ccnet.datasets import StreetScenes
from ccnet.evaluation import evaluate
from ccnet.evaluation.splits import SPLITS, Split
from ccnet.inference import InferenceProtocol
from ccnet.weights import CCNet_ResNet18_Weights, CCNet_ResNet50_Weights, write_weights
from ccnet.zoo import ccnet_resnet18

SCENES = StreetScenes(3, size=(96, 128), seed=5)

PROTOCOL = CCNet_ResNet18_Weights.CAMVID.meta["protocol"]
PUBLISHED = CCNet_ResNet18_Weights.CAMVID.meta["metrics"]["CamVid val"]["mIoU"]


@pytest.fixture(scope="session")
def script(load_script):
    return load_script("evaluate")


@pytest.fixture(scope="session")
def main(script):
    """The script's main function, which takes its arguments."""
    return lambda *arguments: script.main(["--device", "cpu", *map(str, arguments)])


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
def bundled():
    return ccnet_resnet18(weights="DEFAULT")


@pytest.fixture(scope="module")
def scores(bundled):
    """Of the bundled weights on these scenes."""
    return evaluate(bundled, SCENES, protocol=PROTOCOL)


@pytest.fixture
def published(monkeypatch):
    """Sets the registry's mIoU of the bundled weights on CamVid val, as of these scenes."""
    metrics = CCNet_ResNet18_Weights.CAMVID.meta["metrics"]
    monkeypatch.setitem(
        SPLITS, "CamVid val", Split(3, (96, 128), {"frame 0": 1, "frame 1": 1, "frame 2": 1})
    )
    return lambda miou: monkeypatch.setitem(metrics, "CamVid val", {"mIoU": miou})


@pytest.fixture
def refused(main, capsys):
    """Runs the script and returns its error, which is one line and all that it prints."""

    def run(*arguments):
        with pytest.raises(SystemExit) as error:
            main(*arguments)
        assert capsys.readouterr().out == ""
        message = error.value.code
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    return run


def test_bundled_weights_are_evaluated_by_default(main, camvid, scores, capsys, tmp_path):
    main("camvid", "--root", camvid, "--report", tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith(f"CCNet_ResNet18_Weights.CAMVID on CamVid val: {PROTOCOL}")
    assert scores.table() in printed
    assert f"pixel accuracy {scores.pixel_accuracy:.2f} %" in printed
    assert f"mean accuracy {scores.mean_accuracy:.2f} %" in printed
    assert f"published mIoU {PUBLISHED:.2f} % (this project), not comparable: 3 images" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["confusion"] == scores.confusion.tolist()
    assert report["published mIoU"] is None
    assert InferenceProtocol(**report["protocol"]) == PROTOCOL
    assert [image["name"] for image in report["images"]] == ["frame 0", "frame 1", "frame 2"]
    assert (tmp_path / "worst.png").exists()


def test_missing_extra_is_named_before_the_evaluation(refused, camvid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = refused("camvid", "--root", camvid, "--report", tmp_path / "report")
    assert 'matplotlib must be installed for this: pip install "ccnet-pytorch[evaluate]"' in message
    assert not (tmp_path / "report").exists()


def test_worst_samples_are_segmented_by_the_protocol(script, bundled, camvid):
    data = script.choose_data(script.parse_arguments(["camvid", "--root", str(camvid)])[0])
    protocol = InferenceProtocol("slide", crop=64, flip=True)
    (candidate,) = script.find_candidates("DEFAULT", CAMVID)
    report = script.measure(bundled, candidate, data, protocol, None)
    samples = script.worst_samples(report, bundled, data)
    mious = [miou for _, miou in report.images]
    assert len(samples) == 3
    for sample, index in zip(samples, np.argsort(mious), strict=True):
        assert sample.title == f"frame {index}: mIoU {mious[index]:.1f} %"
        image, labels = SCENES[index]
        assert torch.equal(sample.image, image.as_subclass(torch.Tensor))
        assert torch.equal(sample.labels, labels.as_subclass(torch.Tensor))
        assert torch.equal(sample.predicted, bundled.predict(image, protocol).labels)


def test_published_miou_is_confirmed(main, camvid, scores, published, capsys):
    """Options that spell out the protocol of the published mIoU change nothing."""
    published(round(scores.miou, 2))
    options = ["--mode", "whole", "--scales", 1, "--no-flip", "--window-batch", 9]
    main("camvid", "--root", camvid, "--confirm", *options)
    assert "(this project), difference +0.00" in capsys.readouterr().out.replace("-0.00", "+0.00")


@pytest.mark.parametrize("shift", [0.11, -0.11])
def test_wrong_published_miou_is_not_confirmed(main, camvid, scores, published, capsys, shift):
    published(scores.miou + shift)
    with pytest.raises(
        SystemExit, match=r"^error: .*CAMVID on CamVid val: the mIoU differs .* by more than 0\.1"
    ):
        main("camvid", "--root", camvid, "--confirm")
    assert f"difference {-shift:+.2f}" in capsys.readouterr().out
    main("camvid", "--root", camvid, "--confirm", "--tolerance", 0.2)


def test_options_change_the_protocol(main, camvid, bundled, tmp_path, capsys):
    options = "--mode slide --crop 240,320 --stride 160 --scales 1,0.5 --flip --limit 1"
    main("camvid", "--root", camvid, "--report", tmp_path, *options.split())
    asked = PROTOCOL.replace(mode="slide", crop=(240, 320), stride=160, scales=(1, 0.5), flip=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert InferenceProtocol(**report["protocol"]) == asked
    assert (report["dataset"], report["published mIoU"]) == ("CamVid val, the first 1", None)
    one = evaluate(bundled, StreetScenes(1, size=(96, 128), seed=5), protocol=asked)
    assert report["confusion"] == one.confusion.tolist()
    assert "published" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--flip"], ["--mode", "slide"], ["--precision", "bfloat16"]])
def test_only_the_protocol_of_the_published_miou_is_confirmed(refused, camvid, options):
    message = refused("camvid", "--root", camvid, "--confirm", *options)
    assert f"--confirm needs the protocol of the published mIoU ({PROTOCOL})" in message


def test_only_published_miou_is_confirmed(refused, camvid, weights_file):
    message = refused("camvid", "--root", camvid, "--confirm", "--weights", weights_file)
    assert message.endswith(f"the registry has no published mIoU of {weights_file} on CamVid val")
    message = refused("street-scenes", "--confirm")
    assert message.endswith("no published mIoU of CCNet_ResNet18_Weights.CAMVID on StreetScenes")
    assert "--limit" in refused("camvid", "--root", camvid, "--confirm", "--limit", 1)
    message = refused("camvid", "--root", camvid, "--confirm")
    assert message.endswith("needs the images of CamVid val, but found 3 images in place of 101")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "NOWHERE"], "unknown weights 'NOWHERE': expected one of CAMVID, DEFAULT"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--network", "ccnet_resnet101"], r"has 19 classes \(road, .*data set has 11 \(sky, "),
        (["--weights", "CCNet_ResNet50_Weights.DEFAULT"], "has 19 classes"),
        (["--split", "nowhere"], "no PNG files in .*nowhere"),
        (["--root", "/nowhere"], "no PNG files in /nowhere/val"),
        (["--limit", "0"], "--limit 0 must be positive"),
        (["--limit", "-3"], "--limit -3 must be positive"),
        (["--confirm", "--tolerance", "nan"], r"--tolerance nan must be in 0\.\.1 percent of mIoU"),
        (["--confirm", "--tolerance", "-0.1"], r"--tolerance -0\.1 must be in 0\.\.1"),
        (["--confirm", "--tolerance", "1000"], r"--tolerance 1000 must be in 0\.\.1"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--report", __file__], f"File exists: '{re.escape(__file__)}'"),
        (["--crop", "96"], "crop is an option of mode='slide'"),
        (["--mode", "slide", "--crop", "9", "--stride", "10"], "must not exceed the crop"),
        (
            ["--weights", "all", "--network", "ccnet_resnet50"],
            "no weights for these classes: sky, building",
        ),
    ],
)
def test_errors_are_one_line(refused, camvid, options, message):
    assert re.search(message, refused("camvid", "--root", camvid, *options))


def test_root_is_an_option_or_a_variable(main, refused, camvid, capsys, monkeypatch):
    for dataset, variable in (("camvid", "CAMVID_ROOT"), ("cityscapes", "CITYSCAPES_DATASET")):
        monkeypatch.delenv(variable, raising=False)
        assert f"give --root or set the variable {variable}" in refused(dataset)
    assert "--root" in refused("folder")
    assert "no splits" in refused("street-scenes", "--split", "val")
    monkeypatch.setenv("CAMVID_ROOT", str(camvid))
    main("camvid", "--limit", 1)
    assert "on CamVid val, the first 1:" in capsys.readouterr().out
    main("street-scenes", "--limit", 1)
    printed = capsys.readouterr().out
    assert "on StreetScenes, the first 1: whole" in printed
    assert all(f"| {name} |" in printed for name in CAMVID.categories)


def test_broken_image_is_one_line(refused, tmp_path):
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"no image")
    assert "val/a.png cannot be read" in refused("camvid", "--root", tmp_path)


def test_weights_from_a_file_on_a_folder_of_masks(main, refused, make_model, capsys, tmp_path):
    classes, weights = ["grass", "sand", "water"], tmp_path / "mine.safetensors"
    write_weights(weights, make_model(3, label_set={"categories": classes}).to_weights())
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    rng = np.random.default_rng(0)
    for folder, high, shape in (("images", 256, (40, 56, 3)), ("masks", 3, (40, 56))):
        (tmp_path / folder).mkdir()
        Image.fromarray(rng.integers(0, high, shape, np.uint8)).save(tmp_path / folder / "a.png")
    main("folder", "--root", tmp_path, "--weights", weights)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{weights} on {tmp_path}: whole, no flip")
    assert re.search(r"\| water \| \d", printed)
    (tmp_path / "classes.json").write_text(json.dumps(["water", "rock", "grass"]))
    message = refused("folder", "--root", tmp_path, "--weights", weights)
    assert "has 3 classes (grass, sand, water)" in message
    assert "but the data set has 3 (water, rock, grass): give weights of these" in message


def test_a_folder_that_names_no_classes_has_those_of_the_network(
    main, refused, make_model, capsys, tmp_path
):
    """Though it lacks the highest class; and its numbers are those that the network learnt from."""
    classes = {"categories": ["grass", "sand", "water"], "label_ids": [0, 10, 20], "ignore": [30]}
    weights, model = tmp_path / "mine.safetensors", make_model(3, label_set=classes)
    write_weights(weights, model.to_weights())
    labels = np.zeros((40, 56), np.uint8)
    labels[:9], labels[30:] = 1, 3
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for folder, array in (("images", image), ("masks", 10 * labels)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    main("folder", "--root", tmp_path, "--weights", weights, "--save-label-ids", tmp_path / "ids")
    printed = capsys.readouterr().out
    true = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[labels.tolist()]
    expected = evaluate(model, [(torch.from_numpy(image).movedim(-1, 0), true)])
    assert expected.table() in printed
    with Image.open(tmp_path / "ids" / "a.png") as file:
        ids = np.array(file)
    assert np.array_equal(ids, 10 * model.predict(image).labels.numpy())
    assert "names its classes" in refused("folder", "--root", tmp_path, "--weights", "all")


def test_all_weights_with_the_classes_are_evaluated(main, camvid, capsys, tmp_path, monkeypatch):
    """Other weights for these classes are missing: that is reported, the first are evaluated."""
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


def test_label_ids_are_saved_even_without_labels(main, make_model, capsys, tmp_path):
    """The test split of Cityscapes: results for the server, and there are no scores."""
    names = write_cityscapes(tmp_path, 2, size=(64, 128), split="test")
    model, weights = make_model(19, label_set="cityscapes"), tmp_path / "mine.safetensors"
    write_weights(weights, model.to_weights())
    arguments = ["cityscapes", "--root", tmp_path, "--split", "test", "--network", "ccnet_resnet18"]
    arguments += ["--weights", weights, "--report", tmp_path / "report"]
    main(*arguments, "--save-label-ids", tmp_path / "ids")
    assert "no labelled pixels: there are no scores" in capsys.readouterr().out
    saved = sorted(path.name for path in (tmp_path / "ids").iterdir())
    assert saved == [f"{name}.png" for name in names]
    for name in names:
        city = name.partition("_")[0]
        predicted = model.predict(tmp_path / "leftImg8bit" / "test" / city / f"{name}.png").labels
        with Image.open(tmp_path / "ids" / f"{name}.png") as file:
            assert file.mode == "L"
            ids = torch.from_numpy(np.array(file))
        assert torch.equal(ids, torch.tensor(model.label_set.label_ids)[predicted.long()].byte())


def test_bundled_weights_have_their_published_miou_on_camvid(main, camvid_root, capsys):
    main("camvid", "--root", camvid_root, "--confirm")
    assert f"published mIoU {PUBLISHED:.2f} % (this project)" in capsys.readouterr().out
