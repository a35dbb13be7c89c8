"""`model.predict` and the segmentation that it returns."""

import numpy as np
import pytest
import torch
from PIL import Image
from pointwise import Pointwise, predict

from ccnet.inference import InferenceProtocol
from ccnet.model import CCNet
from ccnet.visualization import overlay


def test_prediction_is_the_largest_logit_at_the_size_of_the_image(model, pixels):
    result = model.predict(pixels, return_probabilities=True)
    with torch.no_grad():
        logits = model(model.transforms()(pixels))["out"][0]
    assert result.labels.shape == (33, 49)
    assert result.labels.dtype == torch.uint8
    assert torch.equal(result.labels, logits.argmax(0).to(torch.uint8))
    assert len(result.labels.unique()) > 1, "the image shows one class only: too easy"
    torch.testing.assert_close(result.probabilities, logits.softmax(0))
    assert torch.equal(result.image, pixels)
    assert result.categories == model.label_set.categories
    assert model.predict(pixels).probabilities is None


def test_options_replace_those_of_the_protocol(model, pixels):
    protocol = InferenceProtocol("slide", crop=24, scales=(0.5, 1))
    results = [
        model.predict(pixels, protocol, flip=True),
        model.predict(pixels, protocol.replace(flip=True)),
        model.predict(pixels, mode="slide", crop=24, scales=(0.5, 1), flip=True),
    ]
    assert all(torch.equal(result.labels, results[0].labels) for result in results)
    for options in ({"flip": False}, {"crop": 32}, {"mode": "whole"}):
        other = model.predict(pixels, protocol, **{"flip": True, **options})
        assert not torch.equal(other.labels, results[0].labels)


@pytest.mark.parametrize("training", [False, True])
def test_prediction_leaves_modes_and_gradients_as_they_were(make_model, pixels, training):
    model = make_model().train(training)
    model.backbone.train(not training)
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first = model.predict(pixels)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first.labels.requires_grad
    assert torch.equal(first.labels, model.eval().predict(pixels).labels)


def _in_inference_mode(model, pixels, **options):
    with torch.inference_mode():
        return model.predict(pixels, **options)


@pytest.mark.parametrize("options", [{}, {"mode": "slide", "crop": 24}])
@pytest.mark.parametrize("predict", [CCNet.predict, _in_inference_mode])
def test_results_are_ordinary_tensors(model, pixels, predict, options):
    result = predict(model, pixels, **options, return_probabilities=True)
    weights = torch.ones(5, 1, 1, requires_grad=True)
    (weights * result.probabilities).log().mean().backward()
    assert weights.grad.isfinite().all()
    result.probabilities.requires_grad_().square().sum().backward()
    result.labels[3:5] = 255
    result.labels.masked_fill_(result.labels == 0, 1)
    result.image[0] = 0
    assert result.labels[3:5].eq(255).all()
    assert not result.image[0].any()


@pytest.mark.parametrize(
    "given",
    [
        lambda pixels: pixels,
        lambda pixels: pixels[0],
        lambda pixels: pixels / 255,
        lambda pixels: pixels.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda pixels: pixels.movedim(0, -1).numpy(),
        lambda pixels: pixels[0].numpy(),
        lambda pixels: Image.fromarray(np.ascontiguousarray(pixels.movedim(0, -1))),
    ],
    ids=["tensor", "grey tensor", "floats", "channels last", "array", "grey array", "PIL"],
)
def test_results_share_no_memory_with_the_picture(model, pixels, given):
    image = given(pixels)
    result = model.predict(image)
    before = result.image.clone()
    if isinstance(image, Image.Image):
        image.paste((1, 2, 3), (0, 0, 49, 33))
    else:
        image[:] = 0
    assert torch.equal(result.image, before)
    result.image[0] = 7  # and the channels of a grey picture share none with each other
    assert torch.equal(result.image[1:], before[1:])


def test_gradients_flow_after_a_prediction_within_autocast(make_model, pixels):
    model = make_model(aux_channels=0)
    with torch.autocast("cpu", torch.bfloat16):
        model.predict(pixels)
        model.train()(torch.randn(2, 3, 33, 49))["out"].float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_results_are_on_the_cpu_whatever_the_default_device(model, pixels):
    expected = model.predict(pixels, mode="slide", crop=24, scales=(0.5, 1))
    with torch.device("meta"):
        result = model.predict(
            pixels, mode="slide", crop=24, scales=(0.5, 1), return_probabilities=True
        )
    assert torch.equal(result.labels, expected.labels)
    assert result.probabilities.isfinite().all()


def test_network_without_values_is_refused(make_model, pixels):
    with pytest.raises(ValueError, match=r"^the network has no values .* meta device"):
        make_model().to("meta").predict(pixels)


def test_bfloat16_network_predicts_nearly_the_same(make_model, pixels):
    exact = make_model().predict(pixels, return_probabilities=True)
    rounded = make_model().bfloat16().predict(pixels, return_probabilities=True)
    assert rounded.probabilities.dtype == torch.float32
    assert (rounded.probabilities - exact.probabilities).abs().mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (2, 3)])
def test_tiny_images(model, tmp_path, shape):
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    Image.fromarray(pixels.movedim(0, -1).numpy().copy()).save(tmp_path / "tiny.png")
    result = model.predict(tmp_path / "tiny.png", return_probabilities=True)
    assert result.labels.shape == shape
    assert torch.equal(result.image, pixels)
    assert result.probabilities.isfinite().all()
    assert result.overlay().size == shape[::-1]


def test_image_files_are_decoded(model, tmp_path, pixels):
    """A grey photograph of 16 bits, taken with the camera upside down."""
    exif = Image.Exif()
    exif[0x0112] = 3
    stored = pixels[0].flip(0, 1).numpy().astype(np.uint16) * 257
    Image.fromarray(stored).save(tmp_path / "grey.png", exif=exif)
    result = model.predict(str(tmp_path / "grey.png"))
    grey = pixels[0].expand(3, -1, -1)
    assert torch.equal(result.image, grey)
    assert torch.equal(result.labels, model.predict(grey).labels)
    with pytest.raises(FileNotFoundError, match=r"no image at .*nowhere\.jpg"):
        model.predict(str(tmp_path / "nowhere.jpg"))


def test_segmentations_are_saved_as_indexed_png(model, tmp_path, pixels):
    result = model.predict(pixels)
    result.save(tmp_path / "new" / "labels.png")
    with Image.open(tmp_path / "new" / "labels.png") as file:
        assert file.mode == "P"
        assert np.array_equal(np.array(file), result.labels.numpy())
        shown = np.array(file.convert("RGB"))
    assert np.array_equal(shown, np.array(result.colorize().convert("RGB")))
    assert tuple(shown[3, 5]) == model.label_set.colors[int(result.labels[3, 5])]
    with pytest.raises(ValueError, match=r"saved as \.png.*labels\.jpg"):
        result.save(tmp_path / "labels.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_shares_and_overlays_are_those_of_the_labels(model, pixels):
    result = model.predict(pixels)
    shares = result.shares()
    assert list(shares.values()) == sorted(shares.values(), reverse=True), "largest first"
    assert sum(shares.values()) == pytest.approx(1)
    for label, name in enumerate(result.categories):
        count = int((result.labels == label).sum())
        assert shares.get(name, 0) == pytest.approx(count / (33 * 49))
        assert (name in shares) == (count > 0)
    for shown, opacity in ((result.overlay(), 0.5), (result.overlay(0.2), 0.2)):
        mixed = overlay(pixels, result.labels, model.label_set, opacity)
        assert np.array_equal(np.array(shown), np.array(mixed))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"flip": True, "average": "probabilities"}])
def test_values_that_are_not_finite_are_refused(value, options):
    model = Pointwise()
    pixels = torch.zeros(3, 5, 6, dtype=torch.uint8)
    model.conv.bias.data[2] = -torch.inf  # a class that is never chosen
    predict(model, pixels, **options)
    model.conv.bias.data[2] = value
    with pytest.raises(
        ValueError, match=r"^the network of float32 gives values that are not finite"
    ):
        predict(model, pixels, **options)
