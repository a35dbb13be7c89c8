"""Replica: a module in evaluation mode beside the same module in any mode, with its tensors."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn


def evaluation_replica(model: nn.Module) -> nn.Module:
    """Returns a replica in evaluation mode that shares all tensors with the model.

    The model is not touched at any moment, so that other threads may train it, switch its mode or
    make replicas meanwhile. A replica takes some microseconds per layer and next to no memory: make
    one for each use.

    Hooks run, those that there are now. Forward hooks get the module that they were registered on,
    and so do forward pre-hooks if it is in evaluation mode. If it is not, pre-hooks get the
    replica, so that they do what they do in evaluation mode, and the module gets the attributes
    that they set but tensors. Compiled modules run as they are if they are in evaluation mode,
    uncompiled if not. Of TorchScript modules in training mode, the tensors are copied.

    Raises:
        ValueError: if a method `forward` was replaced by a callable that holds modules in training
            mode, which it would run in training mode.
    """
    replicas: dict[nn.Module, nn.Module] = {}

    def replicate(module: nn.Module) -> nn.Module:
        if module not in replicas:
            replicas[module] = build(module)
        return replicas[module]

    def build(module: nn.Module) -> nn.Module:
        if isinstance(module, torch.jit.ScriptModule):
            return copy.deepcopy(module).eval() if _any_training(module) else module
        compiled = module._modules.get("_orig_mod")  # of torch.compile(module)
        if compiled is not None or module._compiled_call_impl is not None:
            if not _any_training(module):
                return module
            if compiled is not None:
                return replicate(compiled)
        return _shallow_copy(module, replicate)

    return replicate(model)


def _any_training(module: nn.Module) -> bool:
    return any(part.training for part in module.modules())


def _shallow_copy(module: nn.Module, replicate: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Copies a module in evaluation mode; `replicate` gives its children."""
    replica = object.__new__(type(module))
    # The dictionaries of parameters and buffers are the same objects: sharded models exchange what
    # is in them during the forward pass.
    state = replica.__dict__
    state.update(module.__dict__, training=False)
    state.pop("_compiled_call_impl", None)
    state["_modules"] = {
        name: None if child is None else replicate(child)
        for name, child in list(module._modules.items())
    }
    state["_forward_hooks"] = _redirected(module._forward_hooks, partial(_observe, module))
    state["_forward_pre_hooks"] = _redirected(module._forward_pre_hooks, partial(_prepare, module))
    for name, value in list(state.items()):
        if not callable(value):
            continue
        state[name] = _rebound(value, module, replica)
        # Those who replace `forward` keep it as `_old_forward` or the like.
        if name.endswith("forward") and any(map(_any_training, _held_modules(state[name]))):
            raise ValueError(
                f"{name} of a {type(module).__name__} was replaced by one that holds modules in "
                "training mode, and would run them so: call model.eval() first"
            )
    return replica


def _rebound(value: Any, module: nn.Module, replica: nn.Module) -> Any:
    """Replaces the module by its replica in bound methods and partial functions."""
    if value is module:
        return replica
    if isinstance(value, MethodType):
        return MethodType(*(_rebound(v, module, replica) for v in (value.__func__, value.__self__)))
    if isinstance(value, partial):
        arguments = [_rebound(v, module, replica) for v in value.args]
        options = {key: _rebound(v, module, replica) for key, v in value.keywords.items()}
        return partial(_rebound(value.func, module, replica), *arguments, **options)
    return value


def _held_modules(value: Any) -> Iterator[nn.Module]:
    """Yields the modules that a callable holds: those of its arguments, closure and attributes."""
    waiting, seen = [value], set()
    while waiting:
        held = waiting.pop()
        if isinstance(held, nn.Module):
            yield held
        elif callable(held) and not isinstance(held, type) and id(held) not in seen:
            seen.add(id(held))
            if isinstance(held, MethodType):
                waiting += [held.__func__, held.__self__]
            elif isinstance(held, partial):
                waiting += [held.func, *held.args, *held.keywords.values()]
            elif isinstance(held, FunctionType):
                cells = [cell for cell in held.__closure__ or () if cell != CellType()]
                waiting += [cell.cell_contents for cell in cells]
                waiting += [*(held.__defaults__ or ()), *(held.__kwdefaults__ or {}).values()]
                # Of the global names, no functions and classes: there are too many to follow.
                named = map(held.__globals__.get, held.__code__.co_names)
                waiting += [v for v in named if isinstance(v, nn.Module | MethodType | partial)]
            else:
                waiting += getattr(held, "__dict__", {}).values()


Hook = Callable[..., Any]


def _redirected(
    hooks: "dict[int, Hook]", redirect: Callable[[Hook], Hook]
) -> "OrderedDict[int, Hook]":
    return OrderedDict((key, redirect(hook)) for key, hook in list(hooks.items()))


def _observe(module: nn.Module, hook: Hook) -> Hook:
    """Returns a forward hook of a replica that gives the module to the hook."""
    return lambda _, *arguments: hook(module, *arguments)


def _prepare(module: nn.Module, hook: Hook) -> Hook:
    """Returns a forward pre-hook of a replica; what the hook sets, both have afterwards.

    But a module in training mode keeps its tensors: weights that hooks compute have no gradient.
    """

    def prepare(replica: nn.Module, *arguments: Any) -> Any:
        training = module.training
        given, other = (replica, module) if training else (module, replica)
        before = dict(vars(given))
        result = hook(given, *arguments)
        for name, value in list(vars(given).items()):
            is_set = name not in before or before[name] is not value
            if is_set and not (training and isinstance(value, torch.Tensor)):
                vars(other)[name] = value
        return result

    return prepare
