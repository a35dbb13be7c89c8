"""Training runs that take seconds: a small network on small scenes, in this process or others."""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
from forked_python import processes
from PIL import Image
from torch import nn

from ccnet.datasets import StreetScenes
from ccnet.distributed import leave
from ccnet.model import CCNet
from ccnet.training.checkpoint import Checkpoints
from ccnet.training.engine import Trainer
from ccnet.training.recipes import Recipe
from ccnet.training.termination import Terminated
from ccnet.transforms import Preprocessing
from ccnet.weights import read_weights

SMALL = Recipe(
    steps=4,
    batch_size=2,
    crop_height=33,
    crop_width=49,
    warmup_steps=1,
    validate_every=2,
    precision="float32",
)

FILES = {
    *("checkpoints", "tensorboard", "best.safetensors", "log.jsonl", "train.log"),
    *("config.json", "data.jsonl", "environment.json", "recipe.json", "results.json"),
}
"""What a finished run leaves in its folder."""


class SmallBackbone(nn.Module):
    """Two stages of 16 and 32 channels at strides 4 and 8, with the interface of `Backbone`."""

    channels, stem_widths = (16, 32), ()
    preprocessing, image_size, settled = Preprocessing(), None, {}

    def __init__(self, name, negative_slope=0.0, **options):
        super().__init__()
        self.gradient_checkpointing = False
        self.slopes = {float(negative_slope)}
        self.stages = nn.ModuleList()
        for width, wider in ((3, 8), (8, 16), (16, 32)):
            conv = nn.Conv2d(width, wider, 3, stride=2, padding=1, bias=False)
            activation = nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()
            self.stages.append(nn.Sequential(conv, nn.BatchNorm2d(wider), activation))

    def forward(self, x):
        stage3 = self.stages[1](self.stages[0](x))
        return stage3, self.stages[2](stage3)


def small_backbones():
    """A context in which every CCNet has the small backbone."""
    return mock.patch("ccnet.backbones.choice.Backbone", SmallBackbone)


def small_model(seed=0, negative_slope=0.0, **config):
    """A small CCNet for CamVid's classes, with attention that counts."""
    torch.manual_seed(seed)
    slope = {"negative_slope": negative_slope}
    options = {"backbone": "resnet18", "num_classes": 11, "label_set": "camvid", **config}
    with small_backbones():
        model = CCNet(backbone_options=slope, **slope, **options)
    if model.head.cca is not None:
        nn.init.constant_(model.head.cca.gamma, 0.5)
    return model


_drawn = {}
"""Pictures and labels by seed and index: most of a small run's time would go into drawing."""


class Scenes(StreetScenes):
    """Small scenes that call `on_draw` with the number of scenes drawn before."""

    def __init__(self, length=5, on_draw=None, seed=3):
        super().__init__(length, size=(64, 96), seed=seed)
        self.count, self.on_draw = 0, on_draw

    def __getitem__(self, index):
        if self.on_draw is not None:
            self.on_draw(self.count)
        self.count += 1
        return super().__getitem__(index)

    def _render(self, index):
        key = self.seed, range(self.length)[index]
        if key not in _drawn:
            _drawn[key] = super()._render(index)
        return _drawn[key]


def write_mask_folder(root, scenes, categories):
    """Writes scenes as the images and masks of a `MaskFolder`."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index, name in enumerate(scenes.names):
        image, mask = scenes[index]
        Image.fromarray(image.movedim(0, -1).numpy()).save(root / "images" / f"{name}.png")
        Image.fromarray(mask.numpy()).save(root / "masks" / f"{name}.png")
    (root / "classes.json").write_text(json.dumps(list(categories)))


def changed(**fields):
    return dataclasses.replace(SMALL, **fields)


def trainer(run_dir, recipe=SMALL, *, model=None, train_set=None, val_set=None, **options):
    options.setdefault("workers", 0)
    sets = train_set or Scenes(), val_set or Scenes(2, seed=4)
    return Trainer(model or small_model(), *sets, recipe, run_dir, **options)


def on_call(count, act):
    """A hook that acts when it is called for the count-th time."""
    calls = itertools.count(1)

    def hook(*_):
        if next(calls) == count:
            act()

    return hook


def fail():
    raise RuntimeError("the power failed")


def interrupt(run_dir, recipe=SMALL, *, steps):
    """Starts or resumes a run that fails after that many steps."""
    failing = Scenes(on_draw=on_call(steps * recipe.batch_size + 1, fail))
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(run_dir, recipe, train_set=failing, resume=True).run()


def checkpoint_steps(run_dir):
    """The steps of the checkpoints of a run."""
    return [int(path.stem[5:]) for path in Checkpoints(run_dir / "checkpoints").paths()]


def newest(run_dir):
    """The state in the newest checkpoint of a run."""
    return Checkpoints(run_dir / "checkpoints").newest()[1]


def log_of(run_dir):
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def best_of(run_dir):
    return read_weights(run_dir / "best.safetensors")


def same(one, other):
    """Whether two nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_end(run_dir, other, *, same_data=True):
    """Checks that two runs ended equally to the bit, and left no other files.

    Args:
        run_dir: of one run.
        other: of the other run.
        same_data: whether they read the same files.
    """
    states = newest(run_dir), newest(other)
    assert same(*(state.pop("data") for state in states)) is same_data
    assert same(*states)
    one, two = best_of(run_dir), best_of(other)
    for part in ("state_dict", "config", "details"):
        assert same(getattr(one, part), getattr(two, part)), part
    for name in ("log.jsonl", "recipe.json", "config.json", "results.json"):
        assert (run_dir / name).read_bytes() == (other / name).read_bytes(), name
    for folder in (run_dir, other):
        assert len(list((folder / "checkpoints").iterdir())) <= 2
        assert {path.name for path in folder.iterdir()} == FILES


def start(function, *arguments, ranks=1):
    """Starts a function in processes of their own, one a rank."""
    rendezvous = f"file://{tempfile.mkdtemp()}/ranks"
    for scenes in (Scenes(), Scenes(2, seed=4)):
        list(scenes)
    shared = _drawn, rendezvous
    started = [
        processes.Process(target=_ranked, args=(*shared, rank, ranks, function, arguments))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    return started


def finish(started):
    """Waits for processes to end, and gives back their exit codes."""
    for process in started:
        process.join(timeout=120)
        if process.is_alive():
            process.kill()
            pytest.fail("a process did not end")
    return [process.exitcode for process in started]


def _ranked(drawn, rendezvous, rank, ranks, function, arguments):
    torch.set_num_threads(1)
    _drawn.update(drawn)
    warnings.simplefilter("error")
    if ranks == 1:
        function(*arguments)
        return
    timeout = timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", rendezvous, timeout, world_size=ranks, rank=rank)
    try:
        function(*arguments)
    finally:
        leave()


def train(run_dir, recipe=SMALL, on_start=None, *, workers=0):
    """Starts or resumes a run the way that scripts/train.py does."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        running = trainer(run_dir, recipe, resume=True, workers=workers)
        if on_start is not None:
            on_start(running)
        with contextlib.suppress(Terminated):
            running.run()
