"""ONNX files: written by PyTorch's exporter, run by onnxruntime, in integers by OpenVINO."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ccnet.console import require_extra
from ccnet.deployment.exported.contract import AXES, INPUT, KEY, LABELS, Contract
from ccnet.deployment.exported.formats.onnx_metadata import check_seal, read_metadata, seal
from ccnet.deployment.exported.formats.openvino_runtime import open_with_openvino
from ccnet.schema import reason_of

OPSET = 18
"""Version of ONNX's operators: the lowest that PyTorch writes, so that the most runtimes run it."""

PRODUCER = "ccnet"

Run = Callable[[Tensor], Tensor]


def write_onnx(exported: ExportedProgram, path: Path, contract: Contract) -> None:
    """Writes a traced program as one file.

    Raises:
        ValueError: if packages are missing, or the exporter cannot write the program.
    """
    require_extra("export", ("onnx", "onnxscript", "onnxruntime"))
    axes = (0, 1, 2) if contract.output == LABELS else (0, 2, 3)
    names = {
        axis: name
        for axis, name, (low, high) in zip(axes, AXES, contract.sizes, strict=True)
        if low < high
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[contract.output],
                dynamic_shapes={INPUT: names},
                verbose=False,
            )
    except Exception as error:
        raise ValueError(f"PyTorch cannot write this as ONNX: {reason_of(error)}") from error
    network = program.model
    network.producer_name = PRODUCER
    network.metadata_props[KEY] = contract.to_text()
    for part in (network.graph, *network.functions.values()):
        for node in part:
            node.metadata_props.clear()  # paths of files on this machine
    program.save(str(path), external_data=False)
    seal(path)


def has_openvino() -> bool:
    """Whether OpenVINO is there, which runs files in 8-bit integers fast."""
    return find_spec("openvino") is not None


def open_onnx(path: Path) -> tuple[Run, Contract]:
    """Opens a file; returns what runs it, in any number of threads at once, and its contract.

    Raises:
        ValueError: if it is none of this package, or changed since; if onnxruntime is missing or
            cannot load it.
    """
    text = read_metadata(path).get(KEY)
    if text is not None:
        check_seal(path)
    contract = Contract.from_text(text)
    is_fast = contract.is_in_integers and has_openvino()
    return (open_with_openvino if is_fast else open_with_onnxruntime)(path), contract


def open_with_onnxruntime(path: Path) -> Run:
    """Opens an ONNX file of one input and one output, on the CPU.

    Raises:
        ValueError: if onnxruntime is missing or cannot load the file.
    """
    require_extra("export", ("onnxruntime",))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"onnxruntime cannot load it: {reason_of(error)}") from error

    def run(batch: Tensor) -> Tensor:
        (output,) = session.run(None, {INPUT: batch.cpu().numpy()})
        return torch.from_numpy(output)

    return run
