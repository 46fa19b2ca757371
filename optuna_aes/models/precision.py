"""Training steps in bfloat16, where the machine multiplies it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from optuna_aes.models.train_options import TrainOptions

_logger = logging.getLogger(__name__)

# What torch calls the instructions: of x86 CPUs the first two, of ARM's the last.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


@functools.cache
def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 by itself; warns once where it does not.

    It is no error, as the workers of one search may run on machines that differ in this. A CPU without such instructions
    would imitate them at a tenth of the speed of float32; with them, it multiplies at more than twice that speed.

    Args:
        device: Type of the device to train on.
    """
    if device == "cpu":
        has = any(torch.cpu.get_capabilities().get(name) for name in _INSTRUCTIONS)
        wanted = "a CPU with bfloat16 instructions (AVX512_BF16 or AMX)"
    else:
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = "a GPU with bfloat16 instructions (compute capability 8.0 or later)"
    if not has:
        _logger.warning(f"amp needs {wanted}, and this one has none: trains in float32")
    return has


def takes_bfloat16(options: TrainOptions, device: torch.device | str) -> bool:
    """Whether a training with these options on this device is one in bfloat16."""
    return options.amp and has_bfloat16(torch.device(device).type)


def logits(model: Callable[[Tensor], Tensor], ids: Tensor, *, amp: bool) -> Tensor:
    """A model's float32 logits of a training batch, of the shape that the model gives.

    Args:
        model: Takes ids.
        ids: The batch.
        amp: Whether the backbone's matrix products, and those of their gradients, take bfloat16. Tables, weights and their
            updates stay float32.
    """
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=amp):
        return model(ids).float()
