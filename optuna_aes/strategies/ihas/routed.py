"""What iHAS leaves to deploy: a router, and one right-sized model for every cluster that it routes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.model import CTRModel, ModelOptions, seeded
from optuna_aes.strategies.ihas.gates import GateNetwork, gate_params

FEATURES = ("masked", "gates", "unmasked", "random")


@dataclass(frozen=True)
class RouterOptions:
    """What a router is made of.

    Args:
        features: What a row is told apart by: ``"masked"`` (e ⊙ z), ``"gates"`` (z), ``"unmasked"`` (e), or ``"random"``
            (a hash of its ids).
        dim: Width D of the router's embeddings.
        gate: Kind of gates.
        hidden: Units of the gate network.
    """

    features: str
    dim: int
    gate: str = "gaussian"
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise InputError(f"features={self.features!r} is not known: give one of {', '.join(FEATURES)}")

    @property
    def gated(self) -> bool:
        """Whether it needs a gate network."""
        return self.features in ("masked", "gates")

    def params(self, rows: int, fields: int) -> int:
        """Parameters of the router's tables and gate network; the few centroids are not counted.

        Args:
            rows: Rows of all tables.
            fields: Number of fields.
        """
        if self.features == "random":
            return 0
        return rows * self.dim + (gate_params(fields, self.dim, self.hidden) if self.gated else 0)


def features_of(values: Tensor, gates: Tensor | None, kind: str) -> Tensor:
    """What rows are clustered by.

    Args:
        values: Embeddings e, shape ``(batch, fields, D)``.
        gates: Deterministic gates of the same shape, for the kinds that have them.
        kind: ``"masked"``, ``"gates"`` or ``"unmasked"``.

    Returns:
        Shape ``(batch, fields · D)``.
    """
    if gates is None or kind == "unmasked":
        return values.flatten(1)
    return (gates if kind == "gates" else values * gates).flatten(1)


def hashed(ids: Tensor, multipliers: Tensor, count: int) -> Tensor:
    """Clusters by chance, but always the same one for the same ids: int64 of shape ``(batch,)``."""
    mixed = ((ids.long() + 2) * multipliers).sum(1)
    # The low bits of a sum of products know only the low bits of the ids.
    return torch.remainder((mixed ^ (mixed >> 31)) >> 11, count)


def multipliers(columns: int, seed: int) -> Tensor:
    """Odd factors of :func:`hashed`, int64 of shape ``(columns,)``."""
    drawn = np.random.default_rng((seed, 6)).integers(0, 2**62, columns)
    return torch.from_numpy(drawn * 2 + 1 - 2**62)


class Router(nn.Module):
    """x → gates → the nearest centroid. It is fitted once and never trained with the models that it routes to.

    Args:
        schema: The dataset's fields.
        options: What it is made of.
        count: Number of clusters.
    """

    table: Tensor
    centroids: Tensor
    multipliers: Tensor

    def __init__(self, schema: Schema, options: RouterOptions, count: int) -> None:
        super().__init__()
        self.options = options
        self.count = count
        if options.features == "random":
            self.register_buffer("multipliers", torch.ones(schema.columns, dtype=torch.int64))
            return
        fields = len(schema.fields)
        self.layout = FieldLayout(schema)
        # A buffer and no RowTable, for which the optimiser of the models' tables would keep moments.
        self.register_buffer("table", torch.zeros(self.layout.total_rows, options.dim))
        if options.gated:
            gates = GateNetwork(fields, options.dim, kind=options.gate, hidden=options.hidden)
            self.gates = gates.requires_grad_(False)
        self.register_buffer("centroids", torch.zeros(count, fields * options.dim))

    @classmethod
    def by_chance(cls, schema: Schema, options: RouterOptions, count: int, multipliers: Tensor) -> Router:
        """The router of the control that clusters rows by chance."""
        router = cls(schema, options, count)
        router.multipliers.copy_(multipliers)
        return router.to(multipliers.device).eval()

    def train(self, mode: bool = True) -> Router:
        """A router stays in evaluation mode: noise in its gates would send a row somewhere else at every step."""
        super().train(False)
        return self

    def values(self, ids: Tensor) -> Tensor:
        """Embeddings of shape ``(batch, fields, D)``."""
        return self.layout.pool(nn.functional.embedding(self.layout.rows(ids), self.table), ids)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        """Clusters of rows, int64 of shape ``(batch,)``."""
        if self.options.features == "random":
            return hashed(ids, self.multipliers, self.count)
        values = self.values(ids)
        gates = self.gates(values) if self.options.gated else None
        return nearest_of(features_of(values, gates, self.options.features), self.centroids)


def nearest_of(features: Tensor, centroids: Tensor) -> Tensor:
    """:func:`optuna_aes.strategies.ihas.clusters.nearest` in torch."""
    return (centroids.square().sum(1) - 2.0 * features @ centroids.T).argmin(1)


class RoutedModel(nn.Module):
    """One model per cluster; each row's logit comes from the model of its cluster.

    Trained as one model, every cluster's model learns from its own rows alone, for no other row reaches it.

    Args:
        router: Names the cluster of every row.
        models: The clusters' models.
    """

    def __init__(self, router: Router, models: Sequence[CTRModel]) -> None:
        super().__init__()
        self.router = router
        self.models = nn.ModuleList(models)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape ``(batch,)`` for int32 ids of shape ``(batch, columns)``."""
        clusters = self.router(ids)
        order, parts = [], []
        for c, model in enumerate(self.models):
            at = (clusters == c).nonzero().squeeze(1)
            if len(at):
                order.append(at)
                parts.append(_logits(model, ids[at]))
        back = torch.cat(order).argsort()
        return torch.cat(parts)[back]


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    if model.training and len(ids) == 1:  # batch norm refuses a row on its own: two of the same have no variance either
        pair: Tensor = model(ids.expand(2, -1))
        return pair[:1]
    logits: Tensor = model(ids)
    return logits


def cluster_sizes(schema: Schema, sizes: Mapping[str, int]) -> list[dict[str, int]]:
    """Sizes by ``field@cluster`` as one choice of sizes per cluster in use; a cluster in use has a field with a table.

    Where no cluster has any, there is one cluster without tables.
    """
    names = [f.name for f in schema.fields]
    found: list[dict[str, int]] = []
    while f"{names[0]}@{len(found)}" in sizes:
        found.append({name: int(sizes[f"{name}@{len(found)}"]) for name in names})
    return [chosen for chosen in found if any(chosen.values())] or found[:1]


def routed_model(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    dim: int,
    options: ModelOptions,
    router: RouterOptions,
    seed: int = 0,
) -> RoutedModel | CTRModel:
    """The untrained models of sizes by ``field@cluster``; the model itself where there is one cluster only.

    Args:
        schema: The dataset's fields.
        sizes: Size of every field in every cluster, by ``field@cluster``.
        dim: The common width D.
        options: What each model is made of.
        router: What the router is made of; its weights are zeros until they are loaded.
        seed: Seed of the initial values.
    """
    chosen = cluster_sizes(schema, sizes)
    models = [CTRModel(schema, one, dim=dim, options=options, seed=seed + 7919 * c) for c, one in enumerate(chosen)]
    if len(models) == 1:
        return models[0]
    with seeded(seed):
        return RoutedModel(Router(schema, router, len(models)), models)
