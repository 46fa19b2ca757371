"""The supernet: one model that holds every candidate size of every field, and scores subnets with inherited weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema, Split
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.delong import AUCParts
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import ModelOptions, seeded
from optuna_aes.models.sharing import Paths, PrefixEmbedding, SeparateEmbedding
from optuna_aes.models.training import Feed, auc, evaluating

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

    @torch.no_grad()
    def logits(self, paths: Paths, ids: Tensor, *, block: int = 16384) -> Tensor:
        """Logits of many subnets on the same rows.

        The rows' embeddings are looked up once per block and shared by all subnets; a subnet multiplies only the
        columns it keeps. Memory is bounded by the block. The model is left in training mode if it was in it.

        Args:
            paths: Candidate positions, shape ``(paths, blocks)``.
            ids: int32, shape ``(rows, columns)``.
            block: Rows whose embeddings are held at a time.

        Returns:
            Shape ``(paths, rows)``.
        """
        if len(paths) == 0:
            return torch.zeros(0, len(ids), device=ids.device)
        with evaluating(self):
            # Pieces of equal length: batch norm takes the statistics of each, and has none of a last row on its own.
            pieces = torch.tensor_split(ids, max(1, -(-len(ids) // block)))
            return torch.cat([self._block_logits(paths, piece) for piece in pieces], dim=1)

    def _block_logits(self, paths: Paths, ids: Tensor) -> Tensor:
        bank, linear = self.embedding.bank(ids), self.embedding.first_order(ids)
        return torch.stack([self._subnet(bank, linear, path) for path in paths])

    def _subnet(self, bank: Sequence[Tensor], linear: Tensor | None, path: npt.NDArray[np.int64]) -> Tensor:
        groups, columns = self.embedding.select(bank, path)
        logits: Tensor = self.backbone(groups, linear, columns)
        return logits


class SubnetScorer:
    """Validation AUC of subnets with inherited weights, always on the same rows.

    Args:
        supernet: The trained supernet.
        split: Validation rows.
        rows: At most this many of them, drawn once by ``seed``.
        seed: Seed of the draw.
        block: Rows whose embeddings are held at a time.
    """

    def __init__(
        self, supernet: Supernet, split: Split, *, rows: int = 50_000, seed: int = 0, block: int = 16384
    ) -> None:
        self.supernet = supernet
        self.block = block
        device = next(supernet.parameters()).device
        feed = Feed(split, torch.device("cpu"))
        chosen: Tensor | slice = slice(None)
        if rows < len(feed):
            order = np.random.default_rng(seed).permutation(len(feed))[:rows]
            chosen = torch.from_numpy(np.sort(order))
        self.ids, labels = feed.batch(chosen)
        self.ids = self.ids.to(device)
        self.labels = labels.numpy()

    def __call__(self, paths: Paths) -> npt.NDArray[np.float64]:
        """AUC of every path, float64 of shape ``(paths,)``."""
        return np.array([auc(row, self.labels) for row in self._logits(paths)])

    def parts(self, paths: Paths) -> list[AUCParts]:
        """What each row contributes to the AUC of every path, to tell how sure a difference of two is."""
        return [AUCParts.of(row, self.labels) for row in self._logits(paths)]

    def _logits(self, paths: Paths) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self.supernet.logits(paths, self.ids, block=self.block).cpu().numpy()
        return logits
