"""Replica: a module in evaluation mode beside the same module in any mode, with its tensors."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn


def evaluation_replica(model: nn.Module) -> nn.Module:
    """Returns a replica in evaluation mode that shares all tensors with the model.

    The model is not touched at any moment, so that other threads may train it, switch its mode or
    make replicas meanwhile. A replica takes some microseconds per layer and next to no memory: make
    one for each use.

    Hooks run; forward hooks get the module that they were registered on. Compiled modules run as
    they are if they are in evaluation mode, uncompiled if not. Of TorchScript modules in training
    mode, the tensors are copied.
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
    if module._forward_hooks:
        state["_forward_hooks"] = _observing(module)
    for name, value in list(state.items()):
        if isinstance(value, MethodType) and value.__self__ is module:
            state[name] = MethodType(value.__func__, replica)
    return replica


def _observing(module: nn.Module) -> "OrderedDict[int, Callable[..., Any]]":
    """Returns the forward hooks of a module, which get this module in place of its replica."""

    def observing(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda _, *arguments: hook(module, *arguments)

    hooks = list(module._forward_hooks.items())
    return OrderedDict((key, observing(hook)) for key, hook in hooks)
