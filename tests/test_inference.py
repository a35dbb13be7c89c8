"""`model.predict`: pictures as users have them, and what comes back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.inference import evaluation_mode


def as_array(pixels):
    return pixels.movedim(0, -1).numpy().copy()


@pytest.fixture
def photograph():
    """A smooth picture (40, 56) that a JPEG keeps closely, with each corner its own colour."""
    corners = torch.tensor([[[20, 200], [90, 160]], [[220, 40], [120, 60]], [[60, 90], [200, 20]]])
    smooth = torch.nn.functional.interpolate(
        corners[None].float(), (40, 56), mode="bilinear", align_corners=True
    )
    return smooth[0].round().to(torch.uint8)


def test_a_prediction_is_the_largest_logit_at_the_size_of_the_picture(model, pixels):
    result = model.predict(pixels, return_probabilities=True)
    with torch.no_grad():
        logits = model(model.transforms()(pixels))["out"][0]
    assert result.labels.shape == (33, 49)
    assert result.labels.dtype == torch.uint8
    assert torch.equal(result.labels, logits.argmax(0).to(torch.uint8))
    assert len(result.labels.unique()) > 1, "the picture shows one class only: too easy"
    torch.testing.assert_close(result.probabilities, logits.softmax(0))
    assert torch.equal(result.image, pixels)
    assert result.categories == model.label_set.categories
    assert model.predict(pixels).probabilities is None


@pytest.mark.parametrize("training", [False, True])
def test_predicting_leaves_every_mode_and_gradient_as_it_was(make_model, pixels, training):
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


def test_modes_come_back_after_an_error(make_model):
    model = make_model().train()

    def fail():
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert all(module.training for module in model.modules())


def test_a_bfloat16_network_predicts_nearly_the_same(make_model, pixels):
    exact = make_model().predict(pixels, return_probabilities=True)
    rounded = make_model().bfloat16().predict(pixels, return_probabilities=True)
    assert rounded.probabilities.dtype == torch.float32
    assert (rounded.probabilities - exact.probabilities).abs().mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (2, 3)])
def test_tiny_pictures(model, tmp_path, shape):
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    Image.fromarray(as_array(pixels)).save(tmp_path / "tiny.png")
    result = model.predict(tmp_path / "tiny.png", return_probabilities=True)
    assert result.labels.shape == shape
    assert torch.equal(result.image, pixels)
    assert result.probabilities.isfinite().all()
    assert result.overlay().size == shape[::-1]


def test_a_grey_file_is_the_rgb_file_of_equal_channels(model, tmp_path, pixels):
    grey = pixels[0]
    Image.fromarray(grey.numpy()).save(tmp_path / "grey.png")
    result = model.predict(tmp_path / "grey.png")
    assert torch.equal(result.image, grey.expand(3, -1, -1))
    assert torch.equal(result.labels, model.predict(grey.expand(3, -1, -1)).labels)


def test_a_palette_file_is_seen_in_its_colours(model, tmp_path):
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 5)
    colors = [(200, 0, 9), (0, 100, 8), (7, 7, 250), (1, 2, 3), (90, 80, 70)]
    picture.putpalette([channel for color in colors for channel in color])
    picture.save(tmp_path / "palette.png")
    seen = model.predict(tmp_path / "palette.png").image
    for y, x in np.ndindex(3, 4):
        assert tuple(seen[:, y, x].tolist()) == colors[(4 * y + x) % 5]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_white(model, tmp_path, mode):
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[..., :3] = 100
    rgba[:, 4:, 3] = 255
    picture = Image.fromarray(rgba)
    if mode == "P":
        indexed = Image.fromarray((rgba[..., 3] == 255).astype(np.uint8))
        indexed.putpalette([0, 0, 0, 100, 100, 100])
        indexed.save(tmp_path / "alpha.png", transparency=0)
    else:
        picture.convert(mode).save(tmp_path / "alpha.png")
    seen = model.predict(tmp_path / "alpha.png").image
    assert (seen[:, :, :4] == 255).all()
    assert (seen[:, :, 4:] == 100).all()


def test_half_transparent_parts_are_mixed_with_white(model):
    seen = model.predict(Image.new("RGBA", (4, 3), (100, 0, 200, 51))).image[:, 1, 1].tolist()
    assert np.abs(np.array(seen) - [0.2 * v + 0.8 * 255 for v in (100, 0, 200)]).max() <= 1


def test_a_16_bit_file_is_the_same_picture_as_its_8_bit_twin(model, tmp_path, pixels):
    grey = pixels[0].numpy()
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    narrow, wide = (model.predict(tmp_path / f"{bits}.png") for bits in (8, 16))
    assert torch.equal(wide.image, narrow.image)
    assert torch.equal(wide.labels, narrow.labels)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_without_a_known_range_is_refused(model, mode):
    with pytest.raises(ValueError, match=f"mode '{mode}' has no known range"):
        model.predict(Image.new(mode, (4, 3)))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (3, lambda stored: stored.flip(1, 2)),
        (6, lambda stored: stored.rot90(-1, (1, 2))),
        (8, lambda stored: stored.rot90(1, (1, 2))),
    ],
)
def test_a_rotated_photograph_is_turned_upright(model, tmp_path, photograph, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(as_array(photograph))
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    result = model.predict(tmp_path / "turned.jpg")
    expected = upright(photograph)
    assert result.labels.shape == expected.shape[1:]
    assert (result.image.int() - expected.int()).abs().max() < 12
    with Image.open(tmp_path / "turned.jpg") as file:
        assert torch.equal(model.predict(file).image, result.image)


def write_text(path):
    path.write_text("this is no picture\n" * 20)


def write_nothing(path):
    path.touch()


def truncate_png(path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:1000])


def truncate_jpeg(path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:900])


@pytest.mark.parametrize(
    "write", [write_text, write_nothing, truncate_png, truncate_jpeg, lambda path: path.mkdir()]
)
def test_files_that_are_no_pictures_are_named(model, tmp_path, write):
    path = tmp_path / "holiday.jpg"
    write(path)
    with pytest.raises(ValueError, match=r"holiday\.jpg cannot be read as an image: \S+"):
        model.predict(path)


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image at .*nowhere\.jpg"):
        model.predict(str(tmp_path / "nowhere.jpg"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 4, 5) * 255, r"must lie in 0\.\.1, not .*scale it"),
        (torch.rand(3, 4, 5) - 0.5, r"must lie in 0\.\.1, not -0\.4"),
        (torch.full((3, 4, 5), torch.nan), r"must lie in 0\.\.1, not nan"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "uint8 or floating point, not torch.int64"),
        (torch.zeros(2, 3, 4, 5), r"one image, not a batch of shape \(2, 3, 4, 5\)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), r"not a batch of shape \(1, 3, 4, 5\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"not a batch of shape \(2, 4, 5, 3\)"),
        (np.zeros((4, 5, 4), np.uint8), r"array of shape \(H, W, 3\), not \(4, 5, 4\)"),
        (np.zeros((3, 4, 5), np.uint8), r"array of shape \(H, W, 3\), not \(3, 4, 5\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"tensor of shape \(3, H, W\), not \(4, 5, 3\)"),
        (torch.zeros(3, 0, 5), r"not \(3, 0, 5\)"),
        (torch.zeros(7), r"not \(7,\)"),
        (["a.png", "b.png"], "not list; take the images of a list one by one"),
        ([Image.new("RGB", (4, 3))], "not list; take the images of a list one by one"),
        (b"\x89PNG", "not bytes"),
        (None, "not NoneType"),
    ],
)
def test_what_is_not_one_picture_is_refused(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.predict(image)


def test_segmentations_are_saved_as_the_labels_themselves(model, tmp_path, pixels):
    result = model.predict(pixels)
    result.save(tmp_path / "new" / "labels.png")
    with Image.open(tmp_path / "new" / "labels.png") as file:
        assert file.mode == "P"
        assert np.array_equal(np.array(file), result.labels.numpy())
        shown = np.array(file.convert("RGB"))
    assert np.array_equal(shown, np.array(result.colorize().convert("RGB")))
    assert tuple(shown[3, 5]) == model.label_set.colors[int(result.labels[3, 5])]


def test_formats_that_would_change_the_labels_are_refused(model, tmp_path, pixels):
    with pytest.raises(ValueError, match=r"saved as \.png.*labels\.jpg"):
        model.predict(pixels).save(tmp_path / "labels.jpg")
    assert not list(tmp_path.iterdir())


def test_shares_are_those_of_the_labels_the_largest_first(model, pixels):
    result = model.predict(pixels)
    shares = result.shares()
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    for label, name in enumerate(result.categories):
        count = int((result.labels == label).sum())
        assert shares.get(name, 0) == pytest.approx(count / (33 * 49))
        assert (name in shares) == (count > 0)


def test_overlays_mix_the_picture_with_the_colours(model, pixels):
    result = model.predict(pixels)
    assert np.array_equal(np.array(result.overlay(0)), as_array(pixels))
    assert np.array_equal(np.array(result.overlay(1)), np.array(result.colorize().convert("RGB")))
    half = as_array(pixels) / 2 + np.array(result.overlay(1)) / 2
    assert np.abs(np.array(result.overlay()) - half).max() <= 1
