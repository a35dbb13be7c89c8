"""Augmentation of one's own: a transform by import path or in code, checked and reproducible."""

import ast
import importlib
import inspect
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import IGNORE_INDEX
from ccnet.datasets import Sample, Transforms
from ccnet.schema import reason_of, shown
from ccnet.training.recipes import Recipe

_PATH = re.compile(r"(?:([\w.]+)[:.])?(\w+)\s*(\(.*\))?", re.DOTALL)
_TORCHVISION = "torchvision.transforms.v2"

_DRAWS, _CELLS, _UNLIKE = 8, 16, 0.2
"""How often a transform is tried, on so many squares a side; the correlation of a moved image."""


class OwnAugmentation:
    """Somebody's transform of image and mask, after which every sample is checked.

    Transforms of torchvision move both by the same random numbers, masks to the nearest pixel; what
    they fill in is unlabelled. Functions get `tv_tensors.Image` and `tv_tensors.Mask`, and return
    both. The global generators of torch, NumPy and Python give each sample its own numbers.

    Args:
        transform: a callable, or an import path as of `load`.
        num_classes: number of classes; masks hold these or 255.

    Attributes:
        name: what tells it from others: the import path, or what a callable is called.

    Raises:
        ValueError: if there is no such transform.
    """

    def __init__(self, transform: str | Transforms, num_classes: int) -> None:
        self.path = transform.strip() if isinstance(transform, str) else ""
        loaded: Any = load(self.path) if isinstance(transform, str) else transform
        if not callable(loaded):
            raise ValueError(f"augmentation must be a callable, not {shown(loaded)}")
        self.name, self.num_classes = self.path or _name_of(loaded), num_classes
        self._steps: list[Any] = list(_steps(loaded))
        if not all(_takes(step, 2) for step in self._steps):
            raise ValueError(
                f"augmentation {self.name} does not take image and mask: it is called with both "
                "and returns both, as transforms of torchvision.transforms.v2 do"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": None} if self.path else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path:  # other processes do not know the modules of the current folder
            self._steps = list(_steps(load(self.path)))

    def __call__(self, image: Any, mask: Any) -> Sample:
        """Transforms an image (3, H, W) and its mask (H, W), both uint8.

        Raises:
            ValueError: if the transform fails, or returns anything else of that kind and size.
        """
        shapes = image.shape, mask.shape
        try:
            with _seeded():
                for step in self._steps:
                    image, mask = _apply(step, image, mask)
        except Exception as error:
            raise ValueError(f"augmentation {self.name} fails: {_described(error)}") from error
        for value, shape, what in zip((image, mask), shapes, ("image", "mask"), strict=True):
            kind = type(value).__name__
            if isinstance(value, Tensor):
                kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
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
        """Tries the transform on a drawn picture of this size.

        Raises:
            ValueError: if it fails, or moves the image and not the mask.
        """
        generator = torch.Generator().manual_seed(0)
        cells = torch.randint(2, (_CELLS, _CELLS), generator=generator, dtype=torch.uint8)
        rows, columns = (torch.arange(size) * _CELLS // size for size in (height, width))
        pattern = cells[rows][:, columns]
        image = tv_tensors.Image((28 + 200 * pattern).expand(3, -1, -1).contiguous())
        mask = tv_tensors.Mask(pattern * (self.num_classes - 1 or IGNORE_INDEX))
        with torch.random.fork_rng(devices=[]):
            for draw in range(_DRAWS):
                torch.manual_seed(draw)
                found, labels = self(image.clone(), mask.clone())
                if torch.equal(labels, mask) and _correlation(found, pattern) < _UNLIKE:
                    raise ValueError(
                        f"augmentation {self.name} moves the image but not its mask: give both to "
                        "the same call of a transform of torchvision.transforms.v2"
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


def load(path: str) -> Any:
    """Imports a transform, or what makes one, which is called.

    Args:
        path: "module:name" or "module.name", of a module that is installed or in the current
            folder; a name alone is of torchvision.transforms.v2. With arguments behind it, such as
            "RandomRotation(15)", the name is called with these, which must be literals. Without,
            classes and functions that need no argument are called.

    Raises:
        ValueError: if it cannot be imported or made; says why.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(
            f"augmentation {shown(path)} is no import path: expected such as "
            "'my_module:make_transform' or 'RandomRotation(degrees=15)'"
        )
    module, name, arguments = match[1] or _TORCHVISION, match[2], match[3]
    found = _imported(path, module, name)
    try:
        if arguments:
            positional, named = _literals(arguments)
            return found(*positional, **named)
        return found() if _is_maker(found) else found
    except Exception as error:
        raise ValueError(f"augmentation {path} fails: {_described(error)}") from error


def _imported(path: str, module: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"augmentation {path}: there is no module {error.name!r} in the current folder or "
            "installed"
        ) from error
    except Exception as error:
        raise ValueError(f"augmentation {path} fails: {_described(error)}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not hasattr(found, name):
        public = [one for one in dir(found) if not one.startswith("_")]
        near = get_close_matches(name, public, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"augmentation {path}: {module} has no {name!r}{hint}")
    return getattr(found, name)


def _literals(arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """Reads arguments in parentheses, running none of them."""
    try:
        call: Any = ast.parse(f"call{arguments}", mode="eval").body
        named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        return [ast.literal_eval(one) for one in call.args], named
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"{arguments} must be numbers, texts or lists of these") from error


def _is_maker(found: Any) -> bool:
    """Whether something is not a transform, but gives one when it is called."""
    return inspect.isclass(found) or (inspect.isroutine(found) and _takes(found, 0))


def _takes(call: Any, count: int) -> bool:
    """Whether something can be called with so many arguments; true where that is not known."""
    try:
        inspect.signature(getattr(call, "forward", call)).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C
        return True
    return True


def _steps(transform: Any) -> Iterator[Callable[..., Any]]:
    if type(transform) is v2.Compose:
        for one in transform.transforms:
            yield from _steps(one)
    else:
        yield transform


def _apply(step: Callable[..., Any], image: Any, mask: Any) -> Any:
    is_torchvision = isinstance(step, v2.Transform) and str(
        type(step).forward.__module__
    ).startswith("torchvision.")
    if not is_torchvision:
        result = step(image, mask)
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(f"it must return image and mask, not {type(result).__name__}")
        return result
    # By default these fill masks with 0, which is a class: ones tell the filled from the moved.
    image, mask, kept = step(image, mask, tv_tensors.Mask(torch.ones_like(mask)))
    labels, is_kept = (one.as_subclass(Tensor) for one in (mask, kept))
    return image, tv_tensors.Mask(labels.masked_fill(is_kept != 1, IGNORE_INDEX))


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


def _correlation(image: Tensor, pattern: Tensor) -> float:
    """Returns how alike brightness and pattern are, whatever the contrast: 0..1; 1 if unknown."""
    pair = torch.stack([image.as_subclass(Tensor).float().mean(0), pattern.float()]).flatten(1)
    coefficient = torch.corrcoef(pair)[0, 1].abs()
    return float(coefficient.nan_to_num(1.0))


def _name_of(transform: Any) -> str:
    if isinstance(transform, v2.Transform):
        return " ".join(repr(transform).split())
    named = transform if inspect.isroutine(transform) else type(transform)
    return f"{named.__module__}:{named.__qualname__}"


def _described(error: Exception) -> str:
    """Says what an error of other code is, and where it arose."""
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__}: {reason_of(error)} ({place})"
