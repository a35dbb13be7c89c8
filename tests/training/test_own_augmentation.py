"""Somebody's own augmentation: by import path and in code; what it moves, and how it fails."""

import json
import pickle
import random
import sys

import numpy as np
import pytest
import torch
from small_runs import Scenes, assert_same_end, changed, interrupt, small_model, trainer
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from ccnet.training.augmentation import augmentation_of
from ccnet.training.own_augmentation import OwnAugmentation, load
from ccnet.transforms import Preprocessing

MODULE = '''
import random
import numpy, torch
from torchvision.transforms import v2

def make_transform(degrees=5):
    return v2.RandomRotation(degrees)

class Both:
    def __init__(self, shift=1): self.shift = shift
    def __call__(self, image, mask):
        return image.roll(self.shift, -1), mask.roll(self.shift, -1)

both = Both(2)

def noisy(image, mask):
    """Draws from all generators there are."""
    noise = random.random(), numpy.random.rand(), float(torch.rand(()))
    return (image.float() + 40 * sum(noise)).clamp(max=255).byte(), mask

def broken(): raise RuntimeError("out of\\norder")
nothing = None
'''


@pytest.fixture(autouse=True)
def module(tmp_path_factory, monkeypatch):
    """A module of one's own in the current folder."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "own_module.py").write_text(MODULE)
    (folder / "faulty_module.py").write_text("import nowhere_at_all")
    monkeypatch.chdir(folder)
    yield
    for name in ("own_module", "faulty_module"):
        sys.modules.pop(name, None)


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, 33, 49), generator=generator, dtype=torch.uint8)
    mask = torch.randint(11, (33, 49), generator=generator, dtype=torch.uint8)
    mask[0, 0] = 255
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


LOADED = {
    "own_module:make_transform": "RandomRotation",
    "own_module.make_transform": "RandomRotation",
    "own_module:make_transform(degrees=30)": "RandomRotation",
    "own_module:Both": "Both",
    "own_module:Both(3)": "Both",
    "own_module:both": "Both",
    "own_module:noisy": "function",
    "RandomRotation(15)": "RandomRotation",
    "torchvision.transforms.v2.RandomRotation([-5, 5], expand=False)": "RandomRotation",
    "torchvision.transforms.v2:RandomHorizontalFlip": "RandomHorizontalFlip",
}


@pytest.mark.parametrize(("path", "kind"), LOADED.items(), ids=LOADED)
def test_transforms_are_loaded_by_their_import_path(path, kind):
    before = list(sys.path)
    assert type(load(path)).__name__ == kind
    assert sys.path == before
    assert OwnAugmentation(f" {path} ", 11).name == path


UNLOADED = {
    "no_such_module:make": "no module 'no_such_module' in the current folder or installed$",
    "faulty_module:make": "no module 'nowhere_at_all' in the",
    "own_module:make_transfrom": "has no 'make_transfrom': did you mean 'make_transform'?",
    "RandomRotatoin(3)": "v2 has no 'RandomRotatoin': did you mean 'RandomRotation'?",
    "RandomRotation": r"fails: TypeError: .*missing 1 required.*own_augmentation\.py, line \d+\)$",
    "RandomRotation(x)": r"fails: ValueError: \(x\) must be numbers, texts or lists of these",
    "RandomRotation(open('x'))": "must be numbers, texts or lists of these",
    "RandomRotation(**{})": "RandomRotation",
    "own_module:broken": r"fails: RuntimeError: out of order \(own_module\.py, line \d+\)$",
    "own_module:nothing": "must be a callable, not None",
    "own module:x": "is no import path: expected such as 'my_module:make_transform'",
    "a:b:c": "is no import path",
    "RandomRotation(3": "is no import path",
}


@pytest.mark.parametrize(("path", "message"), UNLOADED.items(), ids=UNLOADED)
def test_what_cannot_be_loaded_is_said_in_one_line(path, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as refusal:
        OwnAugmentation(path, 11)
    assert str(refusal.value).startswith("augmentation ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", ["RandomRotation([90, 90])", "own_module:Both(7)"])
def test_image_and_mask_move_together(path):
    """Pixels whose brightness is their class keep it."""
    pattern = torch.randint(11, (32, 32), dtype=torch.uint8)
    image = tv_tensors.Image(20 * pattern.expand(3, -1, -1))
    moved, labels = OwnAugmentation(path, 11)(image, tv_tensors.Mask(pattern))
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
    ],
    ids=["default", "filled", "with others", "with a function", "by chance"],
)
def test_what_transforms_fill_in_is_unlabelled(transform):
    image, mask = sample()
    mask = tv_tensors.Mask(torch.full_like(mask, 3))
    _, labels = OwnAugmentation(transform, 11)(image, mask)
    rotated = v2.functional.rotate(mask, 30)
    assert torch.equal(labels, torch.where(rotated == 3, 3, 255))
    assert set(labels.unique().tolist()) == {3, 255}


def without(image, mask):
    return image


FAILURES = {
    "image alone": (without, "it must return image and mask, not Image"),
    "size": (v2.CenterCrop(20), r"gives as image uint8 \(3, 20, 20\): it must be uint8 \(3, 33"),
    "mask's size": (lambda i, m: (i, m[:9]), r"gives as mask uint8 \(9, 49\): .* \(33, 49\), as"),
    "kind": (v2.ToDtype(torch.float32, scale=True), r"gives as image float32 \(3, 33, 49\)"),
    "mask's kind": (lambda i, m: (i, m.long()), r"gives as mask int64 \(33, 49\)"),
    "array": (lambda i, m: (i.numpy(), m), "gives as image ndarray: it must be"),
    "class": (lambda i, m: (i, m + 11), "gives a mask with 21: there are the classes 0..10, and"),
    "error": (lambda i, m: i / None, r"fails: TypeError: .* \(\w+\.py, line \d+\)"),
    "image's alone": (lambda i: i, "does not take image and mask: it is called with both"),
    "version 1": (transforms.RandomRotation(5), "does not take image and mask: it is called"),
    "nested": (v2.RandomApply([lambda i, m: (i, m)], p=1.0), "fails: TypeError: "),
    "image moved": (lambda i, m: (i.flip(-1), m), "moves the image but not its mask: give both"),
    "moved at random": (
        *(lambda i, m: (i.flip(-1) if torch.rand(()) < 0.5 else i, m), "but not its mask"),
    ),
    "zoomed": (lambda i, m: (v2.RandomResizedCrop((33, 49))(i), m), "but not its mask"),
}


@pytest.mark.parametrize(("transform", "message"), FAILURES.values(), ids=FAILURES)
def test_wrong_transforms_are_refused_before_the_run(tmp_path, transform, message):
    with pytest.raises(ValueError, match=rf"^augmentation [^\n]*{message}[^\n]*$"):
        trainer(tmp_path / "run", augmentation=transform)
    assert not (tmp_path / "run").exists()


HARMLESS = [
    *(v2.ColorJitter(0.9, 0.9, 0.9, 0.4), v2.RandomGrayscale(1.0), v2.RandomInvert(1.0)),
    *(v2.RandomSolarize(100, p=1.0), v2.RandomPosterize(1, p=1.0), v2.RandomEqualize(1.0)),
    *(v2.GaussianBlur(9, (3.0, 3.0)), v2.RandomErasing(1.0), v2.RandomChannelPermutation()),
    *(v2.RandomAffine(30, (0.3, 0.3), (0.5, 2), 20), v2.RandomPerspective(0.9, p=1.0)),
    *(v2.ElasticTransform(90.0), v2.RandomResizedCrop((97, 111))),
    *(v2.RandomPhotometricDistort(p=1.0), v2.RandomAutocontrast(1.0), lambda i, m: (i * 0, m)),
    lambda i, m: (i.flip(-1), m.flip(-1)),
]


@pytest.mark.filterwarnings("ignore:.*RandomErasing.*passing through:UserWarning")
@pytest.mark.parametrize("transform", HARMLESS, ids=[str(type(one).__name__) for one in HARMLESS])
@pytest.mark.parametrize("num_classes", [1, 2, 11])
def test_others_are_not_taken_for_ones_that_move_the_image_alone(transform, num_classes):
    OwnAugmentation(transform, num_classes).check(97, 111)


def test_it_comes_after_that_of_the_recipe_which_stays_the_same():
    seen = []

    def look(image, mask):
        seen.append((image.clone(), mask.clone()))
        return 255 - image, mask

    recipe = changed()
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
    run_dir = tmp_path / "run"
    rotation = v2.Compose([v2.RandomRotation(10)])
    trainer(run_dir, changed(steps=1), augmentation=rotation).run()
    recorded = json.loads((run_dir / "recipe.json").read_text())["augmentation"]
    assert recorded.startswith("Compose( RandomRotation(degrees=[-10.0, 10.0]")
    trainer(run_dir, changed(steps=1), augmentation=rotation, resume=True)
    for other in (None, v2.RandomRotation(11), without):
        with pytest.raises(ValueError, match=r"has augmentation 'Compose|fails|must return"):
            trainer(run_dir, changed(steps=1), augmentation=other, resume=True)
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
