"""Batches of a split on the device that computes: from there, where the split fits, else from memory and ahead of time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optuna_aes.data.ahead import ahead
from optuna_aes.data.dataset import Split

SHARE = 0.5  # of the GPU's free memory that a split may take; the rest is for the model
AHEAD = 2  # batches that are on their way


class Feed:
    """Batches of a split by slicing tensors.

    Args:
        split: Rows of a dataset.
        device: Where batches are wanted.
        resident: Whether the split is copied to the device as a whole; by default where it takes no more than half of the
            memory that is free there. What is not comes batch by batch through pinned memory, fetched by a thread of its own
            while the batch before is computed.
    """

    def __init__(self, split: Split, device: torch.device, *, resident: bool | None = None) -> None:
        with warnings.catch_warnings():  # a memory-mapped split is read-only, and nothing here writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.ids = torch.from_numpy(np.ascontiguousarray(split.ids))
            self.labels = torch.from_numpy(np.ascontiguousarray(split.labels))
        self.device = device
        self.resident = fits(self.ids.nbytes + self.labels.nbytes, device) if resident is None else resident
        if self.resident:
            self.ids, self.labels = self.ids.to(device), self.labels.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Ids, int32 of shape ``(batch, columns)``, and labels, float32 of shape ``(batch,)``, on the device."""
        if isinstance(index, slice):
            ids, labels = self.ids[index], self.labels[index]
        else:
            index = index.to(self.ids.device)
            ids, labels = self.ids.index_select(0, index), self.labels.index_select(0, index)
        return ids.to(self.device), labels.to(self.device).float()

    def batches(self, indices: Iterable[Tensor | slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """What :meth:`batch` gives for each index; those to come are fetched ahead where the split is not on the device."""
        if self.resident:
            yield from (self.batch(index) for index in indices)
            return
        stream = _stream(self.device) if self.device.type == "cuda" else None
        for _, fetched in ahead(partial(self._fetched, stream), indices, depth=AHEAD, threads=1):
            yield self._arrived(*fetched)

    def _fetched(self, stream: torch.cuda.Stream | None, index: Tensor | slice) -> tuple[Tensor, Tensor, Any]:
        """A batch on its way to the device, and what tells when it is there."""
        if isinstance(index, slice):
            ids, labels = self.ids[index].contiguous(), self.labels[index].contiguous()
        else:
            ids, labels = self.ids.index_select(0, index), self.labels.index_select(0, index)
        if stream is None:
            return ids.to(self.device), labels.to(self.device).float(), None
        with torch.cuda.stream(stream):
            there = [tensor.pin_memory().to(self.device, non_blocking=True) for tensor in (ids, labels)]
            return there[0], there[1].float(), stream.record_event()

    def _arrived(self, ids: Tensor, labels: Tensor, event: Any) -> tuple[Tensor, Tensor]:
        if event is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(event)
            for tensor in (ids, labels):  # made on another stream: their memory is not free before this one is done
                tensor.record_stream(now)
        return ids, labels


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of data may stay on a device."""
    return device.type != "cuda" or size <= SHARE * torch.cuda.mem_get_info(device)[0]
