"""Import paths of transforms: what is imported, what is called, and how it fails."""

import sys

import pytest

from ccnet.training.import_path import load
from ccnet.training.own_augmentation import OwnAugmentation

MODULE = """
from torchvision.transforms import v2

def make_transform(degrees=5):
    return v2.RandomRotation(degrees)

def make_with_options(degrees=5, expand=False):
    return v2.RandomRotation(degrees, expand=expand)

class Both:
    def __init__(self, shift=1): self.shift = shift
    def __call__(self, image, mask):
        return image.roll(self.shift, -1), mask.roll(self.shift, -1)

both = Both(2)

def plain(image, mask): return image, mask
def optional(image=None, mask=None): return image, mask
def any_number(*sample): return sample
def unpacked(*sample):
    image, mask = sample
    return image, mask

def broken(): raise RuntimeError("out of\\norder")
nothing = None
def nothing_made(degrees=5): return None
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """A module of one's own in the current folder."""
    (tmp_path / "paths_module.py").write_text(MODULE)
    (tmp_path / "faulty_module.py").write_text("import nowhere_at_all")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("paths_module", "faulty_module"):
        sys.modules.pop(name, None)


LOADED = {
    "paths_module:make_transform": "RandomRotation",
    "paths_module.make_transform": "RandomRotation",
    "paths_module:make_transform(degrees=30)": "RandomRotation",
    "paths_module:Both": "Both",
    "paths_module:Both(3)": "Both",
    "paths_module:both": "Both",
    "paths_module:plain": "function",
    "paths_module:optional": "function",
    "paths_module:any_number": "function",
    "paths_module:unpacked": "function",
    "paths_module:make_with_options": "RandomRotation",
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
    "paths_module:make_transfrom": "has no 'make_transfrom': did you mean 'make_transform'?",
    "RandomRotatoin(3)": "v2 has no 'RandomRotatoin': did you mean 'RandomRotation'?",
    "RandomRotation": r"fails: TypeError: .*missing 1 required.*import_path\.py, line \d+\)$",
    "RandomRotation(x)": r"fails: ValueError: \(x\) must be numbers, texts or lists of these",
    "RandomRotation(open('x'))": "must be numbers, texts or lists of these",
    "RandomRotation(**{})": "RandomRotation",
    "paths_module:broken": r"fails: RuntimeError: out of order \(paths_module\.py, line \d+\)$",
    "paths_module:nothing": "^augmentation paths_module:nothing must be a callable, not None$",
    "paths_module:nothing_made": "^augmentation paths_module:nothing_made must be a callable, not ",
    "paths_module:nothing_made(3)": r"nothing_made\(3\) must be a callable, not None$",
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
