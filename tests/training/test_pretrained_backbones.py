"""Weights of a backbone, pre-trained or from elsewhere, in a network."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_runs import newest
from torchvision.models import resnet18

from ccnet.training.checkpoint import save_checkpoint
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import ClassificationRecipe, Classifier
from ccnet.training.pretraining import BackboneTrainer
from ccnet.weights import read_weights
from ccnet.zoo import ccnet_resnet18

RECIPE = ClassificationRecipe(size=16, steps=1, batch_size=4, precision="float32")
KERNEL = "layer4.1.conv2.weight"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one step."""
    root, run_dir = tmp_path_factory.mktemp("classes"), tmp_path_factory.mktemp("runs")
    for color in ("red", "green", "blue"):
        (root / color).mkdir()
        for index in range(3):
            Image.new("RGB", (16, 16), color).save(root / color / f"{index}.png")
    images = ClassFolder(root, root, 16)
    BackboneTrainer(images, RECIPE, run_dir, details={"license": "CC-BY-4.0"}).run()
    return run_dir


@pytest.fixture(scope="module")
def files(finished, weights_file, tmp_path_factory):
    """Files with a backbone, and a kernel in it."""
    folder, theirs = tmp_path_factory.mktemp("files"), resnet18().state_dict()
    torch.save(theirs, folder / "resnet18.pth")
    save_file(theirs, folder / "resnet18.safetensors")
    wrapped = {f"module.encoder.{name}": value for name, value in theirs.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, folder / "wrapped.ckpt")
    state = dict(newest(finished))
    state["average"] = {name: value + 1 for name, value in state["average"].items()}
    save_checkpoint(folder / "later.pt", state)
    best = finished / "best.safetensors"
    return {
        "file": (best, read_weights(best).state_dict[KERNEL]),
        "checkpoint": (
            finished / "checkpoints" / "step-00000001.pt",
            state["model"][f"backbone.{KERNEL}"],
        ),
        "one of two": (
            f"{folder / 'later.pt'}#average.module.backbone",
            state["average"][f"module.backbone.{KERNEL}"],
        ),
        "network": (weights_file, read_weights(weights_file).state_dict[f"backbone.{KERNEL}"]),
        "torchvision": (folder / "resnet18.pth", theirs[KERNEL]),
        "safetensors": (folder / "resnet18.safetensors", theirs[KERNEL]),
        "wrapped": (folder / "wrapped.ckpt", theirs[KERNEL]),
    }


@pytest.mark.parametrize(
    ("kind", "license_"),
    [
        *(("file", "CC-BY-4.0"), ("checkpoint", "CC-BY-4.0"), ("one of two", "CC-BY-4.0")),
        *(("network", None), ("torchvision", None), ("safetensors", None), ("wrapped", None)),
    ],
)
def test_files_initialise_a_backbone(files, kind, license_):
    path, expected = files[kind]
    model = ccnet_resnet18(weights_backbone=path, num_classes=3)
    assert torch.equal(model.backbone.get_parameter(KERNEL), expected)
    assert model.card_details.get("license") == license_


def test_one_of_several_backbones_is_to_be_chosen(files):
    path = files["one of two"][0].partition("#")[0]
    with pytest.raises(ValueError, match=r"later\.pt: there are several networks in it: model"):
        ccnet_resnet18(weights_backbone=path)


def test_backbone_computes_the_same_in_a_network(finished):
    weights = read_weights(finished / "best.safetensors")
    classifier = Classifier(RECIPE, 3)
    classifier.backbone.load_state_dict(weights.state_dict)
    stride = {"output_stride": RECIPE.output_stride}
    path = str(finished / "best.safetensors")
    model = ccnet_resnet18(weights_backbone=path, num_classes=3, backbone_options=stride)
    batch = model.transforms()(torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8))
    with torch.no_grad():
        ours, same_one = model.eval().backbone(batch)[1], classifier.eval().backbone(batch)[1]
    assert torch.equal(ours, same_one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": {"channel_order": "BGR"}}, "has preprocessing .*RGB.*, not .*BGR"),
        ({"backbone_options": {"stem_widths": [8, 16]}}, r"stem\.0\.weight is .* instead of"),
    ],
)
def test_files_that_do_not_fit_are_refused(weights_file, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ccnet_resnet18(weights_backbone=weights_file, **options)
    assert str(weights_file) in str(caught.value)
