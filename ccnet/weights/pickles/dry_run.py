"""Dry run of a pickle: which objects it would make, and how large, while nothing is made.

A checkpoint is a program that makes objects. Here each call in it gives an inert stand-in, so that
foreign types, code, and sizes beyond those of the file are known before anything is loaded.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, ClassVar

import torch

from ccnet.schema import check_nesting, parts_of, shown
from ccnet.weights.pickles.calls import (
    CALLS,
    DTYPE,
    STORAGES,
    TOO_LARGE,
    VALUES,
    WITH_ATTRIBUTES,
    Foreign,
    Global,
    Stub,
    check_keys,
    is_count,
)

_EXECUTING = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|runpy|pty|ctypes|importlib|code|webbrowser)\."
    r"|builtins\.(eval|exec|compile|open|__import__)$"
)
"""What no checkpoint has a reason to call."""

_DEEPEST = 100
_MOST = 1_000_000
"""Values that a file may hold where it has fewer bytes."""

_COPIES = 10
"""Bytes that its calls may be given, as a multiple of its size: some of them copy these."""

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class ForeignTypeError(ValueError):
    """A pickle holds more than tensors, NumPy arrays and plain values.

    Attributes:
        names: of the foreign types and functions.
        content: what the pickle holds, with a `Foreign` in the place of each of their objects.
    """

    def __init__(self, names: list[str], content: Any) -> None:
        super().__init__(", ".join(names))
        self.names, self.content = names, content

    @property
    def executes(self) -> bool:
        """Whether one of the names is a function that runs a program or touches files."""
        return any(_EXECUTING.match(name) for name in self.names)


def check_pickle(file: IO[bytes], size: int, storages: Mapping[str, int] | None = None) -> Any:
    """Runs one pickle dry, from the file's position to the pickle's end.

    Args:
        file: at the beginning of a pickle.
        size: of the whole file, in bytes.
        storages: bytes of each storage in the file by its key; None if they are not known.

    Returns:
        What it holds, with a `Stub` in the place of tensors and arrays.

    Raises:
        ForeignTypeError: if it holds other objects; the first to know.
        ValueError: if it declares sizes beyond those of the file.
        Exception: of any type, if it is damaged.
    """
    run = _DryRun(file, size, storages)
    failure: Exception | None = None
    content = None
    try:
        content = run.load()
        check_nesting(content, _DEEPEST, max(size, _MOST), _parts_of)
    except Exception as error:  # a foreign object may be asked for anything
        failure, content = error, None
    if run.foreign:
        raise ForeignTypeError(list(run.foreign), content)
    if failure is not None:
        raise failure
    return content


def _parts_of(value: Any) -> Iterable[Any]:
    return (value.arguments, value.state) if isinstance(value, Stub) else parts_of(value)


_BUILD: Callable[[Any], None] = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class _DryRun(pickle._Unpickler):
    """Interprets a pickle as `torch.load` with weights_only does, but makes only stubs."""

    stack: list[Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes], size: int, storages: Mapping[str, int] | None) -> None:
        super().__init__(file, encoding="latin1")
        self.size, self.storages, self.declared = size, storages, dict[str, int]()
        self.foreign: dict[str, None] = {}
        self.given = 0

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full.startswith("numpy.core."):
            full = full.replace(".core.", "._core.", 1)
        is_dtype = isinstance(getattr(torch, name, None), torch.dtype) and module == "torch"
        if not (is_dtype or full in CALLS or full in STORAGES or full in VALUES):
            return self._refuse(full)
        return Global(full)

    def persistent_load(self, pid: Any) -> Any:
        kind, key, elements = pid[1], str(pid[2]), pid[4]
        if isinstance(kind, Foreign):
            return kind
        width = STORAGES[kind.name]
        if not is_count(elements):
            raise ValueError("a storage in it has no size")
        self.declared[key] = elements * width
        exact = self.storages is None or self.storages.get(key) == elements * width
        if not exact or sum(self.declared.values()) > self.size:
            raise ValueError(TOO_LARGE)
        return Stub("storage", elements=elements)

    def _refuse(self, name: str, arguments: Any = ()) -> Foreign:
        self.foreign.setdefault(name)
        return Foreign(name, arguments)

    def _make(self, function: Any, arguments: Any) -> Any:
        self._charge(arguments)
        name = getattr(function, "name", type(function).__name__)
        if name not in CALLS or isinstance(function, Foreign):
            return self._refuse(name, arguments)
        if name == WITH_ATTRIBUTES:
            return self._make(arguments[0], arguments[2])
        if name == "numpy.dtype" and not DTYPE.fullmatch(str(arguments[0])):
            return self._refuse(f"numpy.dtype({shown(arguments[0])})")
        if any(isinstance(argument, Foreign) for argument in arguments):
            return Foreign(name, arguments)
        made = CALLS[name](*arguments)
        return Stub(name, arguments) if made is None else made

    def _charge(self, arguments: Any) -> None:
        """Counts what a call is given: the same value may be given, and copied, again and again."""
        for argument in arguments if type(arguments) is tuple else ():
            if isinstance(argument, (str, bytes, list, tuple, dict)):
                self.given += len(argument)
        if self.given > _COPIES * self.size:
            raise ValueError(TOO_LARGE)

    def _build(self) -> None:
        self._charge(self.stack[-1])
        _BUILD(self)

    def _protocol(self) -> None:
        protocol = self.read(1)[0]
        self.proto = protocol
        if protocol > 2:
            self._refuse(f"pickle protocol {protocol}")

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._set(items)

    def _set_item(self) -> None:
        items, self.stack[-2:] = self.stack[-2:], []
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_keys([key])
            self.stack[-1][key] = value

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    def _new(self) -> None:
        self._reduce()

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._reduce()

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.PROTO[0]: _protocol,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.NEWOBJ_EX[0]: _new_with_keywords,
    }
    for _refused in (
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.INST, pickle.OBJ),
        *(pickle.NEXT_BUFFER, pickle.PERSID),
    ):
        del dispatch[_refused[0]]
