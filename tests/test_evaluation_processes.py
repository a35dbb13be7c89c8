"""One process and three count the same pixels, each once."""

import json

import numpy as np
import pytest
from PIL import Image

from ccnet.classes import CAMVID
from ccnet.street_scenes import StreetScenes

WORKER = """
import json, runpy, sys
from pathlib import Path
import torch
from ccnet.evaluation import evaluate
from ccnet.processes import gather, joined, rank_and_count
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
with joined("cpu"):
    found = {}
    for length in (1, 2, 4, 6):
        seen = []
        scores = evaluate(model, Noise(length), each=lambda index, *_: seen.append(index))
        found[length] = {"confusion": scores.confusion.tolist(), "seen": gather(seen)}
    rank, _ = rank_and_count()
    Path(f"process-{rank}.json").write_text(json.dumps(found))
    runpy.run_path(script, run_name="__main__")
"""

LENGTHS = ["1", "2", "4", "6"]


@pytest.fixture(scope="module")
def runs(repository, run_python, weights_file, tmp_path_factory):
    """The folders and outputs of three processes, and of a lone one, that did the same."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "worker.py").write_text(WORKER)
    for index, (image, labels) in enumerate(StreetScenes(4, size=(40, 56))):
        for name, array in (("val", image.movedim(0, -1)), ("valannot", labels)):
            (folder / "camvid" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.numpy()).save(folder / "camvid" / name / f"{index}.png")
    arguments = ["../worker.py", repository / "scripts" / "evaluate.py", weights_file]
    arguments += ["camvid", "--root", "../camvid", "--device", "cpu"]
    arguments += ["--report", "report", "--save-label-ids", "label-ids"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 3]
    outputs = []
    for name, launcher in (("three", torchrun), ("one", [])):
        (folder / name).mkdir()
        result = run_python(*launcher, *arguments, cwd=folder / name, OMP_NUM_THREADS="1")
        outputs.append((folder / name, result.stdout))
    return outputs


@pytest.fixture(scope="module")
def found(runs):
    """What each of three processes found, and what the lone one did."""
    (three, _), (one, _) = runs
    together = [json.loads((three / f"process-{rank}.json").read_text()) for rank in range(3)]
    return together, json.loads((one / "process-0.json").read_text())


@pytest.mark.parametrize("length", LENGTHS)
def test_three_processes_count_what_one_does(found, length):
    three, one = found
    assert sum(map(sum, one[length]["confusion"])) > 33 * 49 * int(length) * 0.85
    for each in three:
        assert each[length]["confusion"] == one[length]["confusion"]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_image_is_the_work_of_one_process(found, length):
    three, one = found
    assert one[length]["seen"] == [list(range(int(length)))]
    expected = [list(range(rank, int(length), 3)) for rank in range(3)]
    assert all(each[length]["seen"] == expected for each in three)


def test_three_processes_print_and_report_what_one_does(runs):
    (three, printed), (one, printed_alone) = runs
    assert printed == printed_alone
    assert printed.count("mean (mIoU)") == 1
    names = {"report.md", "report.json", "iou.png", "confusion.png", "worst.png"}
    assert {path.name for path in (three / "report").iterdir()} == names
    report = json.loads((three / "report" / "report.json").read_text())
    assert report == json.loads((one / "report" / "report.json").read_text())
    assert [image["name"] for image in report["images"]] == ["0", "1", "2", "3"]
    assert sum(map(sum, report["confusion"])) == 4 * 40 * 56


def test_three_processes_write_the_labels_of_every_image(runs):
    (three, _), (one, _) = runs
    written = sorted(path.name for path in (three / "label-ids").iterdir())
    assert written == [f"{index}.png" for index in range(4)]
    for name in written:
        maps = [np.array(Image.open(folder / "label-ids" / name)) for folder in (three, one)]
        assert np.array_equal(*maps)
        assert maps[0].max() < len(CAMVID)
