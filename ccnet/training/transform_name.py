"""Names of transforms, which tell whether a resumed run has the one that it began with."""

import inspect
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any

from torch import nn

_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)
_PLAIN = (bool, int, float, str, Enum, list, tuple, Mapping)
_WITHOUT_REPR: tuple[Any, ...] = (object.__repr__, nn.Module.__repr__)


def name_of(value: Any, holders: tuple[Any, ...] = ()) -> str:
    """Names a transform in one line, by its function or class and the values that it keeps.

    It is the same in every process: functions are named by where they are defined, objects without
    a `repr` of their own by class and public attributes, as torchvision does it.

    Args:
        value: a transform, or a value that one holds.
        holders: what holds the value, one inside the other; these are not named again.
    """
    if any(value is one for one in holders):
        return "..."
    inner = partial(name_of, holders=(*holders, value))
    if isinstance(value, Enum):
        return inner(value.value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(inner, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{inner(key)}: {inner(one)}' for key, one in value.items())}}}"
    if inspect.ismethod(value):
        return f"{inner(value.__self__)}.{value.__name__}"
    if hasattr(value, "__qualname__"):
        is_short = str(value.__module__).startswith("torchvision.")
        return value.__qualname__ if is_short else f"{value.__module__}:{value.__qualname__}"
    positional: Iterable[Any] = ()
    if isinstance(value, partial):
        positional, named = (value.func, *value.args), value.keywords
    elif type(value).__repr__ not in _WITHOUT_REPR:
        return _ADDRESS.sub("", " ".join(repr(value).split()))
    else:
        named = _attributes(value)
    texts = [*map(inner, positional), *(f"{key}={inner(one)}" for key, one in named.items())]
    return f"{name_of(type(value))}({', '.join(texts)})"


def _attributes(value: Any) -> dict[str, Any]:
    """Returns public attributes of plain values and callables; no state such as tensors."""
    held = dict(getattr(value, "__dict__", {}))
    if isinstance(value, nn.Module):
        held.update(value.named_children())
        held.pop("training", None)
    return {
        key: one
        for key, one in held.items()
        if not key.startswith("_") and (isinstance(one, _PLAIN) or callable(one))
    }
