"""iHAS's supernet: a full-size model behind instance-wise gates, the clusters found in it, and how it scores them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optuna_aes.data.dataset import Schema, Split
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import evaluating
from optuna_aes.models.model import ModelOptions, seeded
from optuna_aes.models.sharing import Paths
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.strategies.ihas.clusters import cluster, open_shares
from optuna_aes.strategies.ihas.gates import GateNetwork
from optuna_aes.strategies.ihas.routed import Router, RouterOptions, features_of, multipliers


class GatedSupernet(Supernet):
    """A full-size model whose embeddings pass through gates; after the fit it also holds clusters of rows.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order; the last one is D.
        options: Backbone and the rest.
        router: The gates, and what rows are clustered by.
        clusters: Numbers of clusters that are looked for.
        seed: Seed of the initial values.
    """

    found: Tensor
    interior: Tensor
    multipliers: Tensor

    def __init__(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        options: ModelOptions,
        router: RouterOptions,
        clusters: Sequence[int],
        seed: int = 0,
    ) -> None:
        super().__init__(schema, candidates, options=options, sharing="prefix", seed=seed)
        fields, dim = self.embedding.fields, self.embedding.dim
        self.schema = schema
        self.router_options = router
        self.clusters = tuple(clusters)
        with seeded(seed + 1):
            self.gates = GateNetwork(fields, dim, kind=router.gate, hidden=router.hidden)
        # How many clusters each search for clusters ended with, and what became of them; 0 until then.
        self.register_buffer("found", torch.zeros(len(self.clusters), dtype=torch.int64))
        self.register_buffer("interior", torch.zeros(()))
        self.register_buffer("multipliers", multipliers(schema.columns, seed))
        for i, count in enumerate(self.clusters):
            self.register_buffer(f"centroids{i}", torch.zeros(count, fields * dim))
            self.register_buffer(f"shares{i}", torch.zeros(count, fields, dim))
            self.register_buffer(f"spreads{i}", torch.zeros(count, fields, dim))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of shape ``(batch,)``: with drawn gates in training, with deterministic ones otherwise."""
        (values,), linear = self.embedding(ids)
        gates = self.gates(values)
        present = (gates.detach() > 0).any(2) if self.backbone.by_field else None
        logits: Tensor = self.backbone([values * gates], linear, present=present)
        return logits

    def values(self, ids: Tensor) -> Tensor:
        """Embeddings without gates or gradient, shape ``(batch, fields, D)``."""
        with torch.no_grad():
            return self.embedding.bank(ids)[0]

    @torch.no_grad()
    def find_clusters(self, ids: Tensor, *, seed: int = 0, block: int = 16384) -> None:
        """Clusters training rows for every number of clusters asked for, into the buffers.

        Args:
            ids: int32, shape ``(rows, columns)``.
            seed: Seed of K-means.
            block: Rows of a forward pass.
        """
        with evaluating(self):
            parts = [self._row_facts(piece) for piece in _pieces(ids, block)]
        features, open_ = (np.concatenate(part) for part in list(zip(*parts, strict=True))[:2])
        self.interior.fill_(float(np.concatenate([part[2] for part in parts]).mean()))
        for i, count in enumerate(self.clusters):
            if self.router_options.features == "random" and count > 1:
                labels = Router.by_chance(self.schema, self.router_options, count, self.multipliers)(ids).cpu().numpy()
                kept = count
            else:
                clustering = cluster(features, count, seed=seed)
                labels, kept = clustering.labels, len(clustering.centroids)
                self._buffer("centroids", i)[:kept] = torch.from_numpy(clustering.centroids)
            self._buffer("shares", i)[:kept] = torch.from_numpy(open_shares(open_, labels, kept)).float()
            self._buffer("spreads", i)[:kept] = self._spreads(ids, torch.from_numpy(labels), kept, block).float()
            self.found[i] = kept

    def _row_facts(self, ids: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Features, whether gates are open, and whether they are undecided, of one block of rows."""
        values = self.values(ids)
        gates = self.gates(values)
        features = features_of(values, gates, self.router_options.features)
        return features.cpu().numpy(), (gates > 0.5).cpu().numpy(), self.gates.interior(values).cpu().numpy()

    def _spreads(self, ids: Tensor, labels: Tensor, count: int, block: int) -> Tensor:
        """Standard deviation of e ⊙ z over each cluster's rows, float64 of shape ``(clusters, fields, D)``."""
        sums = torch.zeros(2, count, self.embedding.fields, self.embedding.dim, dtype=torch.float64, device=ids.device)
        with evaluating(self):
            for piece, mine in zip(_pieces(ids, block), _pieces(labels.to(ids.device), block), strict=True):
                values = self.values(piece)
                masked = (values * self.gates(values)).double()
                sums[0].index_add_(0, mine, masked)
                sums[1].index_add_(0, mine, masked.square())
        rows = torch.bincount(labels, minlength=count).clamp(min=1).to(ids.device).view(-1, 1, 1)
        mean, square = sums / rows
        variance: Tensor = square - mean.square()
        return variance.clamp(min=0).sqrt()

    def clusterings(self) -> dict[int, int]:
        """Which search for clusters to take for a number of clusters: position by number, the first of equals.

        One that asked for this very number goes before one that asked for more and lost some.
        """
        found = [int(n) for n in self.found]
        exact = {n: i for i, n in enumerate(found) if n == self.clusters[i]}
        return {**{n: i for i, n in reversed(list(enumerate(found))) if n}, **exact}

    def position(self, count: int) -> int:
        """The position in :meth:`clusterings` for a number of clusters.

        Raises:
            InputError: If no search for clusters ended with this number.
        """
        known = self.clusterings()
        if count not in known:
            raise InputError(f"sizes use {count} clusters, and the fit found {sorted(known)}: give sizes for so many")
        return known[count]

    def shares(self, position: int) -> Tensor:
        """Share of each cluster's rows in which each gate is open, shape ``(clusters, fields, D)``."""
        return self._buffer("shares", position)[: int(self.found[position])]

    def importance(self, position: int) -> Tensor:
        """Ranks of all clusters' columns, int64 of shape ``(clusters, fields, D)``; equal columns have the same.

        First comes the share of rows that use a column, then how far its values e ⊙ z spread over the cluster's rows: most
        gates end open, or closed, for all rows, and of these those tell rows apart least whose values hardly differ.
        """
        spreads = self._buffer("spreads", position)[: int(self.found[position])]
        facts = torch.stack([self.shares(position), spreads], dim=-1)
        ranks: Tensor = torch.unique(facts.flatten(0, 2), dim=0, return_inverse=True)[1]
        return ranks.view(facts.shape[:3])

    def kept(self, position: int, sizes: Tensor) -> Tensor:
        """The most important columns of a cluster, as many as its sizes say, bool of shape ``(clusters, fields, D)``.

        Args:
            position: Which search for clusters.
            sizes: Shape ``(clusters, fields)``.
        """
        order = self.importance(position).argsort(dim=2, descending=True, stable=True)
        return order.argsort(dim=2) < sizes.unsqueeze(2)

    def router(self, position: int) -> Router:
        """The router to the clusters of one search for them."""
        count = int(self.found[position])
        if self.router_options.features == "random":
            return Router.by_chance(self.schema, self.router_options, count, self.multipliers)
        router = Router(self.schema, self.router_options, count)
        state = {
            "table": self.embedding.get_parameter("table.weight"),
            "centroids": self._buffer("centroids", position)[:count],
        }
        if self.router_options.gated:
            state |= {f"gates.{name}": value for name, value in self.gates.state_dict().items()}
        router.load_state_dict(state)
        return router.to(self.found.device).eval()

    def _buffer(self, name: str, position: int) -> Tensor:
        return self.get_buffer(f"{name}{position}")


class ClusterScorer(SubnetScorer):
    """Validation AUC of sizes per cluster with inherited weights, pooled over all clusters.

    A row keeps, of every field, as many columns as its cluster has for it: the most important ones.
    Gates have no part in it, as the models that are trained from scratch have none.
    """

    def __init__(self, supernet: GatedSupernet, split: Split, *, rows: int, seed: int = 0, block: int = 16384) -> None:
        super().__init__(supernet, split, rows=rows, seed=seed, block=block)
        self.gated = supernet
        self.assigned = {
            count: torch.cat([supernet.router(i)(piece) for piece in _pieces(self.ids, block)])
            for count, i in supernet.clusterings().items()
        }

    def _logits(self, paths: Paths) -> Tensor:
        masks = [self._mask(path) for path in paths]
        # Pieces of equal length, as batch norm cannot take a last row on its own.
        pieces = torch.arange(len(self.ids), device=self.ids.device).tensor_split(
            max(1, -(-len(self.ids) // self.block))
        )
        with torch.no_grad(), evaluating(self.supernet):
            blocks = [self._block(slice(int(p[0]), int(p[-1]) + 1), masks) for p in pieces]
        return torch.cat(blocks, dim=1)

    def _mask(self, path: npt.NDArray[np.int64]) -> Tensor:
        """Which columns every cluster keeps, bool of shape ``(clusters, fields, D)``."""
        embedding = self.gated.embedding
        chosen = torch.from_numpy(path).to(self.ids.device)
        sizes = embedding.candidate_sizes[chosen].view(-1, embedding.fields)
        count = max(1, int((sizes > 0).any(1).sum()))
        return self.gated.kept(self.gated.position(count), sizes[:count])

    def _block(self, rows: slice, masks: Sequence[Tensor]) -> Tensor:
        ids = self.ids[rows]
        values, linear = self.gated.values(ids), self.gated.embedding.first_order(ids)
        logits = []
        for mask in masks:
            kept = mask[self.assigned[len(mask)][rows]]
            present = kept.any(2) if self.gated.backbone.by_field else None
            logits.append(self.gated.backbone([values * kept], linear, present=present))
        return torch.stack(logits)


def _pieces(ids: Tensor, block: int) -> Iterator[Tensor]:
    yield from torch.split(ids, block)
