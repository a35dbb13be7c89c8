"""Restoration: what a checkpoint holds is compared with the run that it is to be put into."""

import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ccnet.schema import Rule, number, shown
from ccnet.training.checkpoint import ContentsError

logger = logging.getLogger(__name__)

PERCENTAGE = number(0, 100)
BEST = Rule(
    lambda value: (type(value) is float and value == -math.inf) or PERCENTAGE.accepts(value),
    f"{PERCENTAGE.expected}, or minus infinity before the first",
)
"""The values of scores, and of the best one so far."""


def refuse_unlike(run_dir: Path, saved: Mapping[str, Any], examples: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose contents have other names, types, shapes or dtypes than expected.

    Args:
        run_dir: the folder of the run.
        saved: the state in the checkpoint, with the recipe of the run.
        examples: by name, a value like the saved one, or a rule for it. Of a list, every item must
            be like the first of the example. Tensors must be finite.

    Raises:
        ContentsError: if one does not fit; says which.
    """
    for name, example in examples.items():
        if (problem := difference(name, saved.get(name), example)) is not None:
            raise _unfit(run_dir, problem)
    step, steps = saved["step"], saved["recipe"].get("steps")
    if type(steps) is not int or not 0 < step <= steps:
        raise _unfit(run_dir, f"step is {step} of {shown(steps)}")


def restore_optimizer(
    run_dir: Path,
    optimizer: Optimizer,
    saved: Any,
    *,
    is_stepped: bool = True,
    changed: Collection[str] = (),
) -> None:
    """Gives an optimiser the state of each parameter; its settings are those of the recipe.

    Args:
        run_dir: the folder of the run.
        optimizer: of the same kind and for the same parameters as the saved one.
        saved: the `state_dict` of that.
        is_stepped: whether it must have made a step: a loss scaler skips some.
        changed: fields of the recipe that have changed: if any, a state that does not fit is left
            out, which the log says.

    Raises:
        ContentsError: if that is not the state of such an optimiser; says why.
    """
    try:
        if "optimizer" in changed:
            raise _unfit(run_dir, "the optimizer is another one")
        _fill(run_dir, optimizer, saved, is_stepped=is_stepped)
    except ContentsError:
        if not changed:
            raise
        logger.warning("the optimizer starts anew: its state does not fit the changed recipe")


def _fill(run_dir: Path, optimizer: Optimizer, saved: Any, *, is_stepped: bool) -> None:
    entries = saved.get("state") if isinstance(saved, Mapping) else None
    if not isinstance(entries, Mapping):
        raise _unfit(run_dir, "optimizer holds no state")
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    if not entries.keys() <= set(range(len(parameters))):
        raise _unfit(run_dir, f"optimizer is not that of {len(parameters)} parameters")
    names = _state_names(optimizer)
    learning = {index for index, one in enumerate(parameters) if one.requires_grad}
    if names and (entries or is_stepped) and not learning <= entries.keys():
        raise _unfit(
            run_dir,
            f"optimizer lacks the state of {len(learning - entries.keys())} of "
            f"{len(learning)} parameters",
        )
    for index, entry in entries.items():
        if not isinstance(entry, Mapping) or not names <= entry.keys():
            raise _unfit(run_dir, f"optimizer lacks {', '.join(sorted(names))} of a parameter")
        for name, value in entry.items():
            example = torch.zeros(()) if name == "step" else parameters[index]
            if value is not None and (problem := difference(name, value, example)) is not None:
                raise _unfit(run_dir, f"optimizer: {problem}")
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": entries, "param_groups": current["param_groups"]})


def _state_names(optimizer: Optimizer) -> set[str]:
    """What an optimiser of this kind keeps of each parameter, as a new one shows."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    kind: Any = type(optimizer)
    new = kind([parameter], lr=0.0)
    settings = optimizer.param_groups[0]
    new.param_groups[0].update({name: settings[name] for name in settings if name != "params"})
    new.step()
    return set(new.state[parameter])


def difference(name: str, saved: Any, example: Any) -> str | None:
    """Says how a value is unlike an example, or a rule for it; None if it is like that."""
    if isinstance(example, Tensor):
        found = _kind(saved) if isinstance(saved, Tensor) else type(saved).__name__
        if found != _kind(example):
            return f"{name} is {found}, not {_kind(example)}"
        return None if saved.isfinite().all() else f"{name} is not finite"
    if isinstance(example, Rule):
        return (
            None if example.accepts(saved) else f"{name} is {shown(saved)}, not {example.expected}"
        )
    if isinstance(example, Mapping):
        if not isinstance(saved, Mapping):
            return f"{name} is {type(saved).__name__}, not names and values"
        for text, keys in (
            ("lacks", example.keys() - saved.keys()),
            ("has an unknown", saved.keys() - example.keys()),
        ):
            if keys:
                return f"{name} {text} {min(map(str, keys))!r}"
        parts = [(f"{name} {key}", saved[key], example[key]) for key in example]
    elif isinstance(example, list) and isinstance(saved, list):
        parts = [(f"an item of {name}", item, example[0]) for item in saved]
    elif type(saved) is type(example):
        parts = []
    else:
        return f"{name} is {type(saved).__name__}, not {type(example).__name__}"
    return next(filter(None, (difference(*part) for part in parts)), None)


def _kind(tensor: Tensor) -> str:
    shape = " x ".join(map(str, tensor.shape)) or "a scalar"
    odd = "" if tensor.layout == torch.strided and not tensor.is_meta else " without plain values"
    return f"{shape} of {str(tensor.dtype).removeprefix('torch.')}{odd}"


def _unfit(run_dir: Path, problem: str) -> ContentsError:
    return ContentsError(
        f"the newest checkpoint of the run in {run_dir} does not fit it: {problem}: "
        "move it away to resume from the one before"
    )
