"""Backbones compiled for the training step: the one place where every batch has the same shape."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from optuna_aes.models.backbones.base import Backbone

_logger = logging.getLogger(__name__)


@functools.cache
def can_compile(device: str) -> bool:
    """Whether ``torch.compile`` can do without more than this machine has; warns once where it cannot.

    It is no error, as the workers of one search may run on machines that differ in this: what they train differs by
    rounding only.

    Args:
        device: Type of the device to train on; only for ``"cpu"`` a C++ compiler is needed.
    """
    if device != "cpu" or any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        return True
    _logger.warning("compile needs a C++ compiler, and there is none here: trains uncompiled; install g++ to be faster")
    return False


def compiled(function: Callable[..., Any], *, guards: bool = True) -> Callable[..., Any]:
    """A function compiled for arguments of fixed shapes, that draws the random numbers that it draws uncompiled.

    Torch keeps what it has compiled with the code of a function, and gives up at the ninth version: a copy of the code for
    every caller keeps the models of one process, which differ in shape, apart.

    Args:
        function: A function, or an object's method.
        guards: Whether it is looked at every call whether arguments and all else that the function reads are still as they
            were, which takes a twentieth of a short step. Without, the caller answers for it, and the function must be one
            that torch can compile as a whole.
    """
    plain = getattr(function, "__func__", function)
    copy = types.FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    bound = types.MethodType(copy, function.__self__) if isinstance(function, types.MethodType) else copy
    options: dict[str, Any] = {"fallback_random": True}
    if not guards:
        options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    made: Callable[..., Any] = torch.compile(bound, dynamic=False, fullgraph=not guards, options=options)
    return made


def draws_on_cpu(module: nn.Module) -> bool:
    """Whether a module has dropout and is on the CPU, where torch compiles that into steps that take up to twice as long."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    return on_cpu and any(getattr(part, "dropout", 0.0) for part in module.modules())


class CompiledBackbones:
    """Lets a model's backbones run compiled by ``torch.compile``, for batches of one length.

    Other batches (an epoch's last one, validation) have other shapes, each of which would be compiled anew for seconds:
    they run as ever, and so do backbones that :func:`draws_on_cpu`. Results differ by rounding only.

    Args:
        model: Whose backbones to compile.
        batch_size: Rows of the batches that are worth it.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.batch_size = batch_size
        backbones = (module for module in model.modules() if isinstance(module, Backbone))
        self.fast = {module: compiled(module.forward) for module in backbones if not draws_on_cpu(module)}

    @contextlib.contextmanager
    def __call__(self, rows: int) -> Iterator[None]:
        """Within the block a training batch of so many rows runs compiled, if it is a full one."""
        if rows != self.batch_size:
            yield
            return
        for module, forward in self.fast.items():
            module.forward = forward  # type: ignore[method-assign]  # of this module, not its class
        try:
            yield
        finally:
            for module in self.fast:
                del module.forward
