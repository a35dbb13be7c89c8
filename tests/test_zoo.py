"""The networks by name: which weights they take, and what becomes of them."""

import logging

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights

import ccnet
from ccnet.serialization import read_weights, save_weights
from ccnet.zoo import ccnet_resnet18, ccnet_resnet50, ccnet_resnet101

CLASSIFIERS = ("head.classifier.", "aux_head.classifier.")


@pytest.fixture(scope="module")
def stored(weights_file):
    return read_weights(weights_file)[0]


def differing(model, stored):
    """Names of the parameters and buffers that are not those of the file."""
    state = model.state_dict()
    return {
        name
        for name in state.keys() | stored.keys()
        if name not in state or name not in stored or not torch.equal(state[name], stored[name])
    }


def test_without_weights_a_network_is_untrained():
    with torch.device("meta"):
        for build, name in (
            (ccnet_resnet18, "resnet18"),
            (ccnet_resnet50, "resnet50"),
            (ccnet_resnet101, "resnet101"),
        ):
            model = build()
            assert model.training
            assert model.config["backbone"] == name
            assert (model.config["num_classes"], model.config["recurrence"]) == (19, 2)
        model = ccnet_resnet18(num_classes=3, recurrence=1, aux_channels=0)
        assert (model.config["num_classes"], model.config["recurrence"]) == (3, 1)
        assert model.aux_head is None
        assert ccnet_resnet18(label_set="camvid").config["num_classes"] == 11


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_a_file_gives_its_network_exactly(weights_file, stored, as_path, caplog):
    model = ccnet_resnet18(weights=as_path(weights_file))
    assert not model.training
    assert differing(model, stored) == set()
    assert model.config == read_weights(weights_file)[1]
    assert model.label_set.categories[0] == "sky"
    assert not caplog.records


def test_another_number_of_classes_keeps_all_but_the_classifiers(weights_file, stored, caplog):
    with caplog.at_level(logging.INFO):
        model = ccnet_resnet18(weights=weights_file, num_classes=4)
    assert len(model.label_set) == 4
    changed = differing(model, stored)
    assert changed == {f"{part}{kind}" for part in CLASSIFIERS for kind in ("weight", "bias")}
    assert model.head.classifier.weight.shape[0] == 4
    assert model.predict(torch.rand(3, 9, 12)).labels.max() < 4
    assert "head.classifier" in caplog.text
    assert weights_file.name in caplog.text


def test_as_many_classes_of_other_names_start_fresh_too(weights_file, stored, caplog):
    label_set = {"categories": [f"thing {index}" for index in range(11)]}
    model = ccnet_resnet18(weights=weights_file, label_set=label_set)
    changed = differing(model, stored)
    assert changed
    assert all(name.startswith(CLASSIFIERS) for name in changed)
    assert "head.classifier" in caplog.text


def test_the_same_number_of_classes_keeps_the_classifiers(weights_file, stored, caplog):
    model = ccnet_resnet18(weights=weights_file, num_classes=11)
    assert differing(model, stored) == set()
    assert model.label_set.categories[0] == "sky"
    assert not caplog.records


@pytest.mark.parametrize("recurrence", [1, 3])
def test_loops_can_be_chosen(weights_file, stored, recurrence, pixels):
    model, usual = (ccnet_resnet18(weights=weights_file, recurrence=r) for r in (recurrence, None))
    assert differing(model, stored) == set()
    assert model.config["recurrence"] == recurrence
    batch = model.transforms()(pixels)
    with torch.no_grad():
        assert (model(batch)["out"] - usual(batch)["out"]).abs().max() > 1e-4


def test_no_loops_drop_the_attention(weights_file, stored):
    model = ccnet_resnet18(weights=weights_file, recurrence=0)
    changed = differing(model, stored)
    assert changed
    assert all(name.startswith("head.cca.") for name in changed)
    assert model.head.cca is None


@pytest.mark.parametrize("aux_channels", [0, 40])
def test_the_auxiliary_head_can_be_left_out_or_started_anew(weights_file, stored, aux_channels):
    model = ccnet_resnet18(weights=weights_file, aux_channels=aux_channels)
    changed = differing(model, stored)
    assert changed
    assert all(name.startswith("aux_head.") for name in changed)
    assert (model.aux_head is None) == (aux_channels == 0)


def test_further_arguments_replace_those_of_the_weights(weights_file, stored):
    options = {"output_stride": 16}
    model = ccnet_resnet18(weights=weights_file, align_corners=False, backbone_options=options)
    assert differing(model, stored) == set()
    assert model.align_corners is False
    assert model.backbone.layer4[0].conv1.dilation == (2, 2)


@pytest.mark.parametrize("name", ["camvid", "CAMVID2", "cityscapes"])
@pytest.mark.parametrize("build", [ccnet_resnet18, ccnet_resnet50, ccnet_resnet101])
def test_a_wrong_name_lists_the_right_ones(build, name):
    with pytest.raises(ValueError, match=f"no weights '{name}': expected one of") as caught:
        build(weights=name)
    choice = getattr(ccnet, build.__name__.replace("ccnet_resnet", "CCNet_ResNet") + "_Weights")
    for member in choice.__members__:
        assert member in str(caught.value)


@pytest.mark.parametrize("weights", [ResNet18_Weights.DEFAULT, ccnet.CCNet_ResNet18_Weights.CAMVID])
def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(ValueError, match="is for another network"):
        ccnet_resnet50(weights=weights)


def test_a_file_for_another_backbone_is_refused(weights_file):
    with pytest.raises(ValueError, match="holds weights for resnet18, not for resnet50"):
        ccnet_resnet50(weights=weights_file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        ccnet_resnet18(weights=tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["none.pth", "none.tar"])
def test_a_missing_checkpoint_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at .*{name}"):
        ccnet_resnet18(weights=tmp_path / name)


@pytest.mark.parametrize("config", [{}, {"backbone": "resnet18"}, [1]])
def test_a_file_without_the_networks_configuration_is_refused(tmp_path, config):
    save_weights(tmp_path / "foreign.safetensors", {"a": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"foreign\.safetensors"):
        ccnet_resnet18(weights=tmp_path / "foreign.safetensors")


def test_a_file_that_lacks_tensors_is_refused(tmp_path, weights_file, stored):
    partial = {name: value for name, value in stored.items() if name != "head.cca.gamma"}
    save_weights(tmp_path / "part.safetensors", partial, read_weights(weights_file)[1])
    with pytest.raises(ValueError, match=r"missing head\.cca\.gamma"):
        ccnet_resnet18(weights=tmp_path / "part.safetensors")


def test_own_categories_are_a_label_set(weights_file, stored):
    model = ccnet_resnet18(weights=weights_file, categories=["street", "grass", "house"])
    assert model.label_set.categories == ("street", "grass", "house")
    assert len(set(model.label_set.colors)) == 3
    changed = differing(model, stored)
    assert changed == {f"{part}{kind}" for part in CLASSIFIERS for kind in ("weight", "bias")}


def test_a_folder_of_a_saved_model_is_weights_too(model, tmp_path, pixels):
    model.save_pretrained(tmp_path / "own")
    loaded = ccnet_resnet18(weights=tmp_path / "own")
    assert torch.equal(loaded.predict(pixels).labels, model.predict(pixels).labels)


def test_the_licence_stays_with_weights_that_are_trained_further(tmp_path):
    model = ccnet_resnet18(weights="DEFAULT", categories=["a", "b"])
    model.save_pretrained(tmp_path / "own")
    card = (tmp_path / "own" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    assert "fine-tuned from CCNet_ResNet18_Weights.CAMVID" in card
    assert "mIoU" not in card
    again = ccnet_resnet18(weights=tmp_path / "own", categories=["c"])
    for loaded in (ccnet.CCNet.from_pretrained(tmp_path / "own"), again):
        assert loaded.card_details == model.card_details
    assert model.card_details["license"] == "CC-BY-NC-4.0"


@pytest.mark.parametrize("weights", [3, {"head.cca.gamma": torch.ones(1)}])
def test_what_is_no_name_of_weights_is_refused(weights):
    kind = type(weights).__name__
    with pytest.raises(ValueError, match=f"^weights are a name, a path .*, not a {kind}$"):
        ccnet_resnet18(weights=weights)


def test_one_string_is_not_a_list_of_categories(weights_file):
    with pytest.raises(ValueError, match="a list of names, not 'street'"):
        ccnet_resnet18(weights=weights_file, categories="street")


def test_a_picture_is_no_checkpoint_and_nothing_is_advised(tmp_path):
    path = tmp_path / "street.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(ValueError, match="is no intact checkpoint") as error:
        ccnet_resnet18(weights=path)
    assert "weights_only" not in str(error.value)
