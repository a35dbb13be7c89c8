"""Large images: memory is bounded, and time is proportional to the area."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ccnet.datasets import StreetScenes

MEMORY = """
import resource
import torch
from pointwise import Pointwise, predict
def peak(height):
    pixels = torch.zeros(3, height, 1000, dtype=torch.uint8)
    for options in ({}, {"scales": (0.5, 1.5), "flip": True}):
        options |= {"mode": "slide", "crop": 256, "return_probabilities": False}
        predict(Pointwise(), pixels, **options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
low = peak(1000)
print(peak(9000) - low)
"""


def test_memory_grows_by_the_image_and_its_labels_alone(run_python, repository):
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
processor = time.process_time()
result = model.predict(sys.argv[1], mode="slide")
found = {"cpu_seconds": time.process_time() - processor}
found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
found["classes"] = len(result.shares())
result.save(sys.argv[2])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hundred_megapixels_take_less_than_four_gib(repository, tmp_path):
    """Squares tiled with rendered streets, each in a fresh process."""
    pytest.importorskip("resource")
    streets = np.concatenate([image.movedim(0, -1) for image, _ in StreetScenes(8, seed=7)], 1)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    measured = []
    for side in (2500, 10000):
        tiled = np.tile(streets, (-(-side // 360), -(-side // streets.shape[1]), 1))
        Image.fromarray(tiled[:side, :side]).save(tmp_path / f"{side}.png", compress_level=1)
        command = [sys.executable, "-c", PREDICT, f"{side}.png", f"{side}.labels.png"]
        found = subprocess.check_output(command, cwd=tmp_path, env=environment)
        measured.append(json.loads(found))
        with Image.open(tmp_path / f"{side}.labels.png") as labels:
            assert labels.size == (side, side)
    small, large = measured
    assert small["classes"] == large["classes"] == 11
    assert large["peak_gib"] < 4
    # Proportional to the area: 16 times, a little less as windows at the edges overlap more.
    assert 10 < large["cpu_seconds"] / small["cpu_seconds"] < 22
