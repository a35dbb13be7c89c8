"""Somebody's own augmentation: by import path and in code; what it moves, and how it fails."""

import json
import pickle
import random
import sys
from functools import partial

import numpy as np
import pytest
import torch
from small_runs import Scenes, assert_same_end, changed, interrupt, small_model, trainer
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from ccnet.training.augmentation import augmentation_of
from ccnet.training.own_augmentation import OwnAugmentation
from ccnet.transforms import Preprocessing

MODULE = '''
import random
import numpy, torch

class Both:
    def __init__(self, shift=1): self.shift = shift
    def __call__(self, image, mask):
        return image.roll(self.shift, -1), mask.roll(self.shift, -1)

def noisy(image, mask):
    """Draws from all generators there are."""
    noise = random.random(), numpy.random.rand(), float(torch.rand(()))
    return (image.float() + 40 * sum(noise)).clamp(max=255).byte(), mask
'''


@pytest.fixture(autouse=True)
def module(tmp_path_factory, monkeypatch):
    """A module of one's own in the current folder."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "own_module.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    yield
    sys.modules.pop("own_module", None)


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, 33, 49), generator=generator, dtype=torch.uint8)
    mask = torch.randint(11, (33, 49), generator=generator, dtype=torch.uint8)
    mask[0, 0] = 255
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


PLAIN = v2.Compose([lambda i, m: (i * 1, m * 1), v2.RandomRotation([90, 90])])


@pytest.mark.parametrize("transform", ["RandomRotation([90, 90])", "own_module:Both(7)", PLAIN])
def test_image_and_mask_move_together(transform):
    """Pixels whose brightness is their class keep it."""
    pattern = torch.randint(11, (32, 32), dtype=torch.uint8)
    image = tv_tensors.Image(20 * pattern.expand(3, -1, -1))
    moved, labels = OwnAugmentation(transform, 11)(image, tv_tensors.Mask(pattern))
    assert torch.equal(moved[0], 20 * labels)
    assert not torch.equal(labels, pattern)
    assert (type(moved), type(labels)) == (tv_tensors.Image, tv_tensors.Mask)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomRotation([30, 30]),
        v2.RandomRotation([30, 30], fill={tv_tensors.Mask: 255, "others": 0}),
        v2.Compose([v2.RandomRotation([30, 30]), v2.ColorJitter(0.1)]),
        v2.Compose([lambda *pair: pair, v2.Compose([v2.RandomRotation([30, 30])])]),
        v2.RandomApply([v2.RandomRotation([30, 30])], p=1.0),
        v2.RandomApply([lambda *pair: pair, v2.RandomRotation([30, 30]), lambda *pair: pair], 1.0),
        v2.RandomChoice([v2.RandomRotation([30, 30]), lambda i, m: i / None], p=[1, 0]),
        v2.Compose([v2.Lambda(lambda m: 6 - m, tv_tensors.Mask), v2.RandomRotation([30, 30])]),
    ],
    ids=[
        *("default", "filled", "with others", "with a function", "by chance"),
        *("functions by chance", "choice", "Lambda"),
    ],
)
def test_what_transforms_fill_in_is_unlabelled(transform):
    image, mask = sample()
    mask = tv_tensors.Mask(torch.full_like(mask, 3))
    _, labels = OwnAugmentation(transform, 11)(image, mask)
    rotated = v2.functional.rotate(mask, 30)
    assert torch.equal(labels, torch.where(rotated == 3, 3, 255))
    assert set(labels.unique().tolist()) == {3, 255}


def own_step(image, mask, limit):
    return image.clamp(min=limit), mask


def without(image, mask):
    return image


FAILURES = {
    "image alone": (without, "it must return image and mask, not Image"),
    "size": (v2.CenterCrop(20), r"gives as image uint8 \(3, 20, 20\): it must be uint8 \(3, 33"),
    "mask's size": (lambda i, m: (i, m[:9]), r"gives as mask uint8 \(9, 49\): .* \(33, 49\), as"),
    "kind": (v2.ToDtype(torch.float32, scale=True), r"gives as image float32 \(3, 33, 49\)"),
    "mask's kind": (lambda i, m: (i, m.long()), r"gives as mask int64 \(33, 49\)"),
    "device": (lambda i, m: (i, m.to("meta")), r"gives as mask uint8 \(33, 49\) on meta: it must"),
    "array": (lambda i, m: (i.numpy(), m), "gives as image ndarray: it must be"),
    "class": (lambda i, m: (i, m + 11), "gives a mask with 21: there are the classes 0..10, and"),
    "error": (lambda i, m: i / None, r"fails: TypeError: .* \(\w+\.py, line \d+\)"),
    "image's alone": (lambda i: i, "does not take image and mask: it is called with both"),
    "version 1": (transforms.RandomRotation(5), "does not take image and mask: it is called"),
    "nested": (v2.RandomApply([lambda i: i], p=1.0), "does not take image and mask: it is called"),
    "moved after": (v2.RandomOrder([lambda i, m: (i.flip(-1), m)]), "moves image and mask apart"),
    "no callable": (3, "must be a callable, not 3"),
    "image moved": (lambda i, m: (i.flip(-1), m), "moves image and mask apart: give both"),
    "moved at random": (
        *(lambda i, m: (i.flip(-1) if torch.rand(()) < 0.5 else i, m), "image and mask apart"),
    ),
    "zoomed": (lambda i, m: (v2.RandomResizedCrop((33, 49))(i), m), "image and mask apart"),
}


@pytest.mark.parametrize(("transform", "message"), FAILURES.values(), ids=FAILURES)
def test_wrong_transforms_are_refused_before_the_run(tmp_path, transform, message):
    with pytest.raises(ValueError, match=rf"^augmentation [^\n]*{message}[^\n]*$"):
        trainer(tmp_path / "run", augmentation=transform)
    assert not (tmp_path / "run").exists()


def test_it_comes_after_that_of_the_recipe_which_stays_the_same():
    seen = []

    def look(image, mask):
        seen.append((image.clone(), mask.clone()))
        return 255 - image, mask

    recipe = changed(gamma=0.5, blur=1.0, noise=8.0)
    image, mask = Scenes(1)[0]
    ends = []
    for own in (None, OwnAugmentation(look, 11)):
        torch.manual_seed(5)
        ends.append(augmentation_of(recipe, Preprocessing(), own)(image, mask))
    for one, other in zip(ends[0], seen[0], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(ends[1][0], 255 - ends[0][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_run_ends_as_if_it_had_not_been(tmp_path, workers):
    recipe = changed(augmentation="own_module:noisy")
    random.seed(1)
    trainer(tmp_path / "whole", recipe).run()
    interrupt(tmp_path / "run", recipe, steps=3)
    random.seed(2)
    np.random.seed(3)
    again = {"model": small_model(seed=99), "resume": True, "workers": workers}
    before = random.getstate()
    trainer(tmp_path / "run", recipe, **again).run()
    assert random.getstate() == before
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_name_is_recorded_and_another_one_refused(tmp_path):
    run_dir, recipe = tmp_path / "run", changed(steps=1)

    def made(step):
        return v2.Compose([v2.RandomRotation(10), step, v2.RandomApply([lambda *pair: pair])])

    def step(limit):
        return partial(own_step, limit=limit)

    trainer(run_dir, recipe, augmentation=made(step(1))).run()
    recorded = json.loads((run_dir / "recipe.json").read_text())["augmentation"]
    assert recorded.startswith("Compose(transforms=[RandomRotation(degrees=[-10.0, 10.0]")
    trainer(run_dir, recipe, augmentation=made(step(1)), resume=True)
    for other, message in (
        (None, "has augmentation 'Compose.*, not '': give"),
        (v2.RandomRotation(11), "has augmentation 'Compose.*, not \"Random"),
        (made(step(2)), r"augmentation '\.\.\..*limit=1\).*', not '\.\.\..*limit=2\).*': give"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(run_dir, recipe, augmentation=other, resume=True)
    with pytest.raises(
        ValueError, match=r"augmentation is 'RandomRotation.9.', and Rand.* is give"
    ):
        trainer(
            tmp_path / "both",
            changed(augmentation="RandomRotation(9)"),
            augmentation=v2.RandomRotation(9),
        )


def test_processes_that_are_not_forked_import_it_again():
    own = OwnAugmentation("own_module:noisy", 11)
    sent = pickle.dumps(own)
    sys.modules.pop("own_module")
    ends = []
    for one in (own, pickle.loads(sent)):
        torch.manual_seed(4)
        ends.append(one(*sample()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert own.name == pickle.loads(sent).name


def test_errors_of_workers_are_told(tmp_path):
    calls = iter(range(20))

    def late(image, mask):
        if next(calls) > 10:
            raise KeyError("lost")
        return image, mask

    with pytest.raises(ValueError, match=r"late fails: KeyError: 'lost' \(test_own_aug.*, line "):
        trainer(tmp_path, augmentation=late, workers=1).run()
