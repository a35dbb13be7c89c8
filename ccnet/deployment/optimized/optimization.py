"""Optimisation: a copy of a network that computes the same faster, for inference alone."""

import copy
import logging
from functools import reduce
from typing import Any

import torch
from torch import nn

from ccnet.deployment.optimized.folding import fold_norms
from ccnet.deployment.optimized.fusion import fuse_activations
from ccnet.deployment.optimized.network import OptimizedCCNet
from ccnet.economy.layers import has_own_methods, is_observed
from ccnet.model import CCNet
from ccnet.norm import InPlaceABN, restore_batchnorm
from ccnet.options import named_options
from ccnet.precision import HALVES, describe_slowness, fast_precision, warn_of_slow_inference
from ccnet.schema import reason_of, shown

logger = logging.getLogger(__name__)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The dtypes of weights that there may be."""

_SIDE = 64
"""Side of the pictures on which networks that take any are tried."""


@named_options()
@torch.inference_mode(False)  # whose tensors could not be changed later
def optimize_for_inference(model: CCNet, dtype: torch.dtype | None = None) -> OptimizedCCNet:
    """Returns a copy of a network that computes the same faster, for inference alone.

    Its norms are folded into the convolutions before them, wherever those are read by nothing else;
    activations and residual sums are computed along with the convolutions; there is no auxiliary
    head; weights are in channels-last order and without gradients. `predict` and calls are those of
    the network, and so are the dtypes of what it returns. It stays in evaluation mode and cannot be
    saved as weights; `copy.deepcopy`, `pickle`, `torch.compile` and `torch.export` work.

    Batches with NaN give NaN, as those of the network do; but NaN that arise within, where maps
    overflow float32 or bfloat16, may become 0 on a CPU.

    Args:
        model: stays as it is. Hooks and replaced methods go along to the copy, whose modules with
            such are neither folded nor fused.
        dtype: of the weights: `torch.float32`, `bfloat16`, `float16` or `float64`. None for
            float32 or bfloat16, whichever convolutions are faster in on the network's device,
            measured once per process; a line in the log says which.

    Returns:
        The copy, on the same device.

    Raises:
        TypeError: if the model is no `CCNet`.
        ValueError: if there is no such dtype, the network has no values or some that are not
            finite (in this dtype), or it cannot compute in this dtype.

    Example:
        >>> import ccnet
        >>> model = ccnet.optimize_for_inference(ccnet.ccnet_resnet18(weights="DEFAULT"))
        >>> model.predict("street.jpg").save("labels.png")
    """
    _check(model, dtype)
    parameter = next(model.parameters())
    given, device = parameter.dtype, parameter.device
    chosen = dtype
    if chosen is None:
        chosen = HALVES.get(fast_precision(device, training=False), torch.float32)
    else:
        warn_of_slow_inference(_name(chosen), device)
    with torch.device(device):
        optimized = _without_gradients(copy.deepcopy(model))
        _check_values(optimized)
        _convert(optimized, _widest(optimized, chosen))  # in which folding is as exact
        folded = fold_norms(optimized, lambda: _try(optimized))
        fuse_activations(optimized, lambda: _try(optimized))
    optimized.__class__ = OptimizedCCNet
    assert isinstance(optimized, OptimizedCCNet)
    optimized.output_dtype = model.output_dtype if isinstance(model, OptimizedCCNet) else given
    _convert(optimized, chosen)
    _check_values(optimized)
    _try(optimized)
    why = describe_slowness("bfloat16", device, training=False) if dtype is None else ""
    if dtype is None and not why:
        why = f"in which this {device.type} device is faster than in float32"
    told = f"{_name(chosen)} ({why})" if why else _name(chosen)
    logger.info("optimised for inference: weights in %s, %d norms folded", told, folded)
    return optimized


def _check(model: Any, dtype: Any) -> None:
    if not isinstance(model, CCNet):
        inner = next((name for name in ("module", "_orig_mod") if hasattr(model, name)), None)
        hint = f": give its .{inner}" if inner and isinstance(model, nn.Module) else ""
        raise TypeError(f"model must be a CCNet, not {type(model).__name__}{hint}")
    if type(model) not in (CCNet, OptimizedCCNet):
        raise TypeError(
            f"model must be a CCNet itself, not {type(model).__name__}, which is derived from it "
            "and may compute something else"
        )
    if dtype is not None and dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise ValueError(f"dtype must be None or one of {names}, not {shown(dtype)}")
    if any(tensor.is_meta for tensor in model.parameters()):
        raise ValueError(
            "the network has no values (it is on the meta device): "
            'call to_empty(device="cpu") and load weights first'
        )


def _check_values(model: nn.Module) -> None:
    """Raises ValueError if there are values that are not finite, which fusion might hide."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            dtype = _name(tensor.dtype)
            raise ValueError(
                f"{name} has values that are not finite in {dtype}: give "
                + ("other weights" if dtype == "float64" else "other weights or a wider dtype")
            )


def _widest(model: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """The dtype that holds the values of all parameters, and those of a dtype."""
    return reduce(torch.promote_types, (one.dtype for one in model.parameters()), dtype)


def _without_gradients(model: CCNet) -> CCNet:
    model.aux_head = None
    model.eval().requires_grad_(False)
    in_place = [one for one in model.modules() if isinstance(one, InPlaceABN)]
    if not any(map(is_observed, in_place)) and not any(map(has_own_methods, model.modules())):
        restore_batchnorm(model)  # which would lose what is attached to those
    return model


@torch.no_grad()
def _convert(model: nn.Module, dtype: torch.dtype) -> None:
    """Casts parameters and buffers; kernels of two axes become channels-last."""
    model.to(dtype)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@torch.inference_mode(False)
@torch.no_grad()
def _try(model: CCNet) -> None:
    """Computes a batch; raises ValueError if the network cannot."""
    parameter = next(model.parameters())
    size = model.backbone.image_size or (_SIDE, _SIDE)
    shape = (1, model.preprocessing.channels, *size)
    try:
        with torch.autocast(parameter.device.type, enabled=False):
            model(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device))
    except (RuntimeError, TypeError) as error:
        hint = "" if parameter.dtype == torch.float32 else ": give another dtype, such as float32"
        raise ValueError(
            f"the network cannot compute in {_name(parameter.dtype)} ({reason_of(error)}){hint}"
        ) from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
