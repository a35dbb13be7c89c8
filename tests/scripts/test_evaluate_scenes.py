"""`scripts/evaluate.py` on ADE20K and Pascal VOC: data, default weights, protocol, confirmation."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_layouts import write_ade20k, write_voc

from ccnet.classes import LABEL_SETS
from ccnet.datasets import ADE20K, PascalVOC
from ccnet.evaluation import evaluate
from ccnet.evaluation.splits import SPLITS, Split
from ccnet.inference import InferenceProtocol
from ccnet.inference.segment import segment
from ccnet.transforms import Preprocessing
from ccnet.weights import CCNet_ResNet101_Weights
from ccnet.zoo import NETWORKS

CASES = {
    "ade20k": (write_ade20k, ADE20K, "ADE20K val", "OPENMMLAB_ADE20K_512X512_80K", 43.97),
    "voc": (write_voc, PascalVOC, "Pascal VOC 2012 val", "OPENMMLAB_VOC12AUG_512X512_40K", 77.87),
}


class Pointwise(torch.nn.Module):
    """In place of a published network: the class of a pixel follows from its color."""

    def __init__(self, name):
        super().__init__()
        self.label_set = LABEL_SETS[name]
        self.conv = torch.nn.Conv2d(3, len(self.label_set), kernel_size=1)

    def forward(self, x):
        return {"out": self.conv(x)}

    def predict(self, image, protocol, memory_limit=None):
        return segment(self, image, Preprocessing(), self.label_set, protocol)


@pytest.fixture(scope="module")
def main(load_script):
    script = load_script("evaluate")
    return lambda *arguments: script.main(["--device", "cpu", *map(str, arguments)])


@pytest.mark.parametrize("name", CASES)
def test_published_figures_are_confirmed(name, main, capsys, tmp_path, monkeypatch):
    write, open_split, title, member, figure = CASES[name]
    names = write(tmp_path, 1)
    model, weights, asked = Pointwise(name), CCNet_ResNet101_Weights[member], []
    monkeypatch.setitem(NETWORKS, "ccnet_resnet101", lambda weights: asked.append(weights) or model)
    monkeypatch.setitem(SPLITS, title, Split(len(names)))
    monkeypatch.setenv({"ade20k": "ADE20K_ROOT", "voc": "VOC_ROOT"}[name], str(tmp_path))
    with pytest.raises(SystemExit, match=f"{member} on {title}: the mIoU differs from"):
        main(name, "--confirm")
    assert asked == [weights]
    protocol = InferenceProtocol(fit=(2048, 512))
    scores = evaluate(model, open_split(tmp_path, "val"), protocol=protocol)
    assert scores.confusion.trace() > 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{weights} on {title}: whole, fit 2048x512, no flip")
    assert scores.table() in printed
    assert f"published mIoU {figure:.2f} % (OpenMMLab)" in printed
    monkeypatch.setitem(weights.meta["metrics"], title, {"mIoU": scores.miou})
    main(name, "--weights", member, "--confirm", "--save-label-ids", tmp_path / "ids")
    assert "difference +0.00" in capsys.readouterr().out
    for index, image in enumerate(names):
        with Image.open(tmp_path / "ids" / f"{image}.png") as file:
            ids = np.array(file)
        labels = model.predict(open_split(tmp_path, "val")[index][0], protocol).labels
        assert np.array_equal(ids, labels + (name == "ade20k"))
    with pytest.raises(SystemExit, match=r"needs the protocol of the published mIoU \(whole, fit"):
        main(name, "--weights", member, "--confirm", "--fit", "1024,512")


def test_folder_that_is_not_given_is_named(main, monkeypatch):
    for name, variable in (("ade20k", "ADE20K_ROOT"), ("voc", "VOC_ROOT")):
        monkeypatch.delenv(variable, raising=False)
        with pytest.raises(SystemExit, match=f"give --root or set the variable {variable}"):
            main(name)
