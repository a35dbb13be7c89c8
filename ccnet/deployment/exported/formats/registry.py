"""Formats of exported files: what writes and opens each, and of which format a file is."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ccnet.deployment.exported.contract import Contract
from ccnet.deployment.exported.formats.onnx_files import open_onnx, write_onnx
from ccnet.deployment.exported.formats.torch_files import (
    is_package,
    open_package,
    open_program,
    write_package,
    write_program,
)
from ccnet.files import irregularity
from ccnet.schema import reason_of
from ccnet.weights.file_kinds import foreign_kind, is_safetensors

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: of the files' names.
        since: the first version of PyTorch whose exporter writes it.
        runs_code: whether to open a file can run code that is in it.
        write: writes a traced program with its contract to a path.
        open: gives what runs a file, and its contract.
    """

    suffix: str
    since: tuple[int, int]
    runs_code: bool
    write: Callable[[ExportedProgram, Path, Contract], None]
    open: Callable[[Path], tuple[Run, Contract]]


FORMATS = {
    "onnx": Format(".onnx", (2, 8), False, write_onnx, open_onnx),
    "torch": Format(".pt2", (2, 7), True, write_program, open_program),
    "aoti": Format(".pt2", (2, 7), True, write_package, open_package),
}
"""ONNX; programs of torch.export; packages that AOTInductor compiles from these."""


def check_version(name: str) -> None:
    """Checks that this PyTorch writes a format.

    Raises:
        ValueError: if it is too old.
    """
    since = FORMATS[name].since
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < since:
        needed = ".".join(map(str, since))
        raise ValueError(
            f"to export as {name} takes PyTorch {needed} or newer, and this is {torch.__version__}"
        )


def format_of(path: Path) -> Format:
    """Tells the format of a file by its content.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is none of these.
    """
    if not path.exists():
        raise FileNotFoundError(f"no exported file at {path}")
    if fault := irregularity(path):
        raise ValueError(f"{path} is no exported file: {fault}")
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:
            raise ValueError(f"{path} is damaged: {reason_of(error)}") from error
        if any(name.endswith("data.pkl") for name in names):
            raise ValueError(f"{path} is a checkpoint of PyTorch, no exported file: {_ADVICE}")
        return FORMATS["aoti" if is_package(names) else "torch"]
    if is_safetensors(path):
        raise ValueError(f"{path} holds weights, it is no exported file: {_ADVICE}")
    kind = foreign_kind(path)
    if kind not in (None, "an ONNX network"):
        raise ValueError(f"{path} is no exported file: it is {kind}")
    return FORMATS["onnx"]


_ADVICE = "ccnet export --weights PATH --output model.onnx makes one of it"


def open_file(path: Path, form: Format) -> tuple[Run, Contract]:
    """Opens an exported file.

    Raises:
        ValueError: if it is damaged, or not of this package.
    """
    try:
        return form.open(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
