"""Augmentation of one's own: a transform by import path or in code, checked and reproducible."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import IGNORE_INDEX
from ccnet.datasets import Sample, Transforms
from ccnet.schema import shown
from ccnet.training.alignment import are_apart, draw_sample
from ccnet.training.import_path import described, load, takes
from ccnet.training.recipes import Recipe
from ccnet.training.transform_name import name_of

_CONTAINERS = (v2.Compose, v2.RandomApply, v2.RandomChoice, v2.RandomOrder)

_DRAWS = 16
"""How often a transform is tried."""


class OwnAugmentation:
    """Somebody's transform of image and mask, after which every sample is checked.

    Transforms of torchvision move both by the same random numbers, masks to the nearest pixel; what
    they fill in is unlabelled. Functions, alone or in torchvision's containers, get
    `tv_tensors.Image` and `tv_tensors.Mask`, and return both. The global generators of torch, NumPy
    and Python give each sample its own numbers.

    Args:
        transform: a callable, or an import path as of `load`.
        num_classes: number of classes; masks hold these or 255.

    Attributes:
        name: what tells it from others: the import path, or the `name_of` a callable.

    Raises:
        ValueError: if there is no such transform.
    """

    def __init__(self, transform: str | Transforms, num_classes: int) -> None:
        self.path = transform.strip() if isinstance(transform, str) else ""
        loaded: Any = load(self.path) if isinstance(transform, str) else transform
        if not callable(loaded):
            subject = f"augmentation {self.path}".rstrip()
            raise ValueError(f"{subject} must be a callable, not {shown(loaded)}")
        self.name, self.num_classes = self.path or name_of(loaded), num_classes
        self._transform: Any = _marking(loaded, self.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_transform": None} if self.path else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path:  # other processes do not know the modules of the current folder
            self._transform = _marking(load(self.path), self.name)

    def __call__(self, image: Any, mask: Any) -> Sample:
        """Transforms an image (3, H, W) and its mask (H, W), both uint8.

        Raises:
            ValueError: if the transform fails, or returns anything else of that kind and size.
        """
        shapes = image.shape, mask.shape
        try:
            with _seeded():
                image, mask, kept = self._transform(image, mask, _marks(mask))
                mask = _unlabelled(mask, kept)
        except Exception as error:
            raise ValueError(f"augmentation {self.name} fails: {described(error)}") from error
        for value, shape, what in zip((image, mask), shapes, ("image", "mask"), strict=True):
            kind = type(value).__name__
            if isinstance(value, Tensor):
                kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
                kind += "" if value.device.type == "cpu" else f" on {value.device}"
            if kind != f"uint8 {tuple(shape)}":
                raise ValueError(
                    f"augmentation {self.name} gives as {what} {kind}: it must be uint8 "
                    f"{tuple(shape)}, as it was given"
                )
        labels = mask.as_subclass(Tensor)
        if ((labels >= self.num_classes) & (labels != IGNORE_INDEX)).any():
            raise ValueError(
                f"augmentation {self.name} gives a mask with {int(labels.max())}: "
                f"there are the classes 0..{self.num_classes - 1}, and {IGNORE_INDEX} for none"
            )
        return tv_tensors.Image(image), tv_tensors.Mask(mask)

    def check(self, height: int, width: int) -> None:
        """Tries the transform on drawn pictures of this size.

        Raises:
            ValueError: if it fails, or moves image and mask apart.
        """
        label, apart = self.num_classes - 1 or IGNORE_INDEX, 0
        with torch.random.fork_rng(devices=[]):
            for draw in range(_DRAWS):
                torch.manual_seed(draw)
                image, mask = draw_sample(height, width, label, draw)
                apart += are_apart(*self(tv_tensors.Image(image), tv_tensors.Mask(mask)))
                if apart > 1:  # one may be by chance
                    raise ValueError(
                        f"augmentation {self.name} moves image and mask apart: give both to the "
                        "same call of a transform of torchvision.transforms.v2"
                    )


def chosen_augmentation(
    recipe: Recipe, given: Transforms | None, num_classes: int
) -> tuple[OwnAugmentation | None, Recipe]:
    """Returns the augmentation of the recipe or in code, if any, and the recipe with its name.

    Raises:
        ValueError: if it does not work on the recipe's crops, or both are given.
    """
    path = recipe.augmentation
    if given is None and not path:
        return None, recipe
    own = OwnAugmentation(path if given is None else given, num_classes)
    if path not in ("", own.name):
        raise ValueError(
            f"the recipe's augmentation is {path!r}, and {own.name} is given: leave one out"
        )
    own.check(recipe.crop_height, recipe.crop_width)
    return own, replace(recipe, augmentation=own.name)


def _marking(transform: Callable[..., Any], name: str) -> Any:
    """Makes a transform of image and mask one that moves marks along with them.

    By default torchvision fills masks with 0, which is a class: the marks of `_marks` tell what was
    filled from what was moved. Only its own transforms can take them.
    """
    is_torchvision = isinstance(transform, v2.Transform) and str(
        type(transform).forward.__module__
    ).startswith("torchvision.")
    if is_torchvision and isinstance(transform, _CONTAINERS):
        container = copy.copy(transform)
        vars(container)["transforms"] = [_marking(one, name) for one in transform.transforms]
        return container
    if is_torchvision and not isinstance(transform, v2.Lambda):  # that would change the marks
        return transform
    if not takes(transform, 2):
        raise ValueError(
            f"augmentation {name} does not take image and mask: it is called with both "
            "and returns both, as transforms of torchvision.transforms.v2 do"
        )
    return _Own(transform)


class _Own:
    """A transform of image and mask alone, with marks: the mask is settled before, and new after.

    Args:
        transform: takes and returns image and mask.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def __call__(self, image: Any, mask: Any, kept: Any) -> tuple[Any, Any, Any]:
        result = self.transform(image, _unlabelled(mask, kept))
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(f"it must return image and mask, not {type(result).__name__}")
        image, mask = (
            tv_tensors.wrap(one, like=like) if isinstance(one, Tensor) else one
            for one, like in zip(result, (image, mask), strict=True)
        )
        return image, mask, _marks(mask)


def _marks(mask: Any) -> Any:
    """Returns a mask of ones of the same size; None for what is no tensor."""
    return tv_tensors.Mask(torch.ones_like(mask)) if isinstance(mask, Tensor) else None


def _unlabelled(mask: Any, kept: Any) -> Any:
    """Returns the mask, with what is not kept unlabelled."""
    if kept is None:
        return mask
    labels, is_kept = (one.as_subclass(Tensor) for one in (mask, kept))
    return tv_tensors.Mask(labels.masked_fill(is_kept != 1, IGNORE_INDEX))


@contextmanager
def _seeded() -> Iterator[None]:
    """Inside, the global generators of Python and NumPy depend on torch's."""
    seed = int(torch.randint(2**32, ()))
    kept = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
