"""ONNX files run by OpenVINO, which computes quantised ones in integers."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.console import require_extra
from ccnet.schema import reason_of


def open_with_openvino(path: Path) -> Callable[[Tensor], Tensor]:
    """Opens an ONNX file of one input and one output, on the CPU.

    What is not quantised computes in float32.

    Args:
        path: of the file.

    Returns:
        What runs it, in any number of threads at once.

    Raises:
        ValueError: if OpenVINO is missing or cannot load the file.
    """
    require_extra("int8", ("openvino",))
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(path), "CPU", options)
    except Exception as error:
        raise ValueError(f"OpenVINO cannot load it: {reason_of(error)}") from error
    own = threading.local()

    def run(batch: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        request: Any = own.request
        request.infer([batch.cpu().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor().data.copy())

    return run
