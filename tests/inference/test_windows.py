"""Windows, scales and flips, against slow sums over whole maps in float64."""

import numpy as np
import pytest
import torch
from pointwise import PREPROCESSING, K, Pointwise, Positional, predict
from torch.nn import functional as F

from ccnet.inference.windows import resized


def normalised(pixels):
    return PREPROCESSING(pixels)[0].double()


def pieces(length, crop, stride):
    """Starts of the windows along an axis, the last moved back inside."""
    start, found = 0, []
    while True:
        if start + crop >= length:
            return [*found, max(0, length - crop)]
        found.append(start)
        start += stride


@torch.no_grad()
def reference_slide(model, x, crop, stride):
    """Sums all windows' logits on the whole map, counts them, divides."""
    height, width = x.shape[1:]
    total, count = np.zeros((K, height, width)), np.zeros((height, width))
    for top in pieces(height, crop[0], stride[0]):
        for left in pieces(width, crop[1], stride[1]):
            window = torch.zeros(3, *crop, dtype=x.dtype)
            seen = x[:, top : top + crop[0], left : left + crop[1]]
            window[:, : seen.shape[1], : seen.shape[2]] = seen
            logits = model(window[None])["out"][0].numpy()
            for i in range(seen.shape[1]):
                for j in range(seen.shape[2]):
                    total[:, top + i, left + j] += logits[:, i, j]
                    count[top + i, left + j] += 1
    return torch.from_numpy(total / count)


def resize(x, size):
    return F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0]


@torch.no_grad()
def reference(model, pixels, windows, scales, flip, average):
    """Every scale and flip of the whole image at once, one after another."""
    x, terms = normalised(pixels), []
    for scale in scales:
        scaled = resize(x, [max(1, round(side * scale)) for side in x.shape[1:]])
        for seen in (scaled, scaled.flip(2)) if flip else (scaled,):
            if windows:
                logits = reference_slide(model, seen, *windows)
            else:
                logits = model(seen[None])["out"][0]
            logits = resize(logits.flip(2) if seen is not scaled else logits, x.shape[1:])
            terms.append(logits.softmax(0) if average == "probabilities" else logits)
    mean = torch.stack(terms).mean(0)
    return mean if average == "probabilities" else mean.softmax(0)


def assert_is(result, probabilities):
    torch.testing.assert_close(result.probabilities.double(), probabilities, atol=2e-5, rtol=0)
    assert torch.equal(result.labels.long(), result.probabilities.argmax(0))
    assert len(result.labels.unique()) > 1, "one class only: too easy"


@pytest.fixture
def odd():
    """An image of odd height and width."""
    return torch.randint(0, 256, (3, 71, 57), dtype=torch.uint8)


WINDOWS = [((32, 40), (20, 24)), ((33, 33), (33, 33)), ((25, 57), (7, 57)), ((71, 20), (1, 19))]
WINDOWS += [((71, 57), (40, 40)), ((80, 30), (50, 20)), ((90, 64), (60, 40))]


def options_of(windows):
    return {"mode": "slide", "crop": windows[0], "stride": windows[1]} if windows else {}


@pytest.mark.parametrize(("crop", "stride"), WINDOWS)
def test_sliding_equals_the_slow_sum_of_all_windows(odd, crop, stride):
    model = Positional().double()
    options = options_of((crop, stride))
    expected = reference_slide(model, normalised(odd), crop, stride).softmax(0)
    for window_batch in (1, 3, 100):
        assert_is(predict(model, odd, **options, window_batch=window_batch), expected)


@pytest.mark.parametrize("windows", [None, ((20, 24), (13, 24))])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(
    ("scales", "flip"),
    [((1.0,), True), ((0.5,), False), ((1.6,), False), ((0.03, 0.5, 0.83, 1, 1.25, 2.4), True)],
)
def test_scales_and_flips_are_averaged_at_the_size_of_the_image(
    odd, windows, average, scales, flip
):
    model = Positional().double()
    result = predict(model, odd, **options_of(windows), scales=scales, flip=flip, average=average)
    assert_is(result, reference(model, odd, windows, scales, flip, average))


@pytest.mark.parametrize(
    ("windows", "scales", "flip"),
    [
        (((33, 40), (20, 24)), (1,), False),
        (((80, 33), (80, 20)), (1,), False),
        (((33, 40), (26, 30)), (0.6, 1.25), True),
    ],
)
def test_sliding_of_a_real_network(make_model, odd, windows, scales, flip):
    """A small CCNet, gamma 0.7, in float64."""
    model = make_model(K).double()
    options = {**options_of(windows), "scales": scales, "flip": flip}
    result = model.predict(odd, **options, return_probabilities=True)
    assert_is(result, reference(model, odd, windows, scales, flip, "logits"))
    whole = model.predict(odd, return_probabilities=True).probabilities
    assert (whole - result.probabilities).abs().max() > 0.01, "windows change nothing: too easy"


@pytest.mark.parametrize(("limit", "value"), [("MAX_ROWS", 3), ("MAX_VALUES", 900)])
def test_bands_of_small_scales_are_cut(monkeypatch, odd, limit, value):
    model = Positional().double()
    expected = predict(model, odd, scales=(0.1, 0.7, 1)).probabilities
    monkeypatch.setattr(f"ccnet.inference.windows.{limit}", value)
    assert_is(predict(model, odd, scales=(0.1, 0.7, 1)), expected.double())


@pytest.mark.parametrize(
    ("classes", "heights"), [(5, [64, 36]), (150, [27, 27, 6]), (5000, [1, 1])]
)
def test_bands_of_many_classes_are_low(classes, heights):
    stream = iter([torch.zeros(classes, 10, 10)])
    assert [band.shape[1] for band in resized(stream, (10, 10), (sum(heights), 1000))] == heights


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 3])
def test_linear_ramp_is_the_same_at_every_scale(mode, scale):
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    ramp = torch.stack([3 * x + 10, 4 * y + 5, 255 - 2 * x - y]).to(torch.uint8)
    model = Pointwise()
    once = predict(model, ramp, scales=(1,)).probabilities
    windows = {"crop": 24, "stride": 16} if mode == "slide" else {}
    result = predict(model, ramp, mode=mode, scales=(scale,), flip=True, **windows)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(result.probabilities[inside], once[inside], atol=1e-4, rtol=0)


def test_windows_have_the_size_of_the_crop_and_come_in_batches(odd):
    model = Pointwise()
    predict(model, odd, mode="slide", crop=(32, 80), stride=(20, 80), window_batch=2)
    assert model.shapes == [(2, 3, 32, 80), (1, 3, 32, 80)]
    model.shapes.clear()
    predict(model, odd, mode="slide", crop=30, stride=30, window_batch=4)
    assert model.shapes == [(4, 3, 30, 30), (2, 3, 30, 30)]


def test_small_images_are_padded_with_the_mean_color():
    class Corner(Pointwise):
        def forward(self, x):
            assert x.shape[1:] == (3, 32, 40)
            assert not x[:, :, 5:].any()
            assert not x[:, :, :, 7:].any()
            return super().forward(x)

    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    model = Corner()
    result = predict(model, pixels, mode="slide", crop=(32, 40), flip=True)
    with torch.no_grad():
        assert_is(result, model.conv(PREPROCESSING(pixels))[0].softmax(0).double())


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (2, 3)])
@pytest.mark.parametrize("crop", [1, 4, (50, 3)])
def test_sliding_on_tiny_images(shape, crop):
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    options = {"mode": "slide", "crop": crop, "scales": (0.1, 1, 1.7), "flip": True}
    result = predict(Pointwise(), pixels, **options)
    assert result.labels.shape == shape
    assert result.probabilities.sum(0) == pytest.approx(np.ones(shape), abs=1e-5)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_bfloat16_precision_changes_no_parameter(model, pixels, mode):
    options = {"mode": mode, "return_probabilities": True, "crop": 32 if mode == "slide" else None}
    exact = model.predict(pixels, **options)
    rounded = model.predict(pixels, **options, precision="bfloat16")
    difference = (rounded.probabilities - exact.probabilities).abs()
    assert 0 < difference.mean() < 0.05
    assert rounded.probabilities.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(("crop", "stride"), WINDOWS)
def test_windows_and_flips_change_nothing_for_a_pointwise_network(odd, crop, stride, flip, average):
    model = Pointwise()
    with torch.no_grad():
        expected = model(PREPROCESSING(odd))["out"][0].softmax(0).double()
    options = {"flip": flip, "average": average}
    assert_is(predict(model, odd, **options), expected)
    assert_is(predict(model, odd, mode="slide", crop=crop, stride=stride, **options), expected)
