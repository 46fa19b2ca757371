"""Training steps in bfloat16, where the machine multiplies it."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn

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
    if device != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in _INSTRUCTIONS):
        return True
    _logger.warning(
        "amp needs a CPU with bfloat16 instructions (AVX512_BF16 or AMX), and this one has none: trains in float32"
    )
    return False


def logits(model: nn.Module, ids: Tensor, *, amp: bool) -> Tensor:
    """A model's float32 logits of a training batch, shape ``(batch,)``.

    Args:
        model: Takes ids.
        ids: The batch.
        amp: Whether the backbone's matrix products, and those of their gradients, take bfloat16. Tables, weights and their
            updates stay float32.
    """
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=amp):
        found: Tensor = model(ids)
        return found.float()
