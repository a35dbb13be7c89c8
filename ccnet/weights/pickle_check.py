"""Dry run of a pickle: which objects it would make, and how large, while nothing is made.

A checkpoint is a program that makes objects. Here each call in it gives an inert stand-in, so that
foreign types, code, and sizes beyond those of the file are known before anything is loaded.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, ClassVar

import numpy as np
import torch

_STORAGES = {
    **{f"torch.{name}": torch.empty(0, dtype=dtype).element_size() for name, dtype in (
        ("DoubleStorage", torch.float64), ("FloatStorage", torch.float32),
        ("HalfStorage", torch.float16), ("BFloat16Storage", torch.bfloat16),
        ("LongStorage", torch.int64), ("IntStorage", torch.int32),
        ("ShortStorage", torch.int16), ("CharStorage", torch.int8),
        ("ByteStorage", torch.uint8), ("BoolStorage", torch.bool),
        ("ComplexDoubleStorage", torch.complex128), ("ComplexFloatStorage", torch.complex64),
    )},
    "torch.storage.UntypedStorage": 1,
}  # fmt: skip
"""Bytes per element of the storages."""

_VALUES = ("torch.Tensor", "torch.nn.parameter.Parameter", "numpy.ndarray")
"""Types that are only passed on."""

_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"

_DTYPE = re.compile(r"(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,5})")
_EXECUTING = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|runpy|pty|ctypes|importlib|code|webbrowser)\."
    r"|builtins\.(eval|exec|compile|open|__import__)$"
)
"""What no checkpoint has a reason to call."""

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_ATTACKED = "a size in it is beyond that of the file"


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


@dataclass(eq=False)
class Stub:
    """Stands for an object that the pickle would make from `arguments`."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    elements: int = 0

    def __setstate__(self, state: Any) -> None:
        if self.name == "numpy.dtype":
            _check_dtype(self.arguments[0], state)
        self.state = state

    def append(self, value: Any) -> None:
        """Takes an item of a list of a foreign type."""

    add = append

    def extend(self, values: Any) -> None:
        """Takes items of a list of a foreign type."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Takes an item of a mapping of a foreign type."""


class Foreign(Stub):
    """Stands for an object of a foreign type."""


class _Mapping(dict[Any, Any]):
    """An ordered dictionary, which may have attributes."""


@dataclass(frozen=True)
class _Global:
    """Stands for a function or type."""

    name: str

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a type in it is given a state")


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
    except Exception as error:  # a foreign object may be asked for anything
        failure = error
    if run.foreign:
        raise ForeignTypeError(list(run.foreign), content)
    if failure is not None:
        raise failure
    return content


class _DryRun(pickle._Unpickler):
    """Interprets a pickle as `torch.load` with weights_only does, but makes only stubs."""

    stack: list[Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes], size: int, storages: Mapping[str, int] | None) -> None:
        super().__init__(file, encoding="latin1")
        self.size, self.storages, self.declared = size, storages, dict[str, int]()
        self.foreign: dict[str, None] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full.startswith("numpy.core."):
            full = full.replace(".core.", "._core.", 1)
        is_dtype = isinstance(getattr(torch, name, None), torch.dtype) and module == "torch"
        if not (is_dtype or full in _CALLS or full in _STORAGES or full in _VALUES):
            return self._refuse(full)
        return _Global(full)

    def persistent_load(self, pid: Any) -> Any:
        kind, key, elements = pid[1], str(pid[2]), pid[4]
        if isinstance(kind, Foreign):
            return kind
        width = _STORAGES[kind.name]
        if not _is_count(elements):
            raise ValueError("a storage in it has no size")
        self.declared[key] = elements * width
        exact = self.storages is None or self.storages.get(key) == elements * width
        if not exact or sum(self.declared.values()) > self.size:
            raise ValueError(_ATTACKED)
        return Stub("storage", elements=elements)

    def _refuse(self, name: str, arguments: Any = ()) -> Foreign:
        self.foreign.setdefault(name)
        return Foreign(name, arguments)

    def _make(self, function: Any, arguments: Any) -> Any:
        name = getattr(function, "name", type(function).__name__)
        if name not in _CALLS or isinstance(function, Foreign):
            return self._refuse(name, arguments)
        if name == _WITH_ATTRIBUTES:
            return self._make(arguments[0], arguments[2])
        if name == "numpy.dtype" and not _DTYPE.fullmatch(str(arguments[0])):
            return self._refuse(f"numpy.dtype({arguments[0]!r})")
        if any(isinstance(argument, Foreign) for argument in arguments):
            return Foreign(name, arguments)
        made = _CALLS[name](*arguments)
        return Stub(name, arguments) if made is None else made

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
        """Sets items of a mapping whose keys are plain: nested ones may take forever to hash."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            parts = key if type(key) is tuple else (key,)
            _check(not any(type(part) is tuple for part in parts))
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


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("a call in it has arguments that no checkpoint has")


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any = None,
    hooks: Any = None,
    dtype: Any = None,
    *_: Any,
) -> None:
    _check(isinstance(storage, Stub) and storage.name == "storage" and _is_count(offset))
    _check(type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides))
    _check(all(map(_is_count, (*shape, *strides))))
    if 0 not in shape:
        last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        width = 1 if dtype is None else getattr(torch, dtype.name.removeprefix("torch.")).itemsize
        if (offset + last + 1) * width > storage.elements:
            raise ValueError(_ATTACKED)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(items: Any = ()) -> dict[Any, Any]:
    _check(type(items) in (list, tuple))
    return _Mapping(items)


def _of(*kinds: type) -> Callable[..., None]:
    """A call whose only argument has one of some plain types."""
    return lambda value: _check(type(value) in kinds)


def _set_of(items: Any) -> None:
    _check(type(items) is list and not any(type(item) is tuple for item in items))


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as pickles of protocol 2 hold them."""
    _check(type(text) is str and encoding == "latin1")
    data: bytes = text.encode("latin1")
    return data


def _complex(real: Any, imaginary: Any) -> None:
    _check(type(real) is float and type(imaginary) is float)


def _device(kind: Any, index: Any = 0) -> None:
    _check(type(kind) is str and _is_count(index))


def _numpy_dtype(code: Any, *_: Any) -> None:
    _check(type(code) is str)


def _bytes() -> bytes:
    """No bytes: others are encoded."""
    return b""


def _check_dtype(code: str, state: Any) -> None:
    """NumPy believes the state, with which a dtype could read anywhere: only its own is taken."""
    _check(type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|"))
    _check(state == np.dtype(code).newbyteorder(state[1]).__reduce__()[2])


def _numpy_scalar(dtype: Any, data: Any) -> None:
    _check(isinstance(dtype, Stub) and dtype.name == "numpy.dtype" and type(data) is bytes)


def _numpy_array(kind: Any, shape: Any, code: Any) -> None:
    """An empty array, which then takes a state: its dtype is checked here, its size by NumPy."""
    _check(kind == _Global("numpy.ndarray") and shape == (0,) and code in (b"b", "b"))


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _of(dict),
    "builtins.set": _set_of,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _encode,
    "torch.Size": _of(tuple),
    "torch.device": _device,
    "torch.torch_version.TorchVersion": _of(str),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    _WITH_ATTRIBUTES: _parameter,
    "numpy.dtype": _numpy_dtype,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray._reconstruct": _numpy_array,
}
"""What a checkpoint may call, each with a check of its arguments; None stands for a stub."""
