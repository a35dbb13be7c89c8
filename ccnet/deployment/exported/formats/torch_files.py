"""Files of PyTorch, .pt2: programs, and packages of machine code compiled from them."""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ccnet.deployment.exported.contract import KEY, Contract
from ccnet.schema import reason_of

Run = Callable[[Tensor], Tensor]

_FILE = f"{KEY}.json"
"""The extra file in a program that holds the contract."""


def write_program(exported: ExportedProgram, path: Path, contract: Contract) -> None:
    """Writes a traced program."""
    content = io.BytesIO()  # the archive would hold the temporary name of a file
    torch.export.save(exported, content, extra_files={_FILE: contract.to_text()})
    path.write_bytes(content.getbuffer())


def open_program(path: Path) -> tuple[Run, Contract]:
    """Opens a program; returns what runs it, and its contract.

    Raises:
        ValueError: if PyTorch cannot load the file, or it is damaged or not of this package.
    """
    _check_archive(path)
    extra = {_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(path, extra_files=extra).module()
    except Exception as error:
        raise ValueError(f"PyTorch cannot load it: {reason_of(error)}") from error
    return _without_gradient(module), Contract.from_text(extra[_FILE] or None)


def write_package(exported: ExportedProgram, path: Path, contract: Contract) -> None:
    """Compiles a traced program for the processor of this machine, with its C++ compiler.

    Raises:
        ValueError: if there is none, or it fails.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ValueError(
            "format aoti needs a C++ compiler, such as g++, or the variable CXX to name one: "
            f"{reason_of(error)}"
        ) from error
    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            aoti_compile_and_package(
                exported,
                package_path=content,
                inductor_configs={"aot_inductor.metadata": {KEY: contract.to_text()}},
            )
    except Exception as error:
        raise ValueError(f"PyTorch cannot compile this: {reason_of(error)}") from error
    path.write_bytes(content.getbuffer())


def open_package(path: Path) -> tuple[Run, Contract]:
    """Opens a package: its code runs in this process. Returns what runs it, and its contract.

    Raises:
        ValueError: if PyTorch cannot load the file, as where the processor is of another kind, or
            it is damaged or not of this package.
    """
    _check_archive(path)
    from torch._inductor import aoti_load_package

    try:
        package: Any = aoti_load_package(os.fspath(path))
        text = package.loader.get_metadata().get(KEY)
    except Exception as error:
        raise ValueError(f"PyTorch cannot load it: {reason_of(error)}") from error
    return _without_gradient(package), Contract.from_text(text)


def is_package(names: Iterable[str]) -> bool:
    """Tells whether an archive of files with these names holds machine code."""
    return any("/aotinductor/" in name for name in names)


def _check_archive(path: Path) -> None:
    """Checks the sums of an archive, which PyTorch does not.

    Raises:
        ValueError: if one is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
    except Exception as error:
        raise ValueError(f"it is damaged: {reason_of(error)}") from error
    if name is not None:
        raise ValueError(f"it is damaged: {name} in it has changed")


def _without_gradient(call: Callable[[Tensor], Tensor]) -> Run:
    @torch.no_grad()
    def run(batch: Tensor) -> Tensor:
        return call(batch)

    return run
