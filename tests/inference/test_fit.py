"""The option `fit` against a plain statement of OpenMMLab's test pipeline."""

import pytest
import torch
from pointwise import PREPROCESSING, Positional, predict
from torch.nn import functional as F

BOX = {"fit": (160, 40)}


class Recording(Positional):
    """Notes the shapes of what it sees."""

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return super().forward(x)


def resize(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@torch.no_grad()
def expected_probabilities(model, pixels, scales, flip):
    """Resized to just fit, classified, resized back; probabilities averaged."""
    height, width = pixels.shape[1:]
    results = []
    for scale in scales:
        long, short = 160 * scale, 40 * scale
        factor = min(long / max(height, width), short / min(height, width))
        x = resize(PREPROCESSING(pixels), [int(side * factor + 0.5) for side in (height, width)])
        for mirrored in (False, True) if flip else (False,):
            logits = model(x.flip(-1) if mirrored else x)["out"]
            logits = logits.flip(-1) if mirrored else logits
            results.append(resize(logits, (height, width)).softmax(1)[0])
    return torch.stack(results).mean(0)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((30, 45), (40, 60)),
        ((45, 30), (60, 40)),
        ((90, 140), (40, 62)),
        ((20, 200), (16, 160)),
        ((40, 97), (40, 97)),
        ((3, 2), (60, 40)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "options", [{}, {"scales": (0.5, 1.0, 1.75), "flip": True}], ids=["plain", "scales and flip"]
)
def test_images_of_any_size_are_seen_at_the_size_that_fits(size, seen, options):
    model = Recording()
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    result = predict(model, pixels, **BOX, **options, average="probabilities")
    assert (1, 3, *seen) in model.shapes
    expected = expected_probabilities(
        model, pixels, options.get("scales", [1.0]), options.get("flip", False)
    )
    torch.testing.assert_close(result.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert result.labels.shape == size
    close = expected.topk(2, dim=0).values.diff(dim=0).abs()[0] < 1e-4
    assert (result.labels == expected.argmax(0))[~close].all()
    assert close.float().mean() < 0.2
    assert torch.equal(result.image, pixels)


def test_windows_lie_on_the_image_as_it_fits():
    model = Recording()
    predict(
        model, torch.randint(0, 256, (3, 90, 140), dtype=torch.uint8), **BOX, mode="slide", crop=40
    )
    assert {shape[1:] for shape in model.shapes} == {(3, 40, 40)}
    assert sum(shape[0] for shape in model.shapes) == 2  # of 40x62
