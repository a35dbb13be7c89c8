"""Random crops: equal to those of the whole scaled image, evenly placed, varied."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.training.augmentation import RETRIES, RandomScaledCrop, augmentation_of
from ccnet.training.recipes import Recipe
from ccnet.transforms import Preprocessing

SIZES = [(61, 97), (64, 128), (33, 40), (250, 190), (1, 50), (50, 1)]


def pair(height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    mask = torch.randint(0, 19, (height, width), dtype=torch.uint8)
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


def cut(scaled, rows, columns, fill):
    """A window of the whole scaled image, with more than enough padding around."""
    height, width = rows.size, columns.size
    padded = F.pad(scaled.float() - fill, (width, width, height, height)) + fill
    top, left = height + rows.start, width + columns.start
    return padded[..., top : top + height, left : left + width]


def plain_bilinear(image, height, width):
    """Triangles as wide as an output pixel and no narrower than an input pixel, in float64."""

    def weights(length, scaled):
        ratio = length / scaled
        centers = (torch.arange(scaled, dtype=torch.float64)[:, None] + 0.5) * ratio
        pixels = torch.arange(length, dtype=torch.float64)[None] + 0.5
        triangle = (1 - (pixels - centers).abs() / max(1.0, ratio)).clamp(min=0)
        return triangle / triangle.sum(1, keepdim=True)

    lengths = image.shape[-2:]
    rows, columns = map(weights, lengths, (height, width))
    return rows @ image.as_subclass(Tensor).double() @ columns.T


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scales", [(0.1, 0.3), (0.3, 0.99), (1.0, 1.0), (1.01, 2.1)], ids=str)
def test_crop_is_that_of_the_whole_scaled_image(size, scales):
    image, mask = pair(*size)
    for crop_size in ((16, 16), (24, 40), (300, 20)):
        crop = RandomScaledCrop(crop_size, scales, fill=(7, 7, 7))
        for _ in range(4):
            params = crop.make_params([image, mask])
            rows, columns = params["rows"], params["columns"]
            found, found_mask = crop.transform(image, params), crop.transform(mask, params)
            assert found.shape == (3, *crop_size)
            assert found_mask.shape == crop_size
            assert found.dtype == found_mask.dtype == torch.uint8
            whole = plain_bilinear(image, rows.scaled, columns.scaled)
            assert (found.float() - cut(whole, rows, columns, 7)).abs().max() <= 1
            fast = v2.functional.resize(image, [rows.scaled, columns.scaled], antialias=True)
            if size[1] > 1:  # torchvision 0.21 resizes a single column wrongly
                assert (found.float() - cut(fast, rows, columns, 7)).abs().max() <= 1
            under = [
                ((np.arange(window.scaled) + 0.5) * window.length / window.scaled).astype(int)
                for window in (rows, columns)
            ]
            nearest = mask.as_subclass(Tensor)[under[0]][:, under[1]]
            assert torch.equal(found_mask.float(), cut(nearest, rows, columns, 255))


def test_large_images_are_sampled_as_exactly():
    image, mask = pair(1024, 2048)
    for scale in (0.7, 1.7):
        crop = RandomScaledCrop((769, 769), (scale, scale))
        params = crop.make_params([image, mask])
        rows, columns = params["rows"], params["columns"]
        whole = v2.functional.resize(image, [rows.scaled, columns.scaled], antialias=True)
        found = crop.transform(image, params).float()
        assert (found - cut(whole, rows, columns, 0)).abs().max() <= 1


@pytest.mark.parametrize(("length", "size"), [(10, 4), (4, 10), (7, 7)])
def test_every_position_is_equally_likely(length, size):
    crop = RandomScaledCrop((size, size), (1.0, 1.0))
    inputs = list(pair(length, length))
    starts = Counter(crop.make_params(inputs)["rows"].start for _ in range(1400))
    expected = range(length - size + 1) if length >= size else range(length - size, 1)
    assert sorted(starts) == list(expected)
    assert min(starts.values()) > 0.6 * 1400 / len(expected)


def test_rows_columns_and_scales_are_drawn_independently():
    crop = RandomScaledCrop((20, 20), (0.5, 2.0))
    inputs = list(pair(60, 90))
    drawn = [crop.make_params(inputs) for _ in range(300)]
    scales = np.array([params["columns"].scaled / 90 for params in drawn])
    places = [
        np.array([params[name].start / (params[name].scaled - 20) for params in drawn])
        for name in ("rows", "columns")
    ]
    assert 0.5 <= scales.min() < 0.55
    assert 1.95 < scales.max() <= 2
    assert np.abs(np.corrcoef([scales, *places]) - np.eye(3)).max() < 0.2
    for params in drawn:
        assert params["rows"].scaled / 60 == pytest.approx(params["columns"].scaled / 90, abs=0.02)


def test_scales_are_drawn_in_steps():
    crop = RandomScaledCrop((8, 8), (0.7, 2.1), scale_step=0.1)
    inputs = list(pair(100, 10))
    drawn = Counter(crop.make_params(inputs)["rows"].scaled for _ in range(900))
    assert sorted(drawn) == list(range(70, 211, 10))
    assert min(drawn.values()) > 25


def test_size_factor_enlarges_the_scales_of_a_recipe():
    """Before the crop, whose size stays."""
    scales = {"scale_low": 0.5, "scale_high": 1.0, "scale_step": 0.25}
    recipe = Recipe(size_factor=2.0, crop_height=48, crop_width=64, color_jitter=0, **scales)
    augmentation, sizes = augmentation_of(recipe, Preprocessing()), Counter()
    for _ in range(60):
        image, mask = augmentation(*pair(24, 32))
        assert image.shape[1:] == mask.shape == (48, 64)
        labelled = mask != 255
        sizes[int(labelled.any(1).sum()), int(labelled.any(0).sum())] += 1
    assert sorted(sizes) == [(24, 32), (36, 48), (48, 64)]
    assert min(sizes.values()) > 8


def one_third_varied():
    """A mask whose left two thirds are one class, among pixels without one."""
    mask = torch.full((30, 90), 3, dtype=torch.uint8)
    mask[:, 60:] = torch.arange(10, dtype=torch.uint8).repeat(3)
    mask[::2] = 255
    return tv_tensors.Mask(mask)


def largest_share(mask):
    counts = mask[mask != 255].bincount()
    return (counts.max() / counts.sum()).item()


def test_crops_of_one_class_are_drawn_again():
    mask = one_third_varied()
    image = tv_tensors.Image(torch.zeros(3, 30, 90, dtype=torch.uint8))
    shares = {}
    for limit in (1.0, 0.75):
        crop = RandomScaledCrop((20, 20), (1.0, 1.0), max_class_share=limit)
        shares[limit] = [largest_share(crop(image, mask)[1]) for _ in range(100)]
    assert sum(share > 0.75 for share in shares[1.0]) > 30
    assert sum(share > 0.75 for share in shares[0.75]) <= 2


@pytest.mark.parametrize("value", [4, 255], ids=["one class", "no class"])
def test_redrawing_ends(value):
    mask = tv_tensors.Mask(torch.full((30, 30), value, dtype=torch.uint8))
    crop = RandomScaledCrop((8, 8), (1.0, 1.0), max_class_share=0.5)
    draws = []
    is_varied = crop._is_varied
    crop._is_varied = lambda *arguments: draws.append(is_varied(*arguments)) or draws[-1]
    assert (crop(mask) == value).all()
    assert draws == [False] * (1 + RETRIES)


def test_randomness_is_that_of_torch():
    crop = RandomScaledCrop((20, 30), (0.5, 2.0), max_class_share=0.9)
    sample = pair(40, 50)
    results = []
    for noise in (0, 1):
        np.random.seed(noise)
        torch.manual_seed(5)
        results.append(crop(*sample))
    assert all(torch.equal(*parts) for parts in zip(*results, strict=True))
    assert not torch.equal(crop(*sample)[0], results[0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (5, 0)}, r"crop_size must be positive, not \(5, 0\)"),
        ({"scale_range": (0, 1)}, r"0 < low <= high, not 0\.\.1"),
        ({"scale_range": (2, 1)}, r"0 < low <= high, not 2\.\.1"),
        ({"scale_range": (1, float("inf"))}, r"0 < low <= high, not 1\.\.inf"),
        ({"scale_range": (float("nan"), 1)}, r"0 < low <= high, not nan\.\.1"),
        ({"scale_step": -0.1}, r"scale_step must be 0 or more, not -0\.1"),
        ({"max_class_share": 0}, "max_class_share must be above 0 and at most 1: 0"),
        ({"max_class_share": 75}, "max_class_share must be above 0 and at most 1: 75"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomScaledCrop(**{"size": (8, 8), **arguments})
