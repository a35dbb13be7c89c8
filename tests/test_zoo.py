"""The networks by name: which weights they take, and what becomes of them."""

import shutil

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

import ccnet
from ccnet import zoo
from ccnet.classes import LabelSet
from ccnet.model import CCNet
from ccnet.training.recipes import Recipe
from ccnet.training.setup import build_model
from ccnet.weights import REGISTRY, read_weights, write_weights
from ccnet.zoo import ccnet_resnet18, ccnet_resnet50

CLASSIFIERS = {
    f"{head}.classifier.{kind}" for head in ("head", "aux_head") for kind in ("weight", "bias")
}


@pytest.fixture(scope="module")
def stored(weights_file):
    return read_weights(weights_file).state_dict


def differing(model, stored):
    """Names of the parameters and buffers that are not those of the file."""
    state = model.state_dict()
    return {
        name
        for name in state.keys() | stored.keys()
        if name not in state or name not in stored or not torch.equal(state[name], stored[name])
    }


@pytest.mark.parametrize("backbone", REGISTRY)
def test_network_without_weights_is_untrained(backbone):
    with torch.device("meta"):
        build = zoo.NETWORKS[f"ccnet_{backbone}"]
        model = build()
        assert model.training
        config = model.config
        assert [config[name] for name in ("backbone", "num_classes", "recurrence")] == [
            *(backbone, 19, 2)
        ]
        config = build(num_classes=3, recurrence=1, aux_channels=0).config
        assert [config[name] for name in ("num_classes", "recurrence", "aux_channels")] == [3, 1, 0]
        assert build(label_set="camvid").config["num_classes"] == 11


@pytest.mark.parametrize(
    ("as_weights", "options"),
    [(str, {}), (lambda path: path, {}), (read_weights, {}), (str, {"num_classes": 11})],
    ids=["str", "path", "loaded", "the same number of classes"],
)
def test_weights_give_their_network_exactly(weights_file, stored, as_weights, options, caplog):
    model = ccnet_resnet18(weights=as_weights(weights_file), **options)
    assert not model.training
    assert differing(model, stored) == set()
    assert model.config == read_weights(weights_file).config
    assert model.label_set.categories[0] == "sky"
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "categories"),
    [
        ({"num_classes": 4}, ("class 0", "class 1", "class 2", "class 3")),
        ({"label_set": {"categories": list("abcdefghijk")}}, tuple("abcdefghijk")),
        ({"categories": ["street", "grass", "house"]}, ("street", "grass", "house")),
    ],
    ids=["num_classes", "label_set", "categories"],
)
def test_other_classes_keep_all_but_the_classifiers(
    weights_file, stored, options, categories, caplog
):
    model = ccnet_resnet18(weights=weights_file, **options)
    assert model.label_set.categories == categories
    assert len(set(model.label_set.colors)) == len(categories)
    assert differing(model, stored) == CLASSIFIERS
    assert model.head.classifier.weight.shape[0] == len(categories)
    assert model.predict(torch.rand(3, 9, 12)).labels.max() < len(categories)
    assert f"{weights_file}: these parts start untrained: head.classifier" in caplog.text


@pytest.mark.parametrize("seed", [0, 7])
def test_new_classifiers_do_not_start_as_those_of_the_weights_did(seed):
    """The seed with which the weights began may be that of the new network: 0 is usual."""
    torch.manual_seed(seed)
    weights = CCNet("resnet18", 4).to_weights()
    rows = weights.state_dict["head.classifier.weight"].flatten(1)

    def start():
        torch.manual_seed(seed)
        model = CCNet.from_weights(weights, categories=["a", "b", "c"])
        return model.head.classifier.weight.detach().flatten(1), torch.rand(2)

    own, after = start()
    assert torch.cosine_similarity(own[:, None], rows[None], dim=2).abs().max() < 0.5
    assert 0.3 < own.std() / rows.std() < 3
    again, random_state = start()
    assert torch.equal(own, again)
    assert torch.equal(after, random_state)


@pytest.mark.parametrize("recurrence", [1, 3])
def test_recurrence_can_be_chosen(weights_file, stored, recurrence, pixels):
    model, usual = (ccnet_resnet18(weights=weights_file, recurrence=r) for r in (recurrence, None))
    assert differing(model, stored) == set()
    assert model.config["recurrence"] == recurrence
    batch = model.transforms()(pixels)
    with torch.no_grad():
        assert (model(batch)["out"] - usual(batch)["out"]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "part"),
    [({"recurrence": 0}, "head.cca"), ({"aux_channels": 0}, "aux_head")],
    ids=["attention", "auxiliary head"],
)
def test_part_can_be_left_out(weights_file, stored, options, part, caplog):
    model = ccnet_resnet18(weights=weights_file, **options)
    left_out = {name for name in stored if name.startswith(f"{part}.")}
    assert left_out
    assert model.state_dict().keys() == stored.keys() - left_out
    assert differing(model, stored) == left_out
    assert not caplog.records


def test_auxiliary_head_of_another_width_starts_untrained(weights_file, stored, caplog):
    model = ccnet_resnet18(weights=weights_file, aux_channels=40)
    changed = differing(model, stored)
    assert "aux_head.conv.0.weight" in changed
    assert all(name.startswith("aux_head.") for name in changed)
    assert model.aux_head.classifier.in_channels == 40
    assert "start untrained: aux_head" in caplog.text


OWN_OPTIONS = {"stem_widths": [8, 8, 16], "contract_dilation": False, "ceil_mode": True}
OTHER_OPTIONS = {"align_corners": False, "backbone_options": {"output_stride": 16}}


@pytest.mark.parametrize(
    ("build", "align_corners"),
    [
        (lambda path: ccnet_resnet18(weights=path, **OTHER_OPTIONS), False),
        (lambda path: CCNet.from_weights(read_weights(path), **OTHER_OPTIONS), False),
        (
            lambda path: build_model(
                Recipe(weights=str(path), output_stride=16), LabelSet.numbered(5), progress=False
            ),
            True,
        ),
    ],
    ids=["builder", "from_weights", "recipe"],
)
def test_further_arguments_replace_the_weights_own(make_model, tmp_path, build, align_corners):
    trained = make_model(5, backbone_options={**OWN_OPTIONS, "output_stride": 8})
    write_weights(tmp_path / "own.safetensors", trained.to_weights())
    model = build(tmp_path / "own.safetensors")
    assert model.config["backbone_options"] == {**OWN_OPTIONS, "output_stride": 16}
    assert differing(model, trained.state_dict()) == set()
    assert model.align_corners is align_corners
    assert model.backbone.stem[0].out_channels == 8
    assert any(getattr(module, "ceil_mode", False) for module in model.backbone.modules())
    assert model.backbone.layer4[0].conv1.dilation == (2, 2)


@pytest.mark.parametrize("name", ["camvid", "CAMVID2", "cityscapes", "default"])
@pytest.mark.parametrize("backbone", REGISTRY)
def test_wrong_name_lists_the_right_ones(backbone, name):
    near = {"camvid": "CAMVID", "CAMVID2": "CAMVID", "default": "DEFAULT"}.get(name)
    hint = rf"did you mean '{near}'\? E" if near in REGISTRY[backbone].__members__ else "e"
    message = f"unknown weights '{name}': {hint}xpected one of"
    with pytest.raises(ValueError, match=message) as caught:
        zoo.NETWORKS[f"ccnet_{backbone}"](weights=name)
    for member in REGISTRY[backbone].__members__:
        assert member in str(caught.value)


def test_folder_of_a_run_gives_its_best_weights(weights_file, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no weights in .*run: neither model\.safetensors"):
        zoo.ccnet_resnet18(weights=run)
    shutil.copy(weights_file, run / "best.safetensors")
    expected = zoo.ccnet_resnet18(weights=weights_file).state_dict()
    assert differing(zoo.ccnet_resnet18(weights=run), expected) == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CAMVID", "CAMVID are weights of ccnet_resnet18: use that network"),
        ("AUTHORS_CITYSCAPES_R2", "are weights of ccnet_resnet101: use that network"),
        ("hf://a/b/c", "hf://a/b/c is no address of weights"),
        ("hf://", "hf:// is no address of weights"),
        ("hf://a b/c", "hf://a b/c is no address of weights"),
    ],
)
def test_name_at_the_wrong_place_is_told(name, message):
    with pytest.raises(ValueError, match=message):
        ccnet_resnet50(weights=name)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (ResNet18_Weights.DEFAULT, "belongs to another network"),
        (ccnet.CCNet_ResNet18_Weights.CAMVID, "belongs to another network"),
        ("file", "holds weights for resnet18, not for resnet50"),
        (3, "^weights must be a name, a path .*, not a int$"),
        ({"head.cca.gamma": torch.ones(1)}, "^weights must be a name, a path .*, not a dict$"),
    ],
    ids=["torchvision's", "another member", "another file", "number", "state dict"],
)
def test_weights_of_something_else_are_refused(weights_file, weights, message):
    with pytest.raises(ValueError, match=message):
        ccnet_resnet50(weights=weights_file if weights == "file" else weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": "street"}, "a list of names, not 'street'"),
        ({"weights_backbone": "DEFAULT"}, "weights or weights_backbone, not both"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(weights_file, options, message):
    with pytest.raises(ValueError, match=message):
        ccnet_resnet18(weights=weights_file, **options)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth", "none.tar"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"no (weights|checkpoint) at .*{name}"):
        ccnet_resnet18(weights=tmp_path / name)


def test_pretrained_network_initialises_nothing(weights_file, monkeypatch):
    real = []

    def record(module):
        real.extend(value for value in module.parameters() if not value.is_meta)

    monkeypatch.setattr("torch.nn.Conv2d.reset_parameters", record)
    monkeypatch.setattr("torch.nn.BatchNorm2d.reset_parameters", record)
    monkeypatch.setattr(
        "torch.nn.init.kaiming_normal_",
        lambda tensor, **_: None if tensor.is_meta else real.append(tensor),
    )
    model = ccnet_resnet18(weights=weights_file)
    assert not real
    assert not any(value.is_meta for value in model.state_dict().values())
    CCNet("resnet18", 11)
    assert real, "an untrained network initialises, or this test sees nothing"


@pytest.mark.parametrize(
    ("changes", "suffix"),
    [
        ({}, ".safetensors"),
        ({"num_classes": 3}, ".safetensors"),
        ({"recurrence": 0}, ""),
        (None, ""),
        ("backbone", None),
    ],
)
def test_builders_follow_the_default_device(weights_file, monkeypatch, tmp_path, changes, suffix):
    CCNet.from_weights(read_weights(weights_file)).save_pretrained(tmp_path)
    theirs = resnet18().state_dict()
    monkeypatch.setattr("ccnet.zoo.load_imagenet", lambda weights, progress: theirs)
    with torch.device("meta"):
        if changes is None:
            model = CCNet.from_pretrained(tmp_path)
        elif suffix is None:
            model = ccnet_resnet18(weights_backbone="DEFAULT")
        else:
            model = ccnet_resnet18(weights=weights_file if suffix else tmp_path, **changes)
        assert all(tensor.is_meta for tensor in model.state_dict().values())
    torch.set_default_device("meta")
    try:
        assert ccnet_resnet18(weights=weights_file).head.cca.gamma.is_meta
        with torch.device("cpu"):
            model = ccnet_resnet18(weights=weights_file)
    finally:
        torch.set_default_device(None)
    assert not differing(model, read_weights(weights_file).state_dict)
