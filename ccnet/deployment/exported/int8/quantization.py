"""Quantisation: ONNX files whose convolutions compute in 8-bit integers, calibrated on pictures."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ccnet.console import require_extra
from ccnet.deployment.exported.formats.onnx_metadata import SEAL, seal
from ccnet.schema import reason_of

IN_FLOAT = (".cca.", ".classifier.")
"""What the names of weights contain that stay in floating point, and so do their convolutions.

Energies of the attention and logits of the classes are compared with each other: what counts is
small differences of theirs. These convolutions take a few hundredths of the time.
"""

_PASSING = frozenset(("Add", "Concat", "LeakyRelu", "MaxPool", "Pad", "Relu"))
"""Operators that compute in integers what comes from convolutions that do."""

_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""The entry of a file's metadata by which onnxruntime knows that nothing is left to fold."""


def quantize(source: Path, target: Path, batches: Iterable[Tensor]) -> None:
    """Makes of an ONNX file in float32 one of a quarter of its size, computed in integers.

    Weights become int8, with a scale for each output channel; what flows between convolutions
    becomes uint8, with a scale and a zero for each tensor, from its smallest and largest value in
    all batches. Operators stand between ONNX's own QuantizeLinear and DequantizeLinear, so that all
    runtimes can run the file; how fast, is up to them. Input, output and metadata stay; a
    file that was sealed is so again.

    Args:
        source: an ONNX file of one input, its norms folded, as PyTorch's exporter leaves them.
        target: of the new file; may be `source`.
        batches: what the file takes, of pictures like those that it will see. Each is run once.

    Raises:
        ValueError: if packages are missing, there is no batch, or the file has no convolution or
            cannot be run.
    """
    require_extra("int8", ("onnx", "onnxruntime"))
    import onnx
    from onnxruntime import quantization

    network = onnx.load(source)
    metadata = {entry.key: entry.value for entry in network.metadata_props}
    is_sealed = metadata.pop(SEAL, None) is not None
    names = quantized_nodes(network.graph)
    if not names:
        raise ValueError(f"{source} has no convolution to quantise")
    onnx.helper.set_model_props(network, dict([_PREPARED]))
    try:
        # Ranges of the attention, which are not used, are infinite.
        with np.errstate(invalid="ignore"):
            quantization.quantize_static(
                network,
                target,
                _Reader(network.graph.input[0].name, batches),
                nodes_to_quantize=names,
                op_types_to_quantize=["Conv", *sorted(_PASSING)],
                quant_format=quantization.QuantFormat.QDQ,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"onnxruntime cannot quantise it: {reason_of(error)}") from error
    quantized = onnx.load(target)
    quantized.producer_name = network.producer_name
    onnx.helper.set_model_props(quantized, metadata)
    onnx.save(quantized, target)
    if is_sealed:
        seal(target)


def quantized_nodes(graph: Any) -> list[str]:
    """Returns the names of the nodes of an ONNX graph that compute in integers.

    They are the convolutions but those `IN_FLOAT`, and what has its inputs from them alone.
    """
    constants = {tensor.name for tensor in graph.initializer}
    integers: set[str] = set()
    names = []
    for node in graph.node:  # in the order of their computation
        if node.op_type == "Conv":
            is_chosen = not any(part in name for name in node.input for part in IN_FLOAT)
        else:
            is_chosen = node.op_type in _PASSING and integers.issuperset(
                name for name in node.input if name not in constants
            )
        if is_chosen:
            integers.update(node.output)
            names.append(node.name)
    return names


class _Reader:
    """Batches, as onnxruntime asks for them."""

    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        remaining = iter(batches)
        first = next(remaining, None)
        if first is None:
            raise ValueError("there is no picture to calibrate on")
        self.name, self.batches = name, chain([first], remaining)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next batch under the name of the input; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.cpu().numpy()}
