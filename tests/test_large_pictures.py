"""What a picture of 100 megapixels costs: memory that is bounded, and time in proportion."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pointwise import LABELS, PREPROCESSING, Pointwise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccnet.inference import segment
from ccnet.protocol import Protocol
from ccnet.street_scenes import StreetScenes


class LargestTensor(TorchDispatchMode):
    """Keeps the number of elements of the largest floating-point tensor that an operation gives."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.mark.parametrize("options", [{}, {"flip": True, "scales": (0.5, 1, 2)}])
def test_no_tensor_grows_with_the_height_of_a_picture(options):
    slide = Protocol("slide", crop=64, window_batch=2, **options)
    largest = []
    for height in (600, 2400):
        pixels = torch.randint(0, 256, (3, height, 100), dtype=torch.uint8)
        with LargestTensor() as found:
            segment(Pointwise(), pixels, PREPROCESSING, LABELS, slide)
        largest.append(found.elements)
    assert largest[0] >= largest[1] > 0
    assert largest[0] < 3 * 600 * 100


MEMORY = """
import resource
import torch
from pointwise import LABELS, PREPROCESSING, Pointwise
from ccnet.inference import segment
from ccnet.protocol import Protocol
def peak(height):
    pixels = torch.zeros(3, height, 1000, dtype=torch.uint8)
    for options in ({}, {"scales": (0.5,), "flip": True}):
        segment(Pointwise(), pixels, PREPROCESSING, LABELS, Protocol("slide", crop=256, **options))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
low = peak(1000)
print(peak(9000) - low)
"""


def test_memory_grows_by_the_picture_and_its_labels_alone(run_python, repository):
    pytest.importorskip("resource")
    found = run_python("-c", MEMORY, cwd=repository / "tests")
    # MiB: 8 million pixels have 31 of pixels and labels, 92 in float, 153 of logits.
    assert 0 <= float(found.stdout) < 75


PREDICT = """
import json, resource, sys, time
import torch
import ccnet
torch.set_num_threads(2)
model = ccnet.ccnet_resnet18(weights="DEFAULT")
model.predict(torch.zeros(3, 100, 100))
wall, processor = time.perf_counter(), time.process_time()
result = model.predict(sys.argv[1], mode="slide")
found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
found["classes"] = len(result.shares())
result.save(sys.argv[2])
print(json.dumps(found))
"""


def draw(path, side):
    """A square picture tiled with rendered streets."""
    scenes = StreetScenes(8, seed=7)
    streets = torch.cat([torch.as_tensor(scenes[i][0]) for i in range(8)], dim=2)
    _, height, width = streets.shape
    tiled = streets.movedim(0, -1).repeat(-(-side // height), -(-side // width), 1)
    Image.fromarray(np.asarray(tiled[:side, :side])).save(path, compress_level=1)


def measure(repository, folder, side):
    """What it costs a fresh process to segment a picture of side x side pixels."""
    draw(folder / f"{side}.png", side)
    command = [sys.executable, "-c", PREDICT, f"{side}.png", f"{side}.labels.png"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    found = subprocess.check_output(command, cwd=folder, env=environment)
    with Image.open(folder / f"{side}.labels.png") as labels:
        assert labels.size == (side, side)
    return json.loads(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_take_less_than_four_gib(repository, tmp_path):
    pytest.importorskip("resource")
    small, large = (measure(repository, tmp_path, side) for side in (2500, 10000))
    assert small["classes"] == large["classes"] == 11
    assert large["peak_gib"] < 4
    # In proportion to the area: 16 times, a little less as windows at the edges overlap more.
    assert 10 < large["cpu_seconds"] / small["cpu_seconds"] < 22
