"""OpenMMLab's checkpoints: what they record is used, and what is not recorded is said."""

import numpy as np
import pytest
import torch
from families import OPENMMLAB, difference, forward, random_input, random_state
from PIL import Image

import ccnet
from ccnet.classes import CITYSCAPES, LabelSet
from ccnet.datasets import MaskFolder
from ccnet.weights.conversion import convert

NAMES = ["water", "crop", "forest", "town"]
PALETTE = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]

MMCV = """\
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 2),
        strides=(1, 2, 2, 1),
        norm_cfg=norm_cfg,
        style='pytorch',
        contract_dilation=False),
    decode_head=dict(
        type='CCHead',
        in_channels=512,
        in_index=3,
        channels=128,
        recurrence=3,
        dropout_ratio=0.2,
        num_classes=4,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_index=2, num_convs=1, concat_input=False, align_corners=False),
    test_cfg=dict(mode='slide', crop_size=(513, 513), stride=(342, 342)))
img_norm_cfg = dict(mean=[9.0, 9.0, 9.0], std=[9.0, 9.0, 9.0], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=(2048, 1024),
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='Normalize', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False),
        ])
]
data = dict(samples_per_gpu=2, test=dict(type='CityscapesDataset', pipeline=test_pipeline))
evaluation = dict(interval=2**10, metric='mIoU')
"""
MMENGINE = """\
crop_size = (512, 1024)
data_preprocessor = dict(mean=[7.0, 7.0, 7.0], std=[7.0, 7.0, 7.0], bgr_to_rgb=True)
model = dict(
    type='mmseg.models.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.models.SegDataPreProcessor',
        mean=[1, 2, 3],
        std=[4, 5, 6],
        bgr_to_rgb=False,
        size=crop_size),
    backbone=dict(
        type='mmseg.models.ResNetV1c',
        strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=False,
        norm_cfg=dict(type=SyncBatchNorm)),
    decode_head=dict(type='CCHead', recurrence=3, align_corners=True, dropout_ratio=0.2),
    auxiliary_head=dict(type='FCNHead', align_corners=False),
    test_cfg=dict(mode='slide', crop_size=(513, 513), stride=(342, 342)))
default_hooks = dict(logger=dict(type='LoggerHook', interval=50), key=lambda x: x)
tta_model = dict(type='SegTTAModel')
"""
RECORDS = {
    "mmcv": {"config": MMCV, "CLASSES": NAMES, "PALETTE": PALETTE},
    "mmengine": {
        "cfg": MMENGINE,
        "dataset_meta": {"classes": tuple(NAMES), "palette": PALETTE},
    },
}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(4)
    return random_state(OPENMMLAB, "resnet18", num_classes=4)


def converted(state, **meta):
    return convert({"meta": meta, "state_dict": state})


def test_records_of_both_libraries_are_used(state, save, caplog):
    for name, meta in RECORDS.items():
        path = save({"meta": meta, "state_dict": state}, f"{name}.pth")
        model = ccnet.ccnet_resnet18(weights=path)
        config = model.config
        assert config["recurrence"] == 3
        assert config["align_corners"] is True
        assert config["dropout"] == 0.2
        assert config["label_set"]["categories"] == NAMES
        assert config["label_set"]["colors"] == PALETTE
        assert config["preprocessing"] == {
            "mean": [1.0, 2.0, 3.0],
            "std": [4.0, 5.0, 6.0],
            "channel_order": "BGR",
        }
        options = config["backbone_options"]
        assert (options["output_stride"], options["contract_dilation"]) == (16, False)
        protocol = model.card_details["protocol"]
        assert (protocol["crop"], protocol["stride"]) == ([513, 513], [342, 342])
    assert "assumed" not in caplog.text


def test_recorded_network_computes_what_it_computed_at_home(state, save):
    text = "model = dict(decode_head=dict(align_corners=True, recurrence=1))"
    path = save({"meta": {"cfg": text}, "state_dict": state})
    x = random_input((33, 49))
    with torch.no_grad():
        ours = ccnet.ccnet_resnet18(weights=path).double()(x)["out"]
    assert difference(ours, forward(OPENMMLAB, state, x, recurrence=1)[0]) < 1e-4


def with_head(**options):
    return {"cfg": {"model": {"decode_head": options}}}


ONE_RECORD = {
    "mapping": (with_head(recurrence=1), "recurrence", 1),
    "JSON": ({"cfg": '{"model": {"decode_head": {"align_corners": true}}}'}, "align_corners", True),
    "name": (
        {"config": "head = dict(recurrence=4)\nmodel = dict(decode_head=head)"},
        *("recurrence", 4),
    ),
    "taken over": (
        {"config": "head = dict(recurrence=4)\nmodel = dict(decode_head=dict(**head, a=1))"},
        *("recurrence", 4),
    ),
    "files one after another": (
        {
            "config": "/base.py\nmodel = dict(decode_head=dict(recurrence=5, align_corners=True))\n"
            "/own.py\n_base_ = ['base.py']\nmodel = dict(decode_head=dict(recurrence=4))\n"
        },
        *("recurrence", 4),
    ),
    "file that replaces the one before": (
        {
            "config": "/base.py\nmodel = dict(decode_head=dict(align_corners=True))\n"
            "/own.py\nmodel = dict(decode_head=dict(_delete_=True, recurrence=4))\n"
        },
        *("align_corners", False),
    ),
    "beside what is no Python": (
        {"cfg": "hook = <function f at 0x1>\nmodel = dict(decode_head=dict(recurrence=4))"},
        *("recurrence", 4),
    ),
    "beside what cannot be read": (
        {"cfg": "n = 9**9**9\nx = [0] * 10**9\nmodel = dict(decode_head=dict(recurrence=4))"},
        *("recurrence", 4),
    ),
    "not of the auxiliary head": (
        {"cfg": "model = dict(auxiliary_head=dict(align_corners=True, recurrence=4))"},
        *("align_corners", False),
    ),
    "number for a truth": (with_head(align_corners=1), "align_corners", True),
    "whole number": (with_head(recurrence=3.0), "recurrence", 3),
    "same stage by another index": (
        {"cfg": "model = dict(backbone=dict(out_indices=(2, 3)), decode_head=dict(in_index=1))"},
        *("recurrence", 2),
    ),
    "network of a slide with gaps": (
        {"cfg": "test_cfg = dict(mode='slide', crop_size=(64, 96), stride=(64, 200))"},
        *("recurrence", 2),
    ),
    "leaky": (
        with_head(act_cfg={"type": "LeakyReLU", "negative_slope": 0.1}),
        *("negative_slope", 0.1),
    ),
    "data set's pixels": (
        {"config": "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)"},
        "preprocessing",
        {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "channel_order": "RGB"},
    ),
    "pixels as they are": (
        {"cfg": "data_preprocessor = dict(type='SegDataPreProcessor', bgr_to_rgb=True)"},
        "preprocessing",
        {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "channel_order": "RGB"},
    ),
}


@pytest.mark.parametrize(("meta", "name", "value"), ONE_RECORD.values(), ids=ONE_RECORD)
def test_record_is_found(meta, name, value, state):
    assert converted(state, **meta).config[name] == value


def test_contract_dilation_beside_recorded_strides_is_the_default_there(state):
    text = "model = dict(backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))"
    found = converted(state, cfg=text)
    assert found.config["backbone_options"]["contract_dilation"] is False
    assert found.assumed["backbone_options.contract_dilation"] == '"contract_dilation": False'
    assert "backbone_options.output_stride" not in found.assumed


def test_zero_label_that_was_left_out_gives_the_label_ids(state, tmp_path):
    meta = {"classes": NAMES, "palette": None, "reduce_zero_label": True}
    found = converted(state, dataset_meta=meta).config["label_set"]
    assert (found["categories"], found["label_ids"]) == (NAMES, [1, 2, 3, 4])
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (6, 1)).save(tmp_path / "images" / "a.png")
    mask = Image.fromarray(np.uint8([[0, 1, 2, 3, 4, 255]]))
    mask.save(tmp_path / "masks" / "a.png")
    labels = MaskFolder(tmp_path, label_set=LabelSet.from_config(found)).labels(0)
    assert labels.tolist() == [[255, 0, 1, 2, 3, 255]]


def test_zero_label_that_was_left_out_of_all_numbers():
    names = [f"kind {index}" for index in range(255)]
    state = random_state(OPENMMLAB, "resnet18", num_classes=255)
    found = converted(state, dataset_meta={"classes": names, "reduce_zero_label": True})
    assert found.config["label_set"]["ignore"] == [0]


def test_recorded_classes_of_cityscapes_have_its_label_ids():
    state = random_state(OPENMMLAB, "resnet18")
    names = list(CITYSCAPES.categories)
    found = converted(state, CLASSES=names, PALETTE=[list(color) for color in CITYSCAPES.colors])
    assert found.config["label_set"] == CITYSCAPES.to_config()
    other = converted(state, CLASSES=[f"kind {index}" for index in range(19)], PALETTE=None)
    assert other.config["label_set"]["categories"][0] == "kind 0"
    assert "label_set" not in other.assumed


def test_what_is_not_recorded_is_assumed_and_said(save, caplog):
    path = save({"meta": {}, "state_dict": random_state(OPENMMLAB, "resnet18")})
    assert ccnet.ccnet_resnet18(weights=path).config["label_set"] == CITYSCAPES.to_config()
    for words in (
        *("recurrence=2", "the names of the 19 classes (Cityscapes')", "align_corners=False"),
        "ImageNet's mean and std, RGB",
        'backbone_options={"output_stride": 8, "contract_dilation": True}',
    ):
        assert words in caplog.text


@pytest.mark.parametrize("text", ["a b (", "x = " + "(" * 5000, "x = " + "-" * 50_000 + "1"])
def test_record_that_cannot_be_read_is_said(text, state, caplog):
    assert "recurrence" in converted(state, config=text).assumed
    assert "the recorded configuration cannot be read" in caplog.text


OTHERS = {
    "decode_head=[dict(type='FCNHead'), dict(type='CCHead')]": "a cascade of 2 decode heads",
    "decode_head=dict(type='PSPHead')": "type='PSPHead'",
    "decode_head=dict(norm_cfg=dict(type='GN', num_groups=32))": "norm_cfg='GN'",
    "decode_head=dict(norm_cfg=dict(type='BN', eps=1e-3))": "eps=0.001",
    "decode_head=dict(act_cfg=dict(type='GELU'))": "act_cfg='GELU'",
    "decode_head=dict(act_cfg=None)": "act_cfg=None",
    "decode_head=dict(conv_cfg=dict(type='ConvWS'))": "conv_cfg='ConvWS'",
    "backbone=dict(conv_cfg=dict(type='DCNv2', deform_groups=1))": "conv_cfg='DCNv2'",
    "backbone=dict(out_indices=(1, 2)), decode_head=dict(in_index=-1)": "in_index=2",
    "decode_head=dict(in_index=2)": "in_index=2",
    "decode_head=dict(concat_input=False)": "concat_input=False",
    "decode_head=dict(num_classes=2, out_channels=1)": "one output channel",
    "backbone=dict(type='ResNetV1d')": "type='ResNetV1d'",
    "backbone=dict(type='ResNet', style='caffe')": "style='caffe'",
    "backbone=dict(strides=(1, 1, 1, 1))": r"strides \(1, 1, 1, 1\)",
    "data_preprocessor=dict(mean=[1], std=[2])": "channel_order BGR is of 3 channels, not of 1",
    "data_preprocessor=dict(mean=3, std=4)": "a wrong value",
}


@pytest.mark.parametrize(("part", "message"), OTHERS.items(), ids=OTHERS)
def test_network_that_this_one_cannot_be_is_refused_by_name(part, message, state, save):
    path = save({"meta": {"cfg": f"model = dict({part})"}, "state_dict": state}, "theirs.pth")
    with pytest.raises(ValueError, match=rf"theirs\.pth: .*{message}"):
        ccnet.ccnet_resnet18(weights=path)


def test_plain_stem_is_recognised(state):
    plain = {name: value for name, value in state.items() if not name.startswith("backbone.stem")}
    plain["backbone.conv1.weight"] = torch.randn(64, 3, 7, 7)
    for kind in ("weight", "bias", "running_mean", "running_var"):
        plain[f"backbone.bn1.{kind}"] = torch.rand(64)
    meta = {"cfg": "model = dict(backbone=dict(type='ResNet', depth=18))"}
    found = converted(plain, **meta)
    assert found.config["backbone_options"]["stem_widths"] == []
    model = ccnet.CCNet.from_weights(found)
    assert torch.equal(model.backbone.stem[1].bias, plain["backbone.bn1.bias"])
