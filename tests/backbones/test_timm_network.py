"""Networks of timm as backbones: sizes, strides, preprocessing, what is refused."""

import pytest
import torch

import ccnet
from ccnet.backbones import TimmBackbone
from ccnet.evaluation.candidates import find_candidates
from ccnet.norm import convert_inplace_abn, convert_sync_batchnorm

timm = pytest.importorskip("timm")


def on_meta(name, **options):
    with torch.device("meta"):
        return TimmBackbone(f"timm:{name}", **options)


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet10t", (256, 512), (8, 8)),
        ("convnext_atto", (160, 320), (8, 8)),
        ("mobilenetv3_small_050", (24, 288), (8, 8)),
        ("regnetx_002.pycls_in1k", (152, 368), (8, 8)),
        ("densenet121", (1024, 1024), (16, 32)),
        ("swin_tiny_patch4_window7_224", (384, 768), (16, 32)),
        ("mambaout_femto", (192, 288), (16, 32)),
        ("selecsls42", (1024, 1280), (32, 64)),
        ("test_vit", (64, 64), (16, 16)),
    ],
)
def test_maps_have_the_channels_and_strides_that_are_told(name, channels, strides, caplog):
    backbone = on_meta(name)
    maps = backbone(torch.empty(2, 3, 128, 192, device="meta"))
    assert backbone.channels == channels == tuple(one.shape[1] for one in maps)
    for one, stride in zip(maps, strides, strict=True):
        assert one.shape[2:] == (128 // stride, 192 // stride)
    assert backbone.output_stride == strides[1]
    assert (f"output stride {strides[1]}: timm cannot build it with 8" in caplog.text) == (
        strides[1] != 8
    )


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [("resnet10t", 16, 16), ("resnet10t", 32, 32), ("resnet10t", 12, 16), ("test_vit", 16, 16)],
)
def test_stride_is_the_one_asked_for_or_the_next_larger_one(name, asked, given):
    assert on_meta(name, output_stride=asked).output_stride == given


def test_channels_last_maps_are_turned():
    backbone = TimmBackbone("timm:mambaout_femto").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            list(backbone(x)), [one.permute(0, 3, 1, 2) for one in backbone.network(x)]
        )


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "efficientformerv2_s0"])
def test_network_is_saved_and_loaded_whole(name, tmp_path, caplog):
    """Also what a constructor computes and no file holds, as in efficientformerv2_s0."""
    model = ccnet.CCNet(f"timm:{name}", num_classes=3, recurrence=1).eval()
    for tensor in model.buffers():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path)
    caplog.clear()
    loaded = ccnet.CCNet.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert "stride" not in caplog.text
    x = torch.randn(1, 3, *model.backbone.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    built = ccnet.build_ccnet(f"timm:{name}", weights=tmp_path)
    assert torch.equal(built.head.conva[0].weight, model.head.conva[0].weight)
    (candidate,) = find_candidates(str(tmp_path), model.label_set, f"timm:{name}")
    assert candidate.load(model.label_set).config == model.config
    with pytest.raises(ValueError, match=rf"for timm:{name}, not .* --network timm:{name}"):
        ccnet.ccnet_resnet18(weights=tmp_path)
    with pytest.raises(ValueError, match=r"unknown network 'resnet18': expected ccnet_resnet18"):
        find_candidates(str(tmp_path), None, "resnet18")


def test_network_trains_predicts_and_shows_its_preprocessing():
    model = ccnet.CCNet("timm:test_vit", num_classes=3, recurrence=1)
    assert model.preprocessing.mean == model.preprocessing.std == (127.5, 127.5, 127.5)
    outputs = model(torch.randn(2, 3, 48, 64))
    assert outputs["out"].shape == outputs["aux"].shape == (2, 3, 48, 64)
    sum(one.square().mean() for one in outputs.values()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []
    picture = torch.randint(256, (3, 50, 75), dtype=torch.uint8)
    assert model.predict(picture).labels.shape == (50, 75)
    assert model.predict(picture, memory_limit=0.01).labels.shape == (50, 75)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet10x", r"timm .* has no network 'resnet10x', but .*resnet10t"),
        ("timm:", "has no network ''"),
        ("timm:hf-hub:owner/name", "has no network"),
        ("timm:local-dir:.", "has no network"),
        ("timm:resnet10t.mine", "timm cannot build timm:resnet10t.mine"),
        ("resnet34", "or 'timm:' and the name of a network of timm, not 'resnet34'"),
        (34, "not 34"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        ccnet.CCNet(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 0}, "output_stride must be"),
        ({"image_size": 224}, "image_size must be None or a list of 2"),
        ({"image_size": [64, 64]}, "timm cannot build timm:resnet10t: .*img_size"),
        ({"drop_path_rate": 2}, "drop_path_rate must be"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ccnet.CCNet("timm:resnet10t", backbone_options=options)


def test_picture_of_a_size_that_the_network_cannot_take_is_refused():
    model = ccnet.CCNet("timm:efficientformerv2_s0", num_classes=3, recurrence=0).eval()
    side = model.backbone.image_size[0]
    message = rf"cannot take 75 x 50 pixels .*built for {side} x {side}.*crop=\({side}, {side}\)"
    with pytest.raises(ValueError, match=message):
        model(torch.randn(1, 3, 50, 75))
    picture = torch.randint(256, (3, 50, 75), dtype=torch.uint8)
    windows = {"mode": "slide", "crop": side, "memory_limit": 0.3}  # which has it counted
    assert model.predict(picture, **windows).labels.shape == (50, 75)
    own = {"image_size": [64, 96]}
    other = ccnet.CCNet("timm:efficientformerv2_s0", 3, backbone_options=own).eval()
    assert other(torch.randn(1, 3, 64, 96))["out"].shape == (1, 3, 64, 96)


def test_without_timm_the_error_says_what_to_install(monkeypatch, tmp_path):
    ccnet.CCNet("timm:resnet10t", 3, 0, aux_channels=0).save_pretrained(tmp_path)
    monkeypatch.setattr("ccnet.console.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "ccnet-pytorch\[timm\]"'):
        ccnet.CCNet.from_pretrained(tmp_path)


def test_conversions_that_would_change_the_network_are_refused():
    backbone = TimmBackbone("timm:mobilenetv3_small_050")
    before = [type(module) for module in backbone.modules()]
    with pytest.raises(ValueError, match="is a BatchNormAct2d, which does more than a batch norm"):
        convert_sync_batchnorm(backbone)
    convert_inplace_abn(backbone, negative_slope=0.01)
    assert [type(module) for module in backbone.modules()] == before
    with pytest.raises(ValueError, match=r"conv1.2 is ReLU\(inplace=True\), which cannot be inver"):
        convert_inplace_abn(TimmBackbone("timm:resnet10t"))
    with pytest.raises(ValueError, match="gradient checkpointing is for the ResNets"):
        backbone.gradient_checkpointing = True
