"""Calls in a pickle: which a checkpoint may make, and with which arguments.

None of them is made here. Each is checked, and a stub stands for the object that it would give.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

STORAGES = {
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

VALUES = ("torch.Tensor", "torch.nn.parameter.Parameter", "numpy.ndarray")
"""Types that are only passed on."""

WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"

DTYPE = re.compile(r"(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,5})")
TOO_LARGE = "a size in it is beyond that of the file"


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
class Global:
    """Stands for a function or type."""

    name: str

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a type in it is given a state")


def is_count(value: Any) -> bool:
    """Tells whether a value is an integer of 0 or more, and nothing that only looks like one."""
    return type(value) is int and value >= 0


def check(holds: bool) -> None:
    """Raises a ValueError unless an argument is as expected."""
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
    check(isinstance(storage, Stub) and storage.name == "storage" and is_count(offset))
    check(type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides))
    check(all(map(is_count, (*shape, *strides))))
    if 0 not in shape:
        last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        width = 1 if dtype is None else getattr(torch, dtype.name.removeprefix("torch.")).itemsize
        if (offset + last + 1) * width > storage.elements:
            raise ValueError(TOO_LARGE)


def check_keys(keys: Iterable[Any]) -> None:
    """Raises a ValueError if keys of a mapping or set could take forever to hash or to find."""
    for key in keys:
        parts = key if type(key) is tuple else (key,)
        check(not any(type(part) in (tuple, frozenset) for part in parts))
        check(not any(type(part) is int and abs(part) >= sys.hash_info.modulus for part in parts))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(items: Any = ()) -> dict[Any, Any]:
    check(type(items) in (list, tuple))
    check_keys(key for key, _ in items)
    return _Mapping(items)


def _of(*kinds: type) -> Callable[..., None]:
    """A call whose only argument has one of some plain types."""
    return lambda value: check(type(value) in kinds)


def _set_of(items: Any) -> None:
    check(type(items) is list)
    check_keys(items)


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as pickles of protocol 2 hold them."""
    check(type(text) is str and encoding == "latin1")
    data: bytes = text.encode("latin1")
    return data


def _complex(real: Any, imaginary: Any) -> None:
    check(type(real) is float and type(imaginary) is float)


def _device(kind: Any, index: Any = 0) -> None:
    check(type(kind) is str and is_count(index))


def _numpy_dtype(code: Any, *_: Any) -> None:
    check(type(code) is str)


def _bytes() -> bytes:
    """No bytes: others are encoded."""
    return b""


def _check_dtype(code: str, state: Any) -> None:
    """NumPy believes the state, with which a dtype could read anywhere: only its own is taken."""
    check(type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|"))
    check(state == np.dtype(code).newbyteorder(state[1]).__reduce__()[2])


def _numpy_scalar(dtype: Any, data: Any) -> None:
    check(isinstance(dtype, Stub) and dtype.name == "numpy.dtype" and type(data) is bytes)


def _numpy_array(kind: Any, shape: Any, code: Any) -> None:
    """An empty array, which then takes a state: its dtype is checked here, its size by NumPy."""
    check(kind == Global("numpy.ndarray") and shape == (0,) and code in (b"b", "b"))


CALLS: Mapping[str, Callable[..., Any]] = {
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
    WITH_ATTRIBUTES: _parameter,
    "numpy.dtype": _numpy_dtype,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray._reconstruct": _numpy_array,
}
"""What a checkpoint may call, each with a check of its arguments; None stands for a stub."""
