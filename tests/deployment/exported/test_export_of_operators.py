"""The operator alone as ONNX, in two and three dimensions, for any size."""

import pytest
import torch

from ccnet import CrissCrossAttention2d, CrissCrossAttention3d

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
    ),
    pytest.mark.filterwarnings("ignore"),  # the exporter's own
]


@pytest.mark.parametrize(
    ("kind", "traced", "others"),
    [
        (CrissCrossAttention2d, (2, 5, 6), [(1, 7, 4), (3, 3, 8)]),
        (CrissCrossAttention3d, (2, 4, 5, 6), [(1, 3, 7, 4), (3, 5, 2, 9)]),
    ],
)
def test_module_computes_the_same_at_other_sizes(kind, traced, others, tmp_path):
    module = kind(8, reduction=2).eval()
    torch.nn.init.constant_(module.gamma, 0.7)
    batch = torch.randn(traced[0], 8, *traced[1:])
    axes = dict.fromkeys((0, *range(2, batch.dim())), torch.export.Dim.DYNAMIC)
    path = tmp_path / "module.onnx"
    program = torch.onnx.export(
        module, (batch,), dynamo=True, dynamic_shapes=(axes,), verbose=False
    )
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path)
    (taken,) = session.get_inputs()
    for count, *size in others:
        batch = torch.randn(count, 8, *size)
        (found,) = session.run(None, {taken.name: batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), module(batch).detach())
