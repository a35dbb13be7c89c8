"""Export: a network as one file for other programs, compared with the network before it is kept."""

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ccnet import __version__
from ccnet.console import require_extra
from ccnet.deployment.exported.comparison import (
    Comparison,
    compare,
    compare_labels,
    sizes_to_compare,
)
from ccnet.deployment.exported.contract import ANY_SIZE, INT8, LABELS, LOGITS, Contract
from ccnet.deployment.exported.formats import FORMATS, check_version
from ccnet.deployment.exported.int8.calibration import (
    calibration_batches,
    calibration_pictures,
    decoded,
)
from ccnet.deployment.exported.int8.quantization import quantize
from ccnet.deployment.exported.programs import program_of, trace
from ccnet.deployment.optimized.network import OptimizedCCNet
from ccnet.files import atomic_write, irregularity, user_path
from ccnet.inference.footprint import count_footprint
from ccnet.inference.replica import evaluation_replica
from ccnet.model import CCNet
from ccnet.options import named_options
from ccnet.schema import check, flag, integer, one_of, several
from ccnet.weights.serialization import fingerprint

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}

COMPARED = 16
"""The number of pictures at most on which labels in integers are compared."""

_RUNTIMES = 1.5
"""How many times the numbers of the plain network runtimes hold: so measured for onnxruntime."""

_RULES = {
    "with_preprocessing": flag(),
    "dtype": one_of(*DTYPES).or_none(),
    "size": several(2, 2, integer(1, 2**15)).or_none(),
}


@named_options()
@torch.inference_mode(False)
def export_network(
    model: CCNet,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - as on the command line
    with_preprocessing: bool = False,
    dtype: str | None = None,
    size: Sequence[int] | None = None,
    int8: str | os.PathLike[str] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Comparison]:
    """Exports a network as one file, which takes pictures of any size, in batches of any size.

    The file is read back and compared with the network on sizes that it was not traced at.
    It is kept, in place of one that may be at `path`, if they agree: logits to 1e-4 of the largest,
    labels of 99.9 % of the pixels; less in half precision. The network stays as it is.

    Its metadata say all that one needs to use it, see `contract.Contract.to_text`: in an ONNX file
    the entry "ccnet", in a program of PyTorch the extra file "ccnet.json", in a compiled package
    the entry "ccnet" of its metadata.

    Args:
        model: on any device; the file computes on the CPU, or where its runtime puts it.
        path: of the file, ending in .onnx or .pt2.
        format: "onnx", by onnxruntime and others; "torch", a program of `torch.export`; "aoti", a
            package of machine code that AOTInductor compiles from it for the processor of this
            machine, which takes minutes. None for the first that the name of the file fits.
        with_preprocessing: take pictures (N, H, W, C), uint8, and give labels (N, H, W), uint8,
            those of `predict(image, fit=None)`; else take what `model.transforms()` gives, and give
            logits (N, K, H, W), float32.
        dtype: of the weights, and of what is computed: "float32", "float16" or "bfloat16"; None for
            that of the network.
        size: height and width of all pictures, in pixels, for networks or runtimes that need one
            size; None for any from 33 to 8192.
        int8: a folder of pictures like those that the file will see, of which 64 at most are read:
            the convolutions of an ONNX file compute in 8-bit integers, whose ranges are those of
            these pictures, see `quantization.quantize`. The file is compared before that; after it,
            the labels of these pictures are. None for floating point.
        tell: called with a line of text at the beginning of each step.

    Returns:
        How file and network agree, for each of these sizes; in integers, also on some of the
        pictures.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if an option is wrong, a package, a compiler or a newer PyTorch is missing, or
            file and network do not agree.
    """
    if isinstance(model, OptimizedCCNet):
        raise ValueError(
            "a network from optimize_for_inference cannot be exported, as runtimes optimise for "
            "themselves: export the network that it was made of"
        )
    options = {"with_preprocessing": with_preprocessing, "dtype": dtype, "size": size}
    check(options, _RULES)
    target = user_path(path)
    name = _format_name(format, target.suffix)
    check_version(name)
    if fault := irregularity(target):
        raise ValueError(f"{path} cannot be written: {fault}")
    if next(model.parameters()).is_meta:
        raise ValueError("the network has no values (it is on the meta device)")
    pictures = None if int8 is None else _calibration(int8, name, model, dtype)
    network = _on_cpu(model, dtype)
    plain = count_footprint(CCNet, json.dumps(model.config), model.backbone.image_size)
    contract = Contract(
        LABELS if with_preprocessing else LOGITS,
        model.label_set,
        model.preprocessing,
        ANY_SIZE if size is None else (ANY_SIZE[0], (size[0],) * 2, (size[1],) * 2),
        model.training_size,
        _RUNTIMES * plain.numbers,
        _origin(model, network, in_integers=pictures is not None),
    )
    program, form = program_of(network, contract), FORMATS[name]
    precision = next(network.parameters()).dtype
    with atomic_write(target) as temporary:
        tell("tracing")
        exported = trace(program, contract)
        tell(f"writing {name}")
        form.write(exported, temporary, contract)
        del exported
        tell("comparing")
        run, _ = form.open(temporary)
        results = []
        for one in sizes_to_compare(contract):
            results.append(compare(run, program, contract, one, precision))
            tell(f"  {results[-1]}")
        if pictures is not None:
            tell(f"calibrating on {len(pictures)} pictures")
            quantize(temporary, temporary, calibration_batches(pictures, model, contract))
            tell("comparing")
            run, _ = form.open(temporary)
            some = pictures[:: -(-len(pictures) // COMPARED)]
            batches = calibration_batches(some, model, contract)
            results.append(compare_labels(run, program, batches))
            tell(f"  {results[-1]}")
    return results


def _calibration(
    folder: str | os.PathLike[str], name: str, model: CCNet, dtype: str | None
) -> Sequence[Path]:
    """Returns the pictures to calibrate on, all of which can be read."""
    if name != "onnx":
        raise ValueError(f"int8 is for files of format onnx, not {name}")
    given = dtype or str(next(model.parameters()).dtype).removeprefix("torch.")
    if given != "float32":
        raise ValueError(f'int8 is made of a network in float32, not {given}: give dtype "float32"')
    require_extra("int8", ("onnx", "onnxruntime"))
    pictures = calibration_pictures(folder)
    for picture in pictures:
        decoded(model, picture)
    return pictures


def _format_name(name: str | None, suffix: str) -> str:
    fitting = [one for one, form in FORMATS.items() if form.suffix == suffix.lower()]
    suffixes = " or ".join(dict.fromkeys(form.suffix for form in FORMATS.values()))
    if name is None:
        if not fitting:
            raise ValueError(f"the name of the file must end in {suffixes}, not {suffix!r}")
        return fitting[0]
    check({"format": name}, {"format": one_of(*FORMATS)})
    if name not in fitting:
        raise ValueError(
            f"the name of a file of format {name} must end in {FORMATS[name].suffix}, not "
            f"{suffix!r}"
        )
    return name


def _on_cpu(model: CCNet, dtype: str | None) -> nn.Module:
    """Returns a copy in evaluation mode, without gradients and what is for training alone."""
    network = copy.deepcopy(evaluation_replica(model)).requires_grad_(False)
    assert isinstance(network, CCNet)
    network.aux_head = None
    return network.to("cpu", None if dtype is None else DTYPES[dtype])


def _origin(model: CCNet, network: nn.Module, *, in_integers: bool) -> dict[str, Any]:
    dtype = next(network.parameters()).dtype
    details = {name: model.card_details.get(name) for name in ("license", "source", "weights")}
    return {
        "ccnet": __version__,
        "backbone": model.config["backbone"],
        "recurrence": model.config["recurrence"],
        "precision": INT8 if in_integers else str(dtype).removeprefix("torch."),
        "weights_sha256": fingerprint(model.to_weights()),
        **{name: value for name, value in details.items() if value is not None},
    }
