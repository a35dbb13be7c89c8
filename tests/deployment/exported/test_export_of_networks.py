"""Exports of the three networks, and what takes minutes."""

import pytest
import torch
from families import DEFINITIONS, random_state

import ccnet
from ccnet.commands.export import main
from ccnet.norm import convert_inplace_abn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
    ),
]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet101"])
def test_networks_agree_with_their_files(make_model, backbone, suffix, tmp_path):
    results = ccnet.export_network(make_model(19, backbone=backbone), tmp_path / f"model{suffix}")
    assert all(result.difference <= 1e-4 and result.equal > 0.999 for result in results)


@pytest.mark.parametrize(
    "config",
    [
        {"backbone_options": {"output_stride": 32}},
        {"align_corners": False, "backbone_options": {"ceil_mode": False}},
        {"in_channels": 4, "recurrence": 0},
        {"in_channels": 1, "recurrence": 3},
        {"backbone": "timm:resnet10t"},
    ],
)
@pytest.mark.parametrize("with_preprocessing", [False, True])
def test_other_networks_are_exported_too(make_model, config, with_preprocessing, tmp_path):
    if "backbone" in config:
        pytest.importorskip("timm")
    path, network = tmp_path / "model.onnx", make_model(**config)
    ccnet.export_network(network, path, with_preprocessing=with_preprocessing)
    image = torch.randint(0, 256, (network.preprocessing.channels, 50, 61), dtype=torch.uint8)
    expected = network.predict(image, fit=None).labels
    found = ccnet.load_exported(path).predict(image, fit=None).labels
    assert (found == expected).float().mean() > 0.999


def test_in_place_norms_and_training_mode_stay(make_model, tmp_path):
    slope = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}
    network = convert_inplace_abn(make_model(**slope)).train()
    ccnet.export_network(network, tmp_path / "model.pt2")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_exported(small, dtype, tmp_path):
    path = tmp_path / "model.pt2"
    ccnet.export_network(small, path, dtype=dtype)
    assert path.stat().st_size < 0.6 * sum(p.nbytes for p in small.parameters())
    assert next(small.parameters()).dtype == torch.float32


def test_compiled_package_runs(small, tmp_path):
    path = tmp_path / "model.pt2"
    ccnet.export_network(small, path, format="aoti")
    opened = ccnet.load_exported(path, trusted=True)
    image = torch.randint(0, 256, (3, 50, 61), dtype=torch.uint8)
    assert (opened.predict(image).labels == small.predict(image).labels).float().mean() > 0.999
    assert opened.contract.label_set == small.label_set


def test_command_exports_a_converted_checkpoint(tmp_path, capsys):
    checkpoint, path = tmp_path / "authors.pth", tmp_path / "model.onnx"
    torch.save(random_state(DEFINITIONS["authors"], "resnet18"), checkpoint)
    main(["--weights", str(checkpoint), "--with-preprocessing", "--output", str(path)])
    assert capsys.readouterr().out.count("100.00% of labels equal") == 6
    assert len(ccnet.load_exported(path).label_set) == 19
