"""`--optimize`: the same results, faster, and of which network they are is told."""

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet import precision


@pytest.fixture
def is_fast_in_half(monkeypatch):
    monkeypatch.setattr(precision, "_slowdown", lambda *arguments: 0.5)


def labels_of(folder):
    return np.asarray(Image.open(folder / "a.labels.png"))


def test_pictures_are_segmented_in_the_fastest_precision(predict, draw, tmp_path, is_fast_in_half):
    picture = draw(tmp_path / "pictures" / "a.png", size=(17, 25))
    assert predict(picture, "--output", "plain")[0] == 0
    status, out, _ = predict(picture, "--output", "optimised", "--optimize")
    assert status == 0
    assert out.startswith("network optimised for inference, in bfloat16\n")
    assert (labels_of(tmp_path / "plain") == labels_of(tmp_path / "optimised")).mean() > 0.9
    told = predict(picture, "--output", "optimised", "--precision", "bfloat16")[1]
    assert "have results of other weights or options" in told
    told = predict(picture, "--output", "plain", "--optimize", "--precision", "float32")[1]
    assert "have results of other weights or options" in told


def test_reports_tell_that_the_network_was_optimised(
    load_script, weights_file, draw, tmp_path, monkeypatch, is_fast_in_half
):
    script, reports = load_script("evaluate"), []
    monkeypatch.setattr(script, "save_report", lambda report, *arguments: reports.append(report))
    draw(tmp_path / "val" / "a.png", size=(17, 25))
    (tmp_path / "valannot").mkdir()
    Image.new("L", (25, 17), 3).save(tmp_path / "valannot" / "a.png")
    arguments = ["camvid", "--root", tmp_path, "--device", "cpu", "--weights", weights_file]
    arguments += ["--report", tmp_path / "report", "--optimize"]
    script.main(list(map(str, arguments)))
    (report,) = reports
    assert report.protocol.precision == "bfloat16"
    assert report.environment["network"] == "optimised for inference"


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_published_protocols_keep_their_precision(
    load_script, make_model, draw, tmp_path, monkeypatch, is_fast_in_half, is_confirmed
):
    script, protocols = load_script("evaluate"), []
    trained = make_model(11, label_set="camvid", aux_channels=0)
    monkeypatch.setattr(script.Candidate, "load", lambda *arguments: trained)
    monkeypatch.setattr(script.Data, "misfit", lambda *arguments: "")

    def measure(model, candidate, data, protocol, label_ids):
        assert model.dtype == torch.float32
        protocols.append(protocol)
        raise ValueError("measured")

    monkeypatch.setattr(script, "measure", measure)
    draw(tmp_path / "val" / "a.png", size=(17, 25))
    (tmp_path / "valannot").mkdir()
    Image.new("L", (25, 17), 3).save(tmp_path / "valannot" / "a.png")
    arguments = ["camvid", "--root", tmp_path, "--device", "cpu", "--optimize"]
    arguments += ["--confirm"] if is_confirmed else []
    with pytest.raises(SystemExit, match="error: measured"):
        script.main(list(map(str, arguments)))
    assert [protocol.precision for protocol in protocols] == ["float32"]
