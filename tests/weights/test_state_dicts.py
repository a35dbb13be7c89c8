"""One's own files: networks of this project, however their state dict was wrapped and saved."""

import pytest
import torch
from families import small_state
from safetensors.torch import save_file

import ccnet
from ccnet.commands import convert
from ccnet.model import CCNet
from ccnet.norm import convert_inplace_abn
from ccnet.weights.sources import load_weights

SETTINGS = {
    "recurrence": 3,
    "categories": ["street", "grass", "house"],
    "align_corners": False,
    "negative_slope": 0.1,
    "preprocessing": {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "channel_order": "BGR"},
    "backbone_options": {
        "output_stride": 16,
        "contract_dilation": True,
        "ceil_mode": False,
        "negative_slope": 0.1,
    },
}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(3)
    return ccnet.ccnet_resnet18(aux_channels=8, **SETTINGS).eval()


@pytest.fixture(scope="module")
def state(trained):
    return {name: value.clone() for name, value in trained.state_dict().items()}


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def averaged(state):
    return {name: value + value.is_floating_point() for name, value in state.items()}


def inside(name):
    return name.replace("layer3.", "layer3._checkpoint_wrapped_module.")


WRAPPED = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "best": 0.5},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {0: 1}}},
    "averaged alone": lambda state: {"ema": {"module": state, "decay": 0.99}},
    "state_dict_ema": lambda state: {"state_dict_ema": state},
    "data parallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled and parallel": lambda state: prefixed("module._orig_mod.", state),
    "own wrapper": lambda state: prefixed("student.segmenter.", state),
    "part compiled": lambda state: {inside(name): value for name, value in state.items()},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.", state)},
    "Lightning": lambda state: {
        "state_dict": {**prefixed("model.", state), "criterion.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.5.0",
    },
    "beside a number for a name": lambda state: {**state, 5: torch.ones(1)},
    "NumPy": lambda state: {name: value.numpy() for name, value in state.items()},
    "NumPy of other bytes": lambda state: {
        name: value.numpy().astype(value.numpy().dtype.newbyteorder(">"))
        for name, value in state.items()
    },
    "twice the same": lambda state: {"model": state, "state_dict": prefixed("module.", state)},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_state_dict_gives_the_network(wrap, state, save, caplog):
    path = save(wrap(state), "mine.pth")
    loaded = load_weights(path, "resnet18")
    assert loaded.state_dict.keys() == state.keys()
    for name, value in loaded.state_dict.items():
        assert torch.equal(value, state[name]), name
    assert loaded.source == str(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is a checkpoint of this project"
    ]


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
@pytest.mark.parametrize("prefix", ["", "model._orig_mod."])
def test_tensors_alone_in_safetensors_give_the_network(
    name, prefix, trained, state, tmp_path, caplog
):
    save_file(prefixed(prefix, state), tmp_path / name)
    model = ccnet.ccnet_resnet18(weights=tmp_path / name, **SETTINGS)
    options = {**trained.config["backbone_options"], "stem_widths": []}
    assert model.config == {**trained.config, "backbone_options": options}
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not [one for one in caplog.records if "assumed" in one.getMessage()]


def test_average_without_names_is_said_to_be_left_aside(state, trained, save, caplog):
    shadow = [value.detach().clone() for value in trained.state_dict().values()]
    generators = {"cuda": [torch.zeros(16, dtype=torch.uint8)] * 2}
    load_weights(save({"model": state, **generators}), "resnet18")
    assert "left aside" not in caplog.text
    load_weights(save({"model": state, "ema": {"shadow_params": shadow}}), "resnet18")
    assert "the tensors without names in ema.shadow_params, perhaps an average" in caplog.text


def test_average_under_flat_names_is_said_to_be_left_aside(state, save, caplog):
    average = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in state.items()}
    loaded = load_weights(save({"state_dict": {**state, **average}}), "resnet18")
    assert loaded.state_dict.keys() == state.keys()
    assert "left aside: an average of the weights, ema_aux_head_classifier_bias" in caplog.text


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("config", "my.yaml", "is not JSON"),
        ("config", "[1]", "is a list, not a mapping"),
        ("config", "null", "is a NoneType, not a mapping"),
        ("config", '{"lr": 0.1}', "is not used: it has no backbone, num_classes, recurrence"),
        ("details", "3", "is a int, not a mapping"),
    ],
)
def test_metadata_of_another_program_is_passed_over(key, text, message, state, tmp_path, caplog):
    path = tmp_path / "mine.safetensors"
    save_file(state, path, metadata={"format": "pt", key: text})
    loaded = load_weights(path, "resnet18")
    assert (loaded.config["num_classes"], loaded.config["aux_channels"]) == (3, 8)
    assert f"the {key} in {path} {message}" in caplog.text


def test_no_attention_contradicts_weights_that_have_it(state, save):
    with pytest.raises(
        ValueError, match=r"recurrence must be 1 or more.*mine\.pth has criss-cross"
    ):
        ccnet.ccnet_resnet18(weights=save(state, "mine.pth"), recurrence=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("recurrence", "recurrence=2"),
        ("categories", "the names of the 3 classes (just numbered)"),
        ("align_corners", "align_corners=True"),
        ("negative_slope", "negative_slope=0.0"),
        ("preprocessing", "preprocessing with ImageNet's mean and std, RGB"),
        (
            "backbone_options",
            'backbone_options={"output_stride": 8, "contract_dilation": False, "ceil_mode": True, '
            '"negative_slope": 0.0}',
        ),
        ("output_stride", 'backbone_options={"output_stride": 8}'),
        ("contract_dilation", 'backbone_options={"contract_dilation": False}'),
        ("ceil_mode", 'backbone_options={"ceil_mode": True}'),
        ("backbone's negative_slope", 'backbone_options={"negative_slope": 0.0}'),
    ],
)
def test_what_is_not_known_is_assumed_and_said(given, words, state, save, caplog):
    path = save(state, "mine.pth")
    others = {name: value for name, value in SETTINGS.items() if name != given}
    if given not in SETTINGS:
        others["backbone_options"] = {
            name: value
            for name, value in SETTINGS["backbone_options"].items()
            if name != given.removeprefix("backbone's ")
        }
    ccnet.ccnet_resnet18(weights=path, **others)
    (message,) = (one.getMessage() for one in caplog.records if "assumed" in one.getMessage())
    start = f"{path} does not tell everything; assumed, where no argument says otherwise"
    assert message == f"{start}: {words}"


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet18", "backbone_options": {"stem_widths": [8, 8, 16]}},
        {"backbone": "resnet18", "aux_channels": 0, "recurrence": 0},
        {"backbone": "resnet50", "num_classes": 2, "aux_channels": 4},
    ],
    ids=lambda options: "-".join(options),
)
def test_sizes_tell_stem_depth_heads_and_classes(options, save):
    model = CCNet(**{"num_classes": 4, "aux_channels": 8, **options})
    build = ccnet.ccnet_resnet18 if options["backbone"] == "resnet18" else ccnet.ccnet_resnet50
    found = build(weights=save(model.state_dict(), "mine.pth")).config
    for name in ("backbone", "num_classes", "aux_channels", "recurrence"):
        assert found[name] == model.config[name], name
    stem = list(model.backbone.stem_widths)
    assert found["backbone_options"]["stem_widths"] == stem


@pytest.mark.parametrize(
    ("wrap", "entries"),
    [
        (lambda one, two: {"model": one, "ema": two}, ("model", "ema")),
        (lambda one, two: {"state_dict": one, "state_dict_ema": two}, None),
        (
            lambda one, two: {
                "state_dict": prefixed("model.", one) | prefixed("ema_model.module.", two)
            },
            ("state_dict.model", "state_dict.ema_model.module"),
        ),
        (lambda one, two: {**one, **prefixed("ema.", two)}, ("", "ema")),
    ],
    ids=["model and ema", "timm", "Lightning", "beside each other"],
)
def test_of_several_networks_one_is_to_be_chosen(wrap, entries, state, save):
    path = save(wrap(state, averaged(state)), "mine.pth")
    entries = entries or ("state_dict", "state_dict_ema")
    with pytest.raises(ValueError, match=rf"mine\.pth: there are several networks .*{entries[1]}"):
        ccnet.ccnet_resnet18(weights=path)
    for entry, expected in zip(entries, (state, averaged(state)), strict=True):
        loaded = load_weights(f"{path}#{entry}", "resnet18")
        for name, value in loaded.state_dict.items():
            assert torch.equal(value, expected[name]), name
    with pytest.raises(ValueError, match="no network at 'teacher'; there is"):
        ccnet.ccnet_resnet18(weights=f"{path}#teacher")


def test_number_of_classes_given_otherwise_starts_new_classifiers(state, save, caplog):
    model = ccnet.ccnet_resnet18(weights=save(state), categories=["a", "b"], recurrence=1)
    assert model.head.classifier.weight.shape[0] == 2
    assert "these parts start untrained: head.classifier" in caplog.text


def test_classes_of_a_foreign_network_can_be_named(save):
    state = small_state("pure", num_classes=3)
    model = ccnet.ccnet_resnet18(weights=save(state), categories=["a", "b", "c"])
    assert model.label_set.categories == ("a", "b", "c")
    assert torch.equal(model.head.classifier.weight, state["head.bottleneck.4.weight"])


def test_weights_that_may_be_of_an_in_place_norm_are_said(save, caplog):
    slope = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}
    model = convert_inplace_abn(ccnet.ccnet_resnet18(num_classes=3, **slope))
    model.head.conva[1].weight.data.neg_()
    path = save(model.state_dict(), "mine.pth")
    ccnet.ccnet_resnet18(weights=path, **slope)
    assert "plain batch norm, though some of its weights are negative" in caplog.text


@pytest.mark.parametrize("name", ["foreign.pth", "foreign.safetensors"])
def test_foreign_tensors_get_one_error(name, save, tmp_path):
    tensors = {"layer1.0.conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)}
    save_file(tensors, tmp_path / name) if name.endswith("s") else save(tensors, name)
    message = rf"{name}: unknown checkpoint family with parameter names such as fc\.bias, layer1"
    with pytest.raises(ValueError, match=message):
        ccnet.ccnet_resnet18(weights=tmp_path / name)


def test_resnet34_is_called_unknown(save):
    state = small_state("pure")
    blocks = {
        name.replace("layer3.0", f"layer3.{index}"): value
        for index in range(2, 6)
        for name, value in state.items()
        if name.startswith("layer3.0")
    }
    with pytest.raises(ValueError, match="6 blocks in its third stage, basic blocks, is not known"):
        ccnet.ccnet_resnet18(weights=save(state | blocks))


def test_channels_of_a_state_dict_are_measured(tmp_path):
    network = CCNet("resnet18", num_classes=3, in_channels=4, aux_channels=8).eval()
    torch.save(network.state_dict(), tmp_path / "four.pth")
    images = torch.randn(1, 4, 33, 41)
    with torch.no_grad():
        expected = network(images)["out"]
        found = ccnet.ccnet_resnet18(weights=tmp_path / "four.pth")(images)["out"]
        assert torch.equal(found, expected)
        convert.main([str(tmp_path / "four.pth"), "--output", str(tmp_path / "converted")])
        found = CCNet.from_pretrained(str(tmp_path / "converted"))(images)["out"]
    torch.testing.assert_close(found, expected)
