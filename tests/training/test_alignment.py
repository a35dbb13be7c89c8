"""Image and mask moved alike or apart, by transforms of torchvision and of one's own."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ccnet.training.own_augmentation import OwnAugmentation

SIZE = 97, 111


def separately(transform):
    return lambda image, mask: (transform(image), transform(mask))


def image_only(transform):
    return lambda image, mask: (transform(image), mask)


def mask_only(transform):
    return lambda image, mask: (image, transform(mask))


APART = {
    **{
        f"separate {name}": separately(transform)
        for name, transform in {
            **{f"rotation {angle}": v2.RandomRotation(angle) for angle in (5, 10, 25, 30, 90)},
            "translation 0.05": v2.RandomAffine(0, (0.05, 0.05)),
            "translation 0.1": v2.RandomAffine(0, (0.1, 0.1)),
            "crop": v2.RandomResizedCrop(SIZE),
            "scale": v2.RandomAffine(0, scale=(0.8, 1.25)),
            "shear": v2.RandomAffine(0, shear=10),
            "elastic": v2.ElasticTransform(50.0),
            "perspective": v2.RandomPerspective(0.3),
            "flip": v2.RandomHorizontalFlip(),
        }.items()
    },
    **{
        f"{what} {name}": one(transform)
        for what, one in (("image", image_only), ("mask", mask_only))
        for name, transform in {
            "elastic": v2.ElasticTransform(50.0),
            "shear": v2.RandomAffine(0, shear=10),
            "pixel": lambda plane: plane.roll(1, -1),
            "pixel down": lambda plane: plane.roll(1, -2),
            "flip": lambda plane: plane.flip(-1),
            "degree": lambda plane: F.rotate(plane, 1),
            "zoom": lambda plane: F.affine(plane, 0, [0, 0], 1.05, [0.0, 0.0]),
            "sometimes": v2.RandomVerticalFlip(0.3),
        }.items()
    },
    "different flips": lambda image, mask: (F.hflip(image), F.vflip(mask)),
    "flip alike, mask a pixel": lambda image, mask: (image.flip(-1), mask.flip(-1).roll(1, -1)),
    "inverted": image_only(lambda image: 255 - image.flip(-1)),
    "blurred": image_only(lambda image: F.gaussian_blur(image.flip(-1), 9, 2.0)),
}


@pytest.mark.parametrize("transform", APART.values(), ids=APART)
def test_moves_of_one_alone_are_refused(transform):
    with pytest.raises(ValueError, match=r"^augmentation .* moves image and mask apart: give both"):
        OwnAugmentation(transform, 11).check(*SIZE)


def as_floats(transform):
    """For what takes images of floats only."""
    floats, bytes_ = (
        v2.ToDtype({tv_tensors.Image: dtype, "others": None}, scale=True)
        for dtype in (torch.float32, torch.uint8)
    )
    return v2.Compose([floats, transform, bytes_])


CROP = v2.RandomCrop(SIZE, pad_if_needed=True)

ALIKE = {
    "Identity": v2.Identity(),
    "CenterCrop": v2.Compose([v2.Pad(10), v2.CenterCrop(SIZE)]),
    "ElasticTransform": v2.ElasticTransform(90.0),
    "RandomAffine": v2.RandomAffine(30, (0.3, 0.3), (0.5, 2), 20),
    "RandomAffine, bilinear": v2.RandomAffine(
        *(30, (0.3, 0.3), (0.5, 2), 20), interpolation=v2.InterpolationMode.BILINEAR
    ),
    "RandomCrop": v2.RandomCrop(SIZE, padding=20),
    "RandomCrop, mirrored": v2.RandomCrop(SIZE, padding=20, padding_mode="reflect"),
    "RandomHorizontalFlip": v2.RandomHorizontalFlip(),
    "RandomVerticalFlip": v2.RandomVerticalFlip(),
    "RandomPerspective": v2.RandomPerspective(0.9, p=1.0),
    "RandomResize": v2.Compose([v2.RandomResize(48, 200), CROP]),
    "RandomResizedCrop": v2.RandomResizedCrop(SIZE),
    "RandomResizedCrop, bicubic": v2.RandomResizedCrop(
        SIZE, interpolation=v2.InterpolationMode.BICUBIC
    ),
    "RandomResizedCrop, tiny": v2.RandomResizedCrop(SIZE, (0.01, 0.1)),
    "RandomRotation": v2.RandomRotation(45),
    "RandomShortestSize": v2.Compose([v2.RandomShortestSize([48, 97, 150]), CROP]),
    "RandomZoomOut": v2.Compose([v2.RandomZoomOut(p=1.0), v2.Resize(SIZE)]),
    "Resize": v2.Compose([v2.Resize((48, 55)), v2.Resize(SIZE)]),
    "Resize, up": v2.Compose([v2.Resize((145, 166)), v2.Resize(SIZE)]),
    "ScaleJitter": v2.Compose([v2.ScaleJitter(SIZE), CROP]),
    "ColorJitter": v2.ColorJitter(0.9, 0.9, 0.9, 0.4),
    "GaussianBlur": v2.GaussianBlur(9, 3.0),
    "GaussianBlur, wide": v2.GaussianBlur(21, 10.0),
    "GaussianBlur, strong": v2.GaussianBlur(31, 10.0),
    "GaussianBlur, extreme": v2.GaussianBlur(51, 50.0),
    "GaussianNoise": as_floats(v2.GaussianNoise(sigma=0.3)),
    "GaussianNoise, extreme": as_floats(v2.GaussianNoise(sigma=3.0)),
    "Grayscale": v2.Grayscale(3),
    "JPEG": v2.JPEG((1, 100)),
    "RGB": v2.RGB(),
    "RandomAdjustSharpness": v2.RandomAdjustSharpness(10, p=1.0),
    "RandomAutocontrast": v2.RandomAutocontrast(1.0),
    "RandomChannelPermutation": v2.RandomChannelPermutation(),
    "RandomEqualize": v2.RandomEqualize(1.0),
    "RandomErasing": v2.RandomErasing(1.0),
    "RandomErasing, extreme": v2.RandomErasing(1.0, scale=(0.8, 0.95), ratio=(0.9, 1.1)),
    "RandomErasing, noise": v2.RandomErasing(1.0, scale=(0.3, 0.9), value="random"),
    "RandomErasing, many": v2.Compose([v2.RandomErasing(1.0, scale=(0.02, 0.1))] * 9),
    "RandomGrayscale": v2.RandomGrayscale(1.0),
    "RandomInvert": v2.RandomInvert(),
    "RandomPhotometricDistort": v2.RandomPhotometricDistort(p=1.0),
    **{f"RandomPosterize {bits}": v2.RandomPosterize(bits, p=1.0) for bits in (0, 1, 4)},
    **{f"RandomSolarize {at}": v2.RandomSolarize(at, p=1.0) for at in (0, 100, 128, 200)},
    "several": v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomRotation(30), v2.GaussianBlur(5)]),
    "black": lambda image, mask: (image * 0, mask),
    "noise": lambda image, mask: (torch.randint_like(image, 256), mask),
    "edges unlabelled": lambda image, mask: (image, mask.where(mask == mask.roll(1, -1), 255)),
    "unlabelled": lambda image, mask: (image, torch.full_like(mask, 255)),
    "rolled": lambda image, mask: (image.roll(9, -1), mask.roll(9, -1)),
}


@pytest.mark.filterwarnings("ignore:.*RandomErasing.*passing through:UserWarning")
@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
@pytest.mark.parametrize("transform", ALIKE.values(), ids=ALIKE)
def test_others_are_not_taken_for_moves_of_one_alone(transform):
    OwnAugmentation(transform, 11).check(*SIZE)


@pytest.mark.filterwarnings("ignore:.*RandomErasing.*passing through:UserWarning")
@pytest.mark.parametrize("size", [(1, 1), (33, 49), (20, 300)])
def test_small_crops_are_compared_as_far_as_they_tell(size):
    OwnAugmentation(v2.RandomErasing(1.0, scale=(0.8, 0.95)), 11).check(*size)
    OwnAugmentation(v2.RandomHorizontalFlip(), 11).check(*size)
    if min(size) > 30:
        with pytest.raises(ValueError, match="image and mask apart"):
            OwnAugmentation(image_only(F.hflip), 11).check(*size)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_few_classes_are_enough(num_classes):
    OwnAugmentation(v2.RandomAffine(30, (0.3, 0.3), (0.5, 2), 20), num_classes).check(*SIZE)
    with pytest.raises(ValueError, match="image and mask apart"):
        OwnAugmentation(mask_only(F.hflip), num_classes).check(*SIZE)
