"""The task of a search: which data, which model, how it is trained, which sizes are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.model import ModelOptions, check_align
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.settings import reference_sizes
from optuna_aes.space import EmbeddingSpace

MOST_THREADS = 1024  # OpenMP ends the process where it cannot make them


@dataclass(frozen=True)
class Task:
    """What sizes are searched for.

    Args:
        dataset: The encoded table.
        model: Backbone and the rest of the model.
        train: How models are trained from scratch.
        fit: How the supernet is trained; like ``train`` by default.
        candidates: Sizes to choose from; the largest is D, 0 drops a field.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: the GPU with most free memory, the CPU where there is none.
        threads: Threads of torch on the CPU; None leaves them alone. Results are the same from run to run only at the same
            number of threads.
    """

    dataset: Dataset
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    fit: TrainOptions | None = None
    candidates: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_place(self.device, self.threads)
        backbone_class(self.model.backbone).check_fields(len(self.dataset.schema.fields))

    @property
    def fit_options(self) -> TrainOptions:
        """How the supernet is trained."""
        return self.fit or self.train

    @property
    def space(self) -> EmbeddingSpace:
        """The sizes that a search may give to every field."""
        return self.space_of(None)

    def space_of(self, partition: Partition | None) -> EmbeddingSpace:
        """The sizes that a search may give to every block, by default to every field."""
        return EmbeddingSpace(self._rows(partition), self.candidates, align=self.model.align)

    def retrain_space_of(self, partition: Partition | None) -> EmbeddingSpace:
        """The candidates, and the uniform sizes that serve as reference points."""
        sizes = sorted({*self.candidates, *reference_sizes(max(self.candidates))})
        return EmbeddingSpace(self._rows(partition), sizes, align=self.model.align)

    def _rows(self, partition: Partition | None) -> Mapping[str, int]:
        if partition is None:
            return self.dataset.schema.cardinalities
        check_align(self.model)
        return partition.rows


def check_place(device: str, threads: int | None) -> None:
    """Refuses a device that is not here, and a number of threads that cannot be.

    Raises:
        InputError: If either is so.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads={threads} is out of range: give 1 to {MOST_THREADS}")
    resolve_device(device)


def _freest_gpu() -> torch.device | None:
    """The GPU with most free memory; of equals the first, and None where there is none."""
    if not torch.cuda.is_available():
        return None
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Raises:
        InputError: If there is no such device here.
    """
    if name == "auto":
        return _freest_gpu() or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name!r} is not known: give 'cpu', 'cuda', 'cuda:N' or 'auto'") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device={name!r} is not supported: give 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InputError(f"device={name!r} is not here: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
