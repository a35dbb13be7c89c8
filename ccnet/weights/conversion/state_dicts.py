"""State dicts: where in a checkpoint the tensors of a network are, whatever wraps them.

A network is found by a parameter's name that its family has and no other. What stands before that
name is the prefix of all its names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnet.schema import shown, shown_name
from ccnet.weights.families import FAMILIES, Family
from ccnet.weights.tensors import irregularity

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts that `torch.compile`, FSDP and activation checkpointing put into names, anywhere."""

_DEPTH = 4
_MOST = 100
"""Networks that a checkpoint may have."""


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network in a checkpoint.

    Attributes:
        entry: where they are: keys and prefix, with dots between; empty for the whole checkpoint.
        family: the code base of the network.
        tensors: by name, without the prefix.
        others: names of tensors beside them that do not have the prefix.
        averages: names of tensors beside them that are an average of the weights.
    """

    entry: str
    family: Family
    tensors: Mapping[str, Tensor] = field(repr=False)
    others: tuple[str, ...] = ()
    averages: tuple[str, ...] = ()


def find_state_dict(
    checkpoint: Mapping[str, Any],
    entry: str | None = None,
    families: Sequence[Family] = FAMILIES,
) -> StateDict:
    """Finds the network in a checkpoint.

    Args:
        checkpoint: what `read_pickle` returns.
        entry: of the network to take, if there are several.
        families: what to look for.

    Raises:
        ValueError: if there is none, or several of which none was chosen, or if a tensor is not of
            real numbers that the file holds.
    """
    found = list(_state_dicts(checkpoint, families))
    if entry is not None:
        chosen = [one for one in found if one.entry == entry]
    else:
        chosen = found[:1] + [one for one in found[1:] if not _is_copy(one, found[0])]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(shown_name(one.entry or "(the whole)") for one in found[:10])
    if entry is not None:
        raise ValueError(f"there is no network at {entry!r}; there is {names or 'none'}")
    if found:
        raise ValueError(
            f"there are several networks in it: {names}; choose one by its name after the path, as "
            f'in weights="FILE#{found[-1].entry}"'
        )
    raise ValueError(_describe_unknown(checkpoint, families))


def unnamed_copies(
    content: Mapping[Any, Any], tensors: Mapping[str, Tensor], keys: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yields where lists with tensors of a network's shapes are, such as averages of its weights.

    Args:
        content: of a checkpoint.
        tensors: of the network.
        keys: that lead to the content.
    """
    shapes = {tensor.shape for tensor in tensors.values()}
    for key, value in content.items():
        if isinstance(value, Mapping) and len(keys) < _DEPTH:
            yield from unnamed_copies(value, tensors, (*keys, str(key)))
        elif isinstance(value, (list, tuple)):
            copies = [one for one in value if isinstance(one, Tensor) and one.shape in shapes]
            if len(copies) == len(value) and any(map(torch.is_floating_point, copies)):
                yield ".".join((*keys, str(key)))


def _state_dicts(
    content: Mapping[Any, Any], families: Sequence[Family], keys: tuple[str, ...] = ()
) -> Iterator[StateDict]:
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: _tensor(value) for name, value in named.items() if _is_tensor(value)}
    if tensors:
        yield from _networks(_unwrapped(tensors), families, keys)
    if len(keys) < _DEPTH:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _state_dicts(value, families, (*keys, str(key)))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    )


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))


def _networks(
    tensors: Mapping[str, Tensor], known: Sequence[Family], keys: tuple[str, ...]
) -> Iterator[StateDict]:
    found: dict[str, list[Family]] = {}
    for name in tensors:
        for family in known:
            if f".{name}".endswith(f".{family.marker}"):
                found.setdefault(name.removesuffix(family.marker), []).append(family)
    if len(found) > _MOST:
        raise ValueError(f"the checkpoint has {len(found)} networks, more than {_MOST}")
    for prefix, families in found.items():
        if len(families) > 1:
            continue
        nested = tuple(other for other in found if other != prefix and other.startswith(prefix))
        own = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix) and not (nested and name.startswith(nested))
        }
        averages = {f"ema_{name.replace('.', '_')}" for name in own} & own.keys()  # as mmcv's hook
        own = {name: value for name, value in own.items() if name not in averages}
        _check_plain(own)
        others = [name for name in tensors if not name.startswith(tuple(found))]
        entry = ".".join((*keys, *filter(None, [prefix.removesuffix(".")])))
        yield StateDict(entry, families[0], own, tuple(others), tuple(sorted(averages)))


def _check_plain(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if (fault := irregularity(tensor)) is not None:
            raise ValueError(f"{shown_name(name)} {fault}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            shape = shown(tuple(tensor.shape))
            raise ValueError(f"{shown_name(name)} {shape} is larger than its storage")


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    origins: dict[str, str] = {}
    for name in tensors:
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if (other := origins.setdefault(short, name)) != name:
            raise ValueError(
                f"checkpoint entries {shown_name(other)} and {shown_name(name)} both map to "
                f"{shown_name(short)}"
            )
    return {short: tensors[name] for short, name in origins.items()}


def _is_copy(one: StateDict, other: StateDict) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        value.shape == other.tensors[name].shape and torch.equal(value, other.tensors[name])
        for name, value in one.tensors.items()
    )


def _describe_unknown(checkpoint: Mapping[str, Any], families: Sequence[Family]) -> str:
    candidates = list(_tensor_mappings(checkpoint))
    if not candidates:
        keys = shown(sorted(map(str, checkpoint)))
        return f"the checkpoint has no state dict; its keys are {keys}"
    largest = max(candidates, key=len)
    examples = ", ".join(map(shown_name, sorted(map(str, largest))[:5]))
    return (
        f"unknown checkpoint family with parameter names such as {examples}; "
        "known families: "
        + ", ".join(f"{family.name} (with {family.marker})" for family in families)
    )


def _tensor_mappings(content: Mapping[Any, Any], depth: int = _DEPTH) -> Iterator[list[Any]]:
    names = [name for name, value in content.items() if _is_tensor(value)]
    if names:
        yield names
    for value in content.values():
        if isinstance(value, Mapping) and depth:
            yield from _tensor_mappings(value, depth - 1)
