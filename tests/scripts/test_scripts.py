"""Command lines as a user runs them."""

import json
import re

import numpy as np
from PIL import Image

from ccnet.classes import CAMVID

WITHOUT_EXTRAS = """
import runpy, sys
for name in ("matplotlib", "tensorboard"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_renders_a_street_without_extras(repository, run_python, tmp_path):
    script = repository / "scripts" / "predict.py"
    result = run_python("-c", WITHOUT_EXTRAS, script, "--output", "out", cwd=tmp_path)
    assert result.stderr == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "rendered-street.png",
        "rendered-street.overlay.png",
        "rendered-street.labels.png",
    }
    scores = re.search(r"pixel accuracy ([\d.]+) %, mIoU ([\d.]+) %", result.stdout)
    accuracy, miou = map(float, scores.groups())
    assert accuracy >= 80
    assert miou >= 50
    for name in ("road", "building", "sky"):
        assert re.search(rf"^  {name} +\d", result.stdout, re.MULTILINE)


def test_train_then_resume_then_evaluate(repository, run_forked, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder, shape, high in ((split, (40, 56, 3), 256), (f"{split}annot", (40, 56), 12)):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
            for name in ("a.png", "b.png"):
                array = rng.integers(0, high, shape, np.uint8)
                Image.fromarray(array).save(tmp_path / "camvid" / folder / name)
    train = [repository / "scripts" / "train.py", "camvid-r18", "--root", "camvid"]
    train += ["--run-dir", "run", "--steps", 1, "--batch-size", 2, "--scenes", 0, "--device", "cpu"]
    train += ["--crop-height", 33, "--crop-width", 49, "--output-stride", 32, "--workers", 0]
    train += ["--no-balance-classes", "--precision", "float32"]
    trained = run_forked(*train, cwd=tmp_path)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["steps"], recipe["crop_width"], recipe["balance_classes"]) == (1, 49, False)
    assert "crops of 49x33" in trained.stderr
    refused = run_forked(*train, "--resume", "--learning-rate", 1, cwd=tmp_path, succeeds=False)
    assert "learning_rate 0.0015, not 1.0" in refused.stderr
    evaluate = [repository / "scripts" / "evaluate.py", "camvid", "--device", "cpu"]
    evaluate += ["--weights", "run/best.safetensors"]
    found = run_forked(*evaluate, cwd=tmp_path, CAMVID_ROOT="camvid")
    mious = [
        float(re.search(r"\*\*mean \(mIoU\)\*\* \| \*\*([\d.]+)\*\*", run.stdout)[1])
        for run in (trained, found)
    ]
    assert mious[0] == mious[1]
    assert all(f"| {name} | " in found.stdout for name in CAMVID.categories)
    assert re.search(r"^pixel accuracy \d+\.\d\d %$", found.stdout, re.MULTILINE)
