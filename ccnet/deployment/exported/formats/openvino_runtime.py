"""ONNX files run by OpenVINO, which computes quantised ones in integers."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.console import require_extra
from ccnet.schema import reason_of

_one_at_a_time = threading.Lock()


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
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        with _one_at_a_time:
            core = _core()
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


@functools.cache
def _core() -> Any:
    """The process's only core, which stays until its end.

    On CPUs with AMX a core brings the stack on which its thread handles signals, and at its end
    gives back the one before: of cores that end in the order in which they were made, the last one
    gives back memory that is gone, and the next signal that Python handles ends the process.
    """
    import openvino

    return openvino.Core()
