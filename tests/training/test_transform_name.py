"""Names of transforms: alike if made anew, and other ones for other transforms."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.training.transform_name import name_of


def shift(image, mask, pixels=1):
    return image.roll(pixels, -1), mask.roll(pixels, -1)


class Shift:
    def __init__(self, pixels, *parts):
        self.pixels, self.parts, self.method = pixels, parts, self.move
        self.generator, self._count = torch.Generator(), torch.rand(())

    def move(self, image, mask):
        return shift(image, mask, self.pixels)

    __call__ = move


@dataclass
class Described:
    pixels: int
    function: object = shift

    def __call__(self, image, mask):
        return shift(image, mask, self.pixels)


class OfTorchvision(v2.Transform):
    def __init__(self, pixels):
        super().__init__()
        self.pixels = pixels


def made(pixels):
    return lambda image, mask: shift(image, mask, pixels)


NAMES = {
    "function": (lambda _: shift, "test_transform_name:shift"),
    "lambda": (made, "test_transform_name:made.<locals>.<lambda>"),
    "method": (
        lambda n: Shift(n).move,
        "test_transform_name:Shift(pixels={n}, parts=[], method=....move).move",
    ),
    "partial": (
        lambda n: partial(shift, pixels=n),
        "functools:partial(test_transform_name:shift, pixels={n})",
    ),
    "positional": (lambda n: partial(made, n), None),
    "instance": (Shift, None),
    "holding others": (lambda n: Shift(1, made(3), Shift(n)), None),
    "dataclass": (Described, "Described(pixels={n}, function=<function shift>)"),
    "own transform": (OfTorchvision, "test_transform_name:OfTorchvision(pixels={n})"),
    "rotation": (lambda n: v2.RandomRotation(n), None),
    "filled": (lambda n: v2.RandomRotation(9, fill={tv_tensors.Mask: n, "others": 0}), None),
    "compose": (
        lambda n: v2.Compose([OfTorchvision(n), made(n)]),
        "Compose(transforms=[test_transform_name:OfTorchvision(pixels={n}), "
        "test_transform_name:made.<locals>.<lambda>])",
    ),
    "by chance": (lambda n: v2.RandomApply([made(1)], p=n / 10), None),
    "choice": (lambda n: v2.RandomChoice([made(1), Shift(n)]), None),
    "modules": (lambda n: v2.RandomApply(nn.ModuleList([v2.RandomRotation(n)])), None),
    "per input": (lambda n: v2.Lambda(partial(made, n), tv_tensors.Mask), None),
}
"""What makes a transform of a number, and its name, if all of it matters."""


@pytest.mark.parametrize(("make", "name"), NAMES.values(), ids=NAMES)
def test_transforms_have_one_name_each(make, name):
    kept = make(1), make(1), make(2)  # all at once, so that their addresses differ
    one, again, other = map(name_of, kept)
    assert one == again
    if name is None or "{n}" in name:
        assert one != other
    if name is not None:
        assert (one, other) == (name.replace("{n}", "1"), name.replace("{n}", "2"))
    assert "\n" not in one
