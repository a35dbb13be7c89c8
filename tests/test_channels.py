"""Networks of other input channels than RGB: kernels, preprocessing, pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

import ccnet
from ccnet.transforms import Preprocessing


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_three_channels_leave_the_configuration_as_it_was(name):
    with torch.device("meta"):
        model = ccnet.CCNet(name)
    assert "in_channels" not in model.config
    assert model.backbone.stem[0].in_channels == 3


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_one_channel_computes_what_a_grey_picture_gave(name):
    trained = ccnet.CCNet(name, num_classes=3, recurrence=1, aux_channels=0).eval()
    weights = trained.to_weights()
    grey = ccnet.CCNet.from_weights(weights, in_channels=1)
    x = torch.randn(1, 1, 33, 49)
    with torch.no_grad():
        torch.testing.assert_close(
            grey(x)["out"], trained(x.expand(-1, 3, -1, -1))["out"], rtol=1e-3, atol=1e-4
        )
    assert grey.config["in_channels"] == 1
    assert grey.preprocessing.mean == pytest.approx((sum(trained.preprocessing.mean) / 3,))


def test_more_channels_have_the_kernels_again_scaled(tmp_path):
    trained = ccnet.CCNet("resnet18", num_classes=3, recurrence=0)
    trained.save_pretrained(tmp_path)
    for model in (
        ccnet.CCNet.from_pretrained(tmp_path, in_channels=5),
        ccnet.ccnet_resnet18(weights=tmp_path, in_channels=5),
    ):
        before, after = (one.backbone.stem[0].weight for one in (trained, model))
        torch.testing.assert_close(after, before[:, [0, 1, 2, 0, 1]] * 3 / 5)
        r, g, b = trained.preprocessing.std
        assert model.preprocessing.std == (r, g, b, r, g)
        torch.testing.assert_close(model.head.conva[0].weight, trained.head.conva[0].weight)
    model.save_pretrained(tmp_path / "five")
    assert ccnet.CCNet.from_pretrained(tmp_path / "five").config == model.config
    three = ccnet.CCNet.from_pretrained(tmp_path / "five", in_channels=3)
    torch.testing.assert_close(
        three.backbone.stem[0].weight, model.backbone.stem[0].weight[:, :3] * 5 / 3
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_are_tensors_and_arrays_of_that_many_channels(channels):
    model = ccnet.CCNet("resnet18", 3, 0, in_channels=channels).eval()
    picture = torch.randint(256, (channels, 40, 56), dtype=torch.uint8)
    result = model.predict(picture, return_probabilities=True)
    with torch.no_grad():
        expected = model(model.transforms()(picture))["out"][0].softmax(0)
    torch.testing.assert_close(result.probabilities, expected)
    assert torch.equal(result.image, picture)
    for same in (picture.permute(1, 2, 0).numpy(), picture.double() / 255):
        assert torch.equal(model.predict(same).labels, result.labels)
    assert torch.equal(model.predict(picture, memory_limit=0.05).labels, result.labels)
    assert model.predict(picture, mode="slide", crop=33, flip=True).labels.shape == (40, 56)
    if channels == 1:
        assert result.overlay().size == (56, 40)
        assert torch.equal(model.predict(picture[0].numpy()).labels, result.labels)
    else:
        with pytest.raises(ValueError, match=f"an image of {channels} channels cannot be shown"):
            result.overlay()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (8, 8)), r"pass a tensor \(4, H, W\) or an array \(H, W, 4\)"),
        (Image.new("L", (8, 8)), r"images of 4 channels: pass .* files and PIL .* read as RGB"),
        (None, r"not None, which cv2\.imread gives"),
        (np.zeros((8, 8, 4), int), r"its values are 0\.\.0: image\.astype\(numpy\.uint8\)"),
        (np.zeros((8, 8, 4), object), "not object; pass several"),
        (np.zeros((8, 8, 4), "U1"), "not <U1; pass several"),
        (torch.zeros(3, 8, 8), r"expected a tensor \(4, H, W\) .* not \(3, 8, 8\)"),
        (np.zeros((4, 8, 8)), r"not \(4, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), r"one image, not a batch of shape \(1, 4, 8, 8\)"),
        (torch.full((4, 8, 8), 2.0), "must lie in 0..1"),
    ],
)
def test_other_pictures_are_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing().for_channels(4)(picture)


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", np.float16, np.longdouble])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_arrays_are_of_every_dtype_that_rgb_ones_are(channels, dtype):
    levels = np.random.default_rng(0).integers(0, 256, (6, 8, channels))
    array = levels * 257 if np.dtype(dtype).kind == "u" else levels / 255
    decoded = Preprocessing().for_channels(channels).decode(array.astype(dtype))
    assert np.array_equal(decoded.numpy(), np.moveaxis(levels, -1, 0))


def test_one_channel_takes_files_and_pictures_as_grey(tmp_path):
    decode = Preprocessing().for_channels(1).decode
    grey = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    picture = Image.fromarray(grey)
    picture.save(tmp_path / "a.png")
    for given in (picture, picture.convert("RGB"), tmp_path / "a.png"):
        assert np.array_equal(decode(given), grey[None])
    assert decode(Image.new("RGB", (1, 1), (0, 255, 0))) == 150
    with pytest.raises(FileNotFoundError, match=r"no image at .*b\.png"):
        Preprocessing().for_channels(4)(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"images of 1 channel: expected a tensor \(1, H, W\)"):
        decode(np.zeros((6, 8, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer in 1..256, not 0"),
        ({"in_channels": True}, "not True"),
        (
            {"in_channels": 4, "preprocessing": {"mean": [0] * 3, "std": [1] * 3}},
            "must have mean and std of 4 channels, not of 3",
        ),
        (
            {"in_channels": 4, "preprocessing": {"channel_order": "BGR"}},
            "channel_order BGR is of 3 channels, not of 4",
        ),
    ],
)
def test_wrong_channels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ccnet.CCNet("resnet18", **arguments)


def test_batches_of_other_channels_are_refused():
    model = ccnet.CCNet("resnet18", 3, 0, in_channels=4)
    with pytest.raises(
        ValueError, match=r"batch \(N, 4, H, W\).* not torch.float32 \(1, 3, 33, 33\)"
    ):
        model(torch.zeros(1, 3, 33, 33))
    with pytest.raises(ValueError, match="takes images of 4 channels, not a batch of shape"):
        model.transforms()(torch.zeros(1, 3, 33, 33, dtype=torch.uint8))


def test_blue_first_has_no_order_for_more_channels():
    weights = ccnet.CCNet("resnet18", 3, 0, preprocessing={"channel_order": "BGR"}).to_weights()
    assert ccnet.CCNet.from_weights(weights, in_channels=1).preprocessing.channel_order == "RGB"
    with pytest.raises(ValueError, match="channel_order BGR has no order for 4 channels"):
        ccnet.CCNet.from_weights(weights, in_channels=4)
