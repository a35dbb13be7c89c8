"""Random gamma, blur and noise of training images."""

import math

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.training.augmentation import augmentation_of
from ccnet.training.camera import RandomGamma, RandomNoise, camera_effects
from ccnet.training.recipes import Recipe
from ccnet.transforms import Preprocessing

IMAGE = tv_tensors.Image(torch.arange(256, dtype=torch.uint8).expand(3, 9, 256).contiguous())
MASK = tv_tensors.Mask(torch.randint(11, (9, 256), dtype=torch.uint8))


def drawn(transform, count=200):
    torch.manual_seed(0)
    return [transform(IMAGE, MASK) for _ in range(count)]


def test_gamma_is_between_its_bounds_and_as_often_above_1_as_below():
    values = IMAGE[0, 0].double() / 255
    found = []
    for image, mask in drawn(RandomGamma(0.5), 1000):
        middle = image[0, 0, 128].item() / 255
        gamma = math.log(middle) / math.log(128 / 255)
        assert 1 / 1.5 - 0.01 < gamma < 1.5 + 0.01
        difference = image[0, 0].double() - 255 * values**gamma
        assert difference.abs().max() < 1.5  # the gamma itself is read from one rounded value
        assert torch.equal(mask, MASK)
        found.append(gamma)
    assert min(found) < 0.7
    assert max(found) > 1.43
    above = sum(gamma > 1 for gamma in found) / len(found)
    assert above == pytest.approx(0.5, abs=0.05)  # 0.6 if gammas were uniform


def test_noise_has_standard_deviations_up_to_the_largest():
    found = []
    for image, mask in drawn(RandomNoise(10)):
        noise = (image.double() - IMAGE.double())[..., 60:200]  # where nothing is clipped
        found.append(noise.std().item())
        assert noise.mean().abs() < 1
        assert torch.equal(mask, MASK)
    assert 0 <= min(found) < 1
    assert 9 < max(found) < 10.7


@pytest.mark.parametrize("sigma", [0.4, 2, 8])
def test_noise_is_normal_in_every_channel_and_rounded_without_a_bias(sigma):
    grey = tv_tensors.Image(torch.full((3, 150, 150), 128, dtype=torch.uint8))
    torch.manual_seed(0)
    noise = RandomNoise(8).transform(grey, {"sigma": sigma}).double() - 128
    assert noise.mean().abs() < 0.05 * max(1, sigma)
    within = (noise.abs() < sigma + 0.5).double().mean().item()
    steps = math.ceil(sigma + 0.5) - 0.5  # whole grey steps below are rounded to less than this
    assert within == pytest.approx(math.erf(steps / sigma / 2**0.5), abs=0.01)
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.03


def test_noise_ends_at_black_and_white():
    ends = tv_tensors.Image(torch.tensor([0, 255], dtype=torch.uint8).expand(3, 90, 2).clone())
    torch.manual_seed(0)
    noisy = RandomNoise(8).transform(ends, {"sigma": 8.0})
    assert noisy[..., 0].max() < 60
    assert noisy[..., 1].min() > 195


def test_every_second_image_is_blurred_or_noisy():
    for transforms in (camera_effects(blur=1.5), camera_effects(noise=9)):
        image = tv_tensors.Image(torch.randint(256, IMAGE.shape, dtype=torch.uint8))
        torch.manual_seed(0)
        unchanged = [torch.equal(v2.Compose(transforms)(image), image) for _ in range(200)]
        assert 0.4 < sum(unchanged) / len(unchanged) < 0.6


def test_blur_spreads_a_dot_by_its_standard_deviation():
    dot = torch.zeros(3, 41, 41, dtype=torch.uint8)
    dot[:, 20, 20] = 255
    (effect,) = camera_effects(blur=2.0)
    torch.manual_seed(0)
    spreads = []
    for _ in range(100):
        image = effect(tv_tensors.Image(dot))[0].double()
        offsets = torch.arange(-20, 21).double()
        spreads.append((image.sum(0) @ offsets.square() / image.sum()).sqrt().item())
    assert 1.6 < max(spreads) <= 2.1
    assert any(0.5 < spread < 1 for spread in spreads)


def test_recipe_without_effects_has_none_and_with_them_is_reproducible():
    plain = augmentation_of(Recipe(), Preprocessing())
    effects = augmentation_of(Recipe(gamma=0.5, blur=1.0, noise=5), Preprocessing())
    gamma, blur, noise = effects.transforms[len(plain.transforms) :]
    assert isinstance(gamma, RandomGamma)
    assert isinstance(blur.transforms[0], v2.GaussianBlur)
    assert isinstance(noise.transforms[0], RandomNoise)
    image = torch.randint(256, (3, 50, 60), dtype=torch.uint8)
    mask = torch.randint(11, (50, 60), dtype=torch.uint8)
    results = []
    for transform in (plain, effects, effects):
        torch.manual_seed(3)
        results.append(transform(image, mask))
    assert torch.equal(results[1][0], results[2][0])
    assert not torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[1][0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma": -0.5}, "gamma must be at least 0, not -0.5"),
        ({"blur": math.inf}, "blur must be at least 0, not inf"),
        ({"blur": 20, "crop_height": 60}, r"blur 20.* 60x480 .*at most 19"),
        ({"blur": 1e308}, r"blur 1e\+308 is too much"),
        ({"noise": "5"}, "noise must be a number, not '5'"),
        ({"noise": 1e39}, r"noise must be in 0\.\.255, grey steps, not 1e\+39"),
        ({"size_factor": 0}, r"size_factor must be in 0.01\.\.100, not 0"),
        ({"average_decay": 1.0}, r"average_decay must be in 0\.\.1, less than 1: 1.0"),
    ],
)
def test_wrong_strengths_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)
