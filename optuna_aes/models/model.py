"""The CTR model: an embedding under a backbone, and the options that name one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.blocks import BlockEmbedding
from optuna_aes.models.embedding import MixedEmbedding
from optuna_aes.models.rows import RowTable


@dataclass(frozen=True)
class ModelOptions:
    """What a model is made of, apart from its embedding sizes.

    Args:
        backbone: A name among :data:`optuna_aes.models.backbones.registry.BACKBONES`.
        hidden: Widths of the tower's hidden layers.
        batch_norm: Whether hidden layers are batch-normalised.
        dropout: Share of hidden units dropped in training.
        cross_layers: Number of cross layers, for backbones that have them.
        align: How fields of different sizes meet: ``"pad"`` or ``"linear"`` (see :class:`MixedEmbedding`).
        init_std: Standard deviation of the tables' initial values.
    """

    backbone: str = "deepfm"
    hidden: tuple[int, ...] = (128, 64)
    batch_norm: bool = False
    dropout: float = 0.0
    cross_layers: int = 3
    align: str = "pad"
    init_std: float = 0.01

    def __post_init__(self) -> None:
        backbone_class(self.backbone)
        if self.align not in ("pad", "linear"):
            raise InputError(f"align={self.align!r} is not known: give 'pad' or 'linear'")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden={self.hidden} must be one or more widths of at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} is out of range: give a share in [0, 1)")
        if self.cross_layers < 1:
            raise InputError(f"cross_layers={self.cross_layers} is out of range: give at least 1")
        if not 0 < self.init_std < math.inf:
            raise InputError(f"init_std={self.init_std} must be above 0: tables of zeros cannot learn interactions")

    @property
    def of_backbone(self) -> dict[str, Any]:
        """What a backbone is made with, besides its widths."""
        return {name: getattr(self, name) for name in ("hidden", "batch_norm", "dropout", "cross_layers")}


class CTRModel(nn.Module):
    """A click model with right-sized embedding tables.

    Args:
        schema: The dataset's fields.
        sizes: Embedding size of every field by name, 0 for a dropped one.
        dim: The common width D.
        options: Backbone and the rest.
        seed: Seed of the initial values.
        partition: Blocks within and over fields, whose sizes are given then.
        embedding: What gives the backbone its input; made of the sizes if not given.

    Raises:
        InputError: If there are blocks, and ``align`` is not ``"pad"``.
    """

    def __init__(
        self,
        schema: Schema,
        sizes: Mapping[str, int],
        *,
        dim: int,
        options: ModelOptions,
        seed: int = 0,
        partition: Partition | None = None,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        backbone = backbone_class(options.backbone)
        backbone.check_fields(len(schema.fields))
        with seeded(seed):
            if embedding is None:
                embedding = self._embedding(schema, sizes, dim, options, backbone.first_order, partition)
            self.embedding = embedding
            widths: Any = embedding.widths
            self.backbone = backbone(widths, **options.of_backbone)

    @staticmethod
    def _embedding(
        schema: Schema,
        sizes: Mapping[str, int],
        dim: int,
        options: ModelOptions,
        linear: bool,
        partition: Partition | None,
    ) -> MixedEmbedding | BlockEmbedding:
        if partition is not None:
            check_align(options)
            return BlockEmbedding(schema, partition, sizes, with_linear=linear, std=options.init_std)
        return MixedEmbedding(schema, sizes, dim=dim, align=options.align, first_order=linear, std=options.init_std)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape ``(batch,)`` for int32 ids of shape ``(batch, columns)``."""
        groups, linear = self.embedding(ids)
        logits: Tensor = self.backbone(groups, linear)
        return logits


def check_align(options: ModelOptions) -> None:
    """Refuses maps where fields are divided into blocks: a field's values would need one each.

    Raises:
        InputError: If there are such maps.
    """
    if options.align != "pad":
        raise InputError(f"align={options.align!r} cannot be had with blocks within fields: give 'pad'")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draws from ``seed`` within the block, and leaves every generator of the caller as it was."""
    place = torch.device(device)
    cuda = place.type == "cuda"
    with torch.random.fork_rng(devices=[place] if cuda else []):
        # Not torch.manual_seed: it would also set the generators of devices that fork_rng does not put back.
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        yield


def row_tables(model: nn.Module) -> dict[str, RowTable]:
    """The model's row-updated tables by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, RowTable)}


def dense_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Everything a dense optimiser trains: all parameters that are not in a :class:`RowTable`."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
