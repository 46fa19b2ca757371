"""The supernet: one model that holds every candidate size of every field, and scores subnets with inherited weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema, Split
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.delong import AUCParts
from optuna_aes.models.evaluation import evaluating
from optuna_aes.models.feed import Feed
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import ModelOptions, seeded
from optuna_aes.models.ranking import group_auc
from optuna_aes.models.sharing import Paths, PrefixEmbedding, SeparateEmbedding

_SHARINGS: dict[str, type[PrefixEmbedding] | type[SeparateEmbedding] | type[MaskedEmbedding]] = {
    "prefix": PrefixEmbedding,
    "separate": SeparateEmbedding,
    "masked": MaskedEmbedding,
}


class Supernet(nn.Module):
    """A backbone over a weight-sharing embedding.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order; the last one is D.
        options: Backbone and the rest.
        sharing: ``"prefix"``, ``"separate"`` or ``"masked"``.
        seed: Seed of the initial values.
        partition: Blocks within and over fields, for ``"prefix"`` and ``"masked"``.
    """

    def __init__(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        options: ModelOptions,
        sharing: str = "prefix",
        seed: int = 0,
        partition: Partition | None = None,
    ) -> None:
        super().__init__()
        if sharing not in _SHARINGS:
            raise InputError(f"sharing={sharing!r} is not known: give one of {', '.join(_SHARINGS)}")
        if partition is not None and sharing == "separate":
            raise InputError("sharing='separate' has a table per field and candidate, and no blocks: give 'prefix'")
        backbone = backbone_class(options.backbone)
        backbone.check_fields(len(schema.fields))
        blocks: dict[str, Any] = {} if partition is None else {"partition": partition}
        with seeded(seed):
            self.embedding = _SHARINGS[sharing](
                schema, candidates, with_linear=backbone.first_order, std=options.init_std, **blocks
            )
            self.backbone = backbone(
                [(self.embedding.fields, self.embedding.dim)], **options.of_backbone, batch_statistics=True
            )

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape ``(batch,)`` under the chosen paths."""
        groups, linear = self.embedding(ids)
        present = self.embedding.present(len(ids)) if self.backbone.by_field else None
        logits: Tensor = self.backbone(groups, linear, present=present)
        return logits

    @property
    def block(self) -> int:
        """Rows that subnets are scored on at a time, unless told otherwise.

        On a CPU so few that what a layer leaves is still in the cache when the next one comes; but batch norm takes the
        statistics of a block, which must not be a small one's.
        """
        normed = any(isinstance(module, nn.BatchNorm1d) for module in self.backbone.modules())
        return 16384 if normed or self.embedding.candidate_sizes.is_cuda else 1024

    @property
    def together(self) -> bool:
        """Whether a group of subnets is computed together."""
        return self.embedding.flat and self.backbone.groups

    def pieces(self, ids: Tensor, block: int | None = None) -> Sequence[Tensor]:
        """Rows in blocks of equal length: batch norm takes the statistics of each, and has none of a last row on its own."""
        return torch.tensor_split(ids, max(1, -(-len(ids) // (block or self.block))))

    def bank(self, ids: Tensor) -> Bank:
        """What all subnets take their embeddings of some rows from."""
        values = self.embedding.bank(ids)
        if self.together:
            values = [torch.cat([part.flatten(1).t() for part in values if part.numel()])]
        return Bank(values, self.embedding.first_order(ids))

    def group(self, paths: Paths) -> Callable[[Bank], Tensor]:
        """What gives the logits of a group of subnets, shape ``(paths, rows)``, of a bank of rows.

        Args:
            paths: Candidate positions, shape ``(paths, fields)``.
        """
        if self.together:
            group = self.backbone.group(self.embedding.columns(paths))
            return lambda bank: group(bank.values[0], bank.linear)
        return lambda bank: torch.stack([self._subnet(bank, path) for path in paths])

    @torch.no_grad()
    def logits(self, paths: Paths, ids: Tensor, *, block: int | None = None) -> Tensor:
        """Logits of many subnets on the same rows.

        The rows' embeddings are looked up once per block and shared by all subnets; a subnet multiplies only the
        columns it keeps. Memory is bounded by the block. The model is left in training mode if it was in it.

        Args:
            paths: Candidate positions, shape ``(paths, blocks)``.
            ids: int32, shape ``(rows, columns)``.
            block: Rows whose embeddings are held at a time; :attr:`block` by default.

        Returns:
            Shape ``(paths, rows)``.
        """
        if len(paths) == 0:
            return torch.zeros(0, len(ids), device=ids.device)
        with evaluating(self):
            group = self.group(paths)
            return torch.cat([group(self.bank(piece)) for piece in self.pieces(ids, block)], dim=1)

    def _subnet(self, bank: Bank, path: npt.NDArray[np.int64]) -> Tensor:
        groups, columns = self.embedding.select(bank.values, path)
        logits: Tensor = self.backbone(groups, bank.linear, columns)
        return logits


@dataclass(frozen=True)
class Bank:
    """The embeddings of a block of rows, from which those of any subnet are taken.

    Args:
        values: What the embedding's ``bank`` gave; where subnets are computed together one tensor of all of it, of
            shape ``(columns, rows)``.
        linear: First-order sums, shape ``(rows,)``, or None.
    """

    values: Sequence[Tensor]
    linear: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(t.nbytes for t in (*self.values, self.linear) if t is not None)


class SubnetScorer:
    """Validation AUC of subnets with inherited weights, always on the same rows.

    Args:
        supernet: The trained supernet.
        split: Validation rows.
        rows: At most this many of them, drawn once by ``seed``.
        seed: Seed of the draw.
        block: Rows that are scored at a time; what suits the supernet by default.
    """

    ROOM: ClassVar[int] = 128 * 2**20

    def __init__(
        self, supernet: Supernet, split: Split, *, rows: int = 50_000, seed: int = 0, block: int | None = None
    ) -> None:
        self.supernet = supernet
        self.block = block or supernet.block
        device = next(supernet.parameters()).device
        feed = Feed(split, torch.device("cpu"))
        chosen: Tensor | slice = slice(None)
        if rows < len(feed):
            order = np.random.default_rng(seed).permutation(len(feed))[:rows]
            chosen = torch.from_numpy(np.sort(order))
        self.ids, labels = feed.batch(chosen)
        self.ids = self.ids.to(device)
        self.labels = labels.numpy()
        self._on_device = labels.to(device)
        self._kept: list[Bank] = []
        self._room = 0

    def keep_embeddings(self, room: int = ROOM) -> None:
        """Keeps the rows' embeddings from now on, for as long as the scorer lives: the supernet must not change any more.

        Args:
            room: Bytes; the blocks of rows that do not fit in are looked up for every group, as without this call.
        """
        self._room = room

    def part(self, share: float, *, seed: int = 0) -> SubnetScorer:
        """A scorer on some of the rows, as many of each class as its share of all of them, and at least one.

        Args:
            share: Which part of the rows, in (0, 1].
            seed: Seed of the draw.
        """
        rng = np.random.default_rng((seed, 1))
        classes = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        drawn = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in classes]
        chosen = np.sort(np.concatenate(drawn))
        part = copy.copy(self)
        at = torch.from_numpy(chosen).to(self.ids.device)
        part.ids, part._on_device, part.labels = self.ids[at], self._on_device[at], self.labels[chosen]
        part._kept = []
        return part

    @property
    def kept_bytes(self) -> int:
        """Bytes of the embeddings that are kept."""
        return sum(bank.nbytes for bank in self._kept)

    def __call__(self, paths: Paths) -> npt.NDArray[np.float64]:
        """AUC of every path, float64 of shape ``(paths,)``."""
        return group_auc(self._logits(paths), self._on_device)

    def parts(self, paths: Paths) -> list[AUCParts]:
        """What each row contributes to the AUC of every path, to tell how sure a difference of two is."""
        return [AUCParts.of(row, self.labels) for row in self._logits(paths).cpu().numpy()]

    @torch.no_grad()
    def _logits(self, paths: Paths) -> Tensor:
        """Logits of shape ``(paths, rows)``."""
        if len(paths) == 0:
            return torch.zeros(0, len(self.ids), device=self.ids.device)
        with evaluating(self.supernet):
            group = self.supernet.group(paths)
            return torch.cat([group(bank) for bank in self._banks()], dim=1)

    def _banks(self) -> Iterator[Bank]:
        for number, piece in enumerate(self.supernet.pieces(self.ids, self.block)):
            if number < len(self._kept):
                yield self._kept[number]
                continue
            bank = self.supernet.bank(piece)
            if number == len(self._kept) and self.kept_bytes + bank.nbytes <= self._room:
                self._kept.append(bank)
            yield bank
