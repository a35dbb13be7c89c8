"""The page on deployment: its examples run, without this package where it says so."""

import sys

import numpy as np
import pytest
import torch
from documents import snippets
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
)


def test_examples_run(exported, small, repository, tmp_path, monkeypatch):
    faster, without, with_it = snippets(repository / "docs" / "deployment.md")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    with Image.open(repository / "docs" / "sample.jpg") as picture:
        picture.reduce(4).save("docs/sample.jpg")
    (tmp_path / "street.onnx").symlink_to(exported(".onnx", True).path)
    exec(compile(faster, "snippet", "exec"), {})
    lines = [line for line in without.splitlines() if line and "import" not in line]
    assert len(lines) <= 10
    with monkeypatch.context() as patch:
        for name in ("ccnet", "torch"):
            patch.setitem(sys.modules, name, None)
        exec(compile(without, "snippet", "exec"), {})
    expected = small.predict("docs/sample.jpg", fit=None)
    with Image.open("labels.png") as drawn:
        assert (np.asarray(drawn) == expected.labels.numpy()).mean() > 0.999
        assert drawn.getpalette()[:33] == small.label_set.palette[:33]
    exec(compile(with_it, "snippet", "exec"), {})
    with Image.open("overlay.png") as overlay:
        assert overlay.size == (120, 90)
