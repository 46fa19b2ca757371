"""Backbones compiled for the training step: the one place where every batch has the same shape."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import torch
from torch import nn

from optuna_aes.errors import InputError
from optuna_aes.models.backbones.base import Backbone


class CompiledBackbones:
    """Lets a model's backbones run compiled by ``torch.compile``, for batches of one length.

    Other batches (an epoch's last one, validation) have other shapes, each of which would be compiled anew for seconds:
    they run as ever. Random numbers are drawn as without compilation, so results differ by rounding only.

    Args:
        model: Whose backbones to compile.
        batch_size: Rows of the batches that are worth it.

    Raises:
        InputError: If there is no C++ compiler, which compilation for the CPU needs.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        on_cpu = next(model.parameters()).device.type == "cpu"
        if on_cpu and not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
            raise InputError("compile=True needs a C++ compiler, and there is none: install g++, or leave it at False")
        self.batch_size = batch_size
        self.fast = {
            module: torch.compile(module.forward, dynamic=False, options={"fallback_random": True})
            for module in model.modules()
            if isinstance(module, Backbone)
        }

    @contextlib.contextmanager
    def __call__(self, rows: int) -> Iterator[None]:
        """Within the block a training batch of so many rows runs compiled, if it is a full one."""
        if rows != self.batch_size:
            yield
            return
        for module, forward in self.fast.items():
            module.forward = forward  # type: ignore[method-assign]
        try:
            yield
        finally:
            for module in self.fast:
                del module.forward
