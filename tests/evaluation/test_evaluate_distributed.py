"""One rank and three ranks evaluate the same images, each once."""

import json

import numpy as np
import pytest
from forked_python import TORCHRUN
from PIL import Image

from ccnet.classes import CAMVID
from ccnet.datasets import StreetScenes

WORKER = """
import json, runpy, sys
from pathlib import Path
import torch
from ccnet.distributed import all_gather, process_group, rank
from ccnet.evaluation import evaluate
from ccnet.zoo import ccnet_resnet18

class Noise:
    def __init__(self, length):
        self.length = length
    def __len__(self):
        return self.length
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        shape = (33 + index % 3, 49)
        labels = torch.randint(0, 12, shape, generator=generator)
        labels[labels == 11] = 255
        return (torch.randint(0, 256, (3, *shape), generator=generator).to(torch.uint8),
                labels.to(torch.uint8))

_, script, weights, *rest = sys.argv
sys.argv[1:] = [*rest, "--weights", weights]
model = ccnet_resnet18(weights=weights)
with process_group("cpu"):
    found = {}
    for length in (1, 2, 4, 6):
        seen = []
        scores = evaluate(model, Noise(length), each=lambda index, *_: seen.append(index))
        found[length] = {"confusion": scores.confusion.tolist(), "seen": all_gather(seen)}
    Path(f"rank-{rank()}.json").write_text(json.dumps(found))
    runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def runs(repository, run_forked, weights_file, tmp_path_factory):
    """The folder and the output of a run on three ranks, and of the same on one."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    for index, (image, labels) in enumerate(StreetScenes(4, size=(40, 56))):
        for name, array in (("val", image.movedim(0, -1)), ("valannot", labels)):
            (folder / "camvid" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.numpy()).save(folder / "camvid" / name / f"{index}.png")
    arguments = [folder / "worker.py", repository / "scripts" / "evaluate.py", weights_file]
    arguments += ["camvid", "--root", "../camvid", "--device", "cpu"]
    arguments += ["--report", "report", "--save-label-ids", "label-ids"]
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node", 3]
    outputs = []
    for name, launcher in (("three", torchrun), ("one", [])):
        (folder / name).mkdir()
        result = run_forked(*launcher, *arguments, cwd=folder / name, OMP_NUM_THREADS="1")
        outputs.append((folder / name, result.stdout))
    return outputs


@pytest.mark.parametrize("length", [1, 2, 4, 6])
def test_three_ranks_evaluate_every_image_once(runs, length):
    (three, _), (one, _) = runs
    alone = json.loads((one / "rank-0.json").read_text())[str(length)]
    assert sum(map(sum, alone["confusion"])) > 33 * 49 * length * 0.85
    assert alone["seen"] == [list(range(length))]
    for rank in range(3):
        found = json.loads((three / f"rank-{rank}.json").read_text())[str(length)]
        assert found["confusion"] == alone["confusion"]
        assert found["seen"] == [list(range(first, length, 3)) for first in range(3)]


def test_three_ranks_print_report_and_save_the_same_as_one(runs):
    (three, printed), (one, printed_alone) = runs
    assert printed == printed_alone
    assert printed.count("mean (mIoU)") == 1
    names = {"report.md", "report.json", "iou.png", "confusion.png", "worst.png"}
    assert {path.name for path in (three / "report").iterdir()} == names
    report = json.loads((three / "report" / "report.json").read_text())
    assert report == json.loads((one / "report" / "report.json").read_text())
    assert [image["name"] for image in report["images"]] == ["0", "1", "2", "3"]
    assert sum(map(sum, report["confusion"])) == 4 * 40 * 56
    saved = sorted(path.name for path in (three / "label-ids").iterdir())
    assert saved == [f"{index}.png" for index in range(4)]
    for name in saved:
        maps = [np.array(Image.open(folder / "label-ids" / name)) for folder in (three, one)]
        assert np.array_equal(*maps)
        assert maps[0].max() < len(CAMVID)
