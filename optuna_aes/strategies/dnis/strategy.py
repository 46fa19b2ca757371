"""DNIS: differentiable neural input search by a soft selection layer, trained on validation batches.

Weiyu Cheng, Yanyan Shen, Linpeng Huang, 2020, arXiv 2006.04466; AutoSrh in its journal form. From the paper: a continuous
relaxation whose soft selection weighs every embedding dimension and is optimised on the validation loss. As its public code
has it: blocks by frequency, the warm start, the alternation, the normalised gradient, and the rates. Ours: a block is a field
unless asked otherwise, whole columns of it are dropped, and a fit ends with its last weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optuna_aes.data.blocks import Partition, check_blocks, partition
from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.dnis.hook import SelectionHook
from optuna_aes.strategies.dnis.selection import RANKS, merged_importance, places
from optuna_aes.strategies.pruning.base import Pruning, field_rows, gates
from optuna_aes.strategies.pruning.gradients import Batches
from optuna_aes.strategies.pruning.magnitude import check_price
from optuna_aes.strategies.sham.strategy import unhindered


@dataclass(frozen=True)
class DNIS(Pruning):
    """Weighs every column by α in [0, 1] and takes sizes by threshold.

    Args:
        blocks: What has an α, and a size, of its own: ``"field"``; ``"frequency"``, ``parts`` ranges of every field's values
            by training frequency; ``"shares"``, the same over the values of all fields together, and ``"bands"``, powers of
            ten of the frequency over all fields, as in the paper and its code.
        parts: See ``blocks``.
        warmup: Share of the steps with α = 1, in which everything is trained.
        rate: Learning rate of α.
        l1: λ₁, weight of Σ|α|. The public code has 1e-5, which leaves most of α at 1 on planted data, so that what α leaves
            of the tables decides; 1e-3 brings three quarters of it to 0, and leaves nothing to choose above 10 % of the
            parameters.
        freeze_tower: Whether the backbone stays as the warm start leaves it.
        second_order: Whether α's gradient goes through the weights' next step; takes four passes in place of one.
        ahead: ξ, length of that step. The gradient of a mean loss is of the order of 1 / batch in each row, so a step
            that shows is much longer than Adam's learning rate.
        rank: What the threshold is on: ``"alpha"``, where the many columns at 1 are told apart by what follows, or
            ``"merged"``, the norm of a column of E ⊙ α.
        price: For ``"merged"``, see :class:`optuna_aes.strategies.pruning.magnitude.Magnitude`.
        levels: See :class:`Pruning`.
        score_rows: See :class:`Pruning`.

    Raises:
        InputError: If a value is out of range.
    """

    name: ClassVar[str] = "dnis"

    blocks: str = "field"
    parts: int = 5
    warmup: float = 0.3
    rate: float = 1e-2
    l1: float = 3e-4
    freeze_tower: bool = True
    second_order: bool = False
    ahead: float = 1.0
    rank: str = "alpha"
    price: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.blocks, self.parts)
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup} is out of range: give a share of the steps below 1")
        if not (0 < self.rate < float("inf") and 0 < self.ahead < float("inf") and 0 <= self.l1 < float("inf")):
            raise InputError(f"rate={self.rate} and ahead={self.ahead} must be above 0, l1={self.l1} 0 or more")
        if self.rank not in RANKS:
            raise InputError(f"rank={self.rank!r} is not known: give one of {', '.join(RANKS)}")
        check_price(self.price)

    def partition(self, dataset: Dataset) -> Partition | None:
        """The blocks, by frequency in the training rows."""
        return partition(dataset.schema, dataset.train.ids, self.blocks, self.parts)

    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """The bilevel training. It never stops early, and ends with its last weights, which are those that go with α."""
        supernet.to(device)
        valid, train = (
            Batches(split, options.batch_size, seed=seed, device=torch.device(device))
            for split in (dataset.valid, dataset.train)
        )
        return Trainer(
            supernet,
            dataset.train,
            dataset.valid,
            unhindered(options),
            seed=seed,
            device=device,
            hook=SelectionHook(supernet, valid, train, self),
            keep="last",
        )

    @torch.no_grad()
    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> Tensor:
        """α, between equals what it leaves of the tables; or the latter alone."""
        embedding = gates(supernet)
        squares = torch.zeros_like(embedding.gate)
        rows = torch.zeros(len(squares), device=squares.device)
        for part, block in _parts(embedding):
            squares[block] += part.square().sum(0)
            rows[block] += len(part)
        merged = merged_importance(squares, embedding.gate, rows, self.price)
        return merged if self.rank == "merged" else places(embedding.gate, merged)


@torch.no_grad()
def merged_tables(supernet: Supernet) -> list[Tensor]:
    """E ⊙ α of every field, shape ``(rows, D)`` each; see :mod:`optuna_aes.strategies.dnis.sparsity` for its sparsity."""
    embedding = gates(supernet)
    merged = torch.cat([part * embedding.gate[block] for part, block in _parts(embedding)])
    return list(torch.split(merged, [int(n) for n in field_rows(embedding).tolist()]))


def _parts(embedding: MaskedEmbedding) -> list[tuple[Tensor, int]]:
    """Parts of the table from top to bottom, each with the block that it belongs to."""
    if embedding.index is None:
        rows, blocks = field_rows(embedding).tolist(), list(range(embedding.fields))
    else:
        rows, blocks = [stop - start for _, start, stop, _ in embedding.index.pieces], embedding.index.block.tolist()
    return list(zip(torch.split(embedding.table.weight, [int(n) for n in rows]), blocks, strict=True))
