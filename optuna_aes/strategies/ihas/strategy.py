"""iHAS as a strategy: instance-wise gates, clusters of rows by them, sizes and a model per cluster, a router.

Source: Yakun Yu, Shi-ang Qi, Jiuding Yang, Liyao Jiang, Di Niu, CIKM 2023, arXiv 2309.07967. From its abstract: Bernoulli
gates with stochastic selection and regularisers find embedding dimensions for every instance; their deterministic selection
clusters the samples; every cluster gets a model with sizes of its own. K-means on masked embeddings is told second-hand.
Reconstruction, as the paper's body could not be read: the gate network, both kinds of gates and the form of the regularisers,
the threshold on the share of a cluster's rows that use a column, what comes between columns of equal shares, merging of small
clusters, and the cost of the router.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from optuna_aes.budget import check_levels
from optuna_aes.data.dataset import Dataset, Schema
from optuna_aes.errors import InputError
from optuna_aes.models.feed import Feed
from optuna_aes.models.inherit import inherit
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.space import ClusteredSpace, EmbeddingSpace
from optuna_aes.strategies.base import OneShot
from optuna_aes.strategies.ihas.gates import GATES, regulariser
from optuna_aes.strategies.ihas.routed import RoutedModel, RouterOptions, cluster_sizes, routed_model
from optuna_aes.strategies.ihas.supernet import ClusterScorer, GatedSupernet
from optuna_aes.strategies.paths import threshold_path, to_candidates

CONTROLS = ("none", "one", "random", "unmasked")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IHAS(OneShot):
    """The iHAS strategy.

    Args:
        clusters: Numbers of clusters to look for; 1 is a single model without a router.
        thresholds: For how many values of θ a number of clusters is tried, at most.
        gate: ``"gaussian"`` or ``"concrete"``; see :mod:`optuna_aes.strategies.ihas.gates`.
        sparse: λ₁, the weight of the gates' mean openness.
        polar: λ₂, the weight of their mean distance from the row's mean; λ₁ must be below 0.8 λ₂.
        warmup: Share of the fit's steps in which the gates are there and the regularisers are not yet: from the first step on
            they decide every gate before it depends on its row. Chosen, with both weights, on seeds 11 to 13 of planted
            populations (``studies/bench/mixed.py``): there two clusters of gates share 1.00, .89 and .99 of their
            information with the populations; without a warm-up, at weights of .005 and .02, it was .97, .39 and .69.
        hidden: Units of the gate network.
        features: What rows are clustered by: ``"masked"`` (e ⊙ z), or the gates alone, ``"gates"`` (ours). Embeddings have
            a mean near 0, and so have both the masked and the open ones: K-means on e ⊙ z parts rows by their frequent values
            and not by what their gates let through.
        control: ``"none"``, or what iHAS must beat: ``"one"`` cluster, ``"random"`` clusters, ``"unmasked"`` embeddings
            in place of masked ones.
        count_router: Whether the router's tables and network count towards cost and budget. They hold more than a full-size
            model does; leave them out where another model serves the same embeddings anyway.
        warm: Whether the clusters' models start from the shared weights, and not from scratch.
        cluster_rows: Training rows that are clustered, at most.
        levels: Shares of the budget at which sizes are picked for retraining.
        score_rows: Validation rows that score a choice of sizes, at most.

    Raises:
        InputError: If a value is out of range.
    """

    name: ClassVar[str] = "ihas"
    every_size: ClassVar[bool] = True

    clusters: tuple[int, ...] = (1, 2, 4)
    thresholds: int = 32
    gate: str = "gaussian"
    sparse: float = 0.02
    polar: float = 0.08
    warmup: float = 0.3
    hidden: int = 64
    features: str = "gates"
    control: str = "none"
    count_router: bool = True
    warm: bool = False
    cluster_rows: int = 100_000
    levels: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3)
    score_rows: int = 50_000

    def __post_init__(self) -> None:
        check_levels(self.levels)
        for name in ("thresholds", "hidden", "cluster_rows", "score_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least 1")
        if not self.clusters or min(self.clusters) < 1 or len(set(self.clusters)) < len(self.clusters):
            raise InputError(f"clusters={self.clusters} must be one or more different numbers of at least 1")
        known = {"gate": tuple(GATES), "features": ("masked", "gates"), "control": CONTROLS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise InputError(f"{name}={getattr(self, name)!r} is not known: give one of {', '.join(values)}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup} is out of range: give a share of the steps below 1")
        if not 0 <= self.sparse < 0.8 * self.polar < float("inf"):
            raise InputError(
                f"sparse={self.sparse} must be 0 or more, and below 0.8 · polar={0.8 * self.polar:g}: else all gates close"
            )

    @property
    def budget_levels(self) -> tuple[float, ...]:
        """See :attr:`Strategy.budget_levels`."""
        return self.levels

    @property
    def normalises(self) -> bool:
        """The gate network normalises the embeddings."""
        return True

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of clusters, of which the control of one cluster has one."""
        return (1,) if self.control == "one" else self.clusters

    def router_options(self, dim: int) -> RouterOptions:
        """What a router over embeddings of width ``dim`` is made of."""
        features = self.control if self.control in ("random", "unmasked") else self.features
        return RouterOptions(features=features, dim=dim, gate=self.gate, hidden=self.hidden)

    def space(self, fields: EmbeddingSpace) -> EmbeddingSpace:
        """A size for every field in every cluster."""
        router = self.router_options(fields.full).params(int(fields.rows.sum()), len(fields))
        counts = self.counts
        return ClusteredSpace(fields, clusters=max(counts), router=router, counted=self.count_router, least=min(counts))

    def model(
        self,
        schema: Schema,
        sizes: Mapping[str, int],
        *,
        dim: int,
        options: ModelOptions,
        supernet: Callable[[], Supernet],
        seed: int = 0,
    ) -> nn.Module:
        """One untrained model per cluster behind the fitted router; one model alone where there is one cluster.

        They are trained as one model: every batch is routed, so that each cluster's model learns from its own rows alone.
        Validation AUC, early stopping and learning rate are those of all clusters together.
        """
        router = self.router_options(dim)
        model = routed_model(schema, sizes, dim=dim, options=options, router=router, seed=seed)
        if isinstance(model, RoutedModel):
            net = gated(supernet())
            model.router.load_state_dict(net.router(net.position(len(model.models))).state_dict())
        if self.warm:
            self._inherit(model, gated(supernet()).cpu(), cluster_sizes(schema, sizes))
        return model

    @staticmethod
    def _inherit(model: nn.Module, net: GatedSupernet, sizes: Sequence[Mapping[str, int]]) -> None:
        position = net.clusterings().get(len(sizes))
        if position is None:  # a reference point, of a search without a single model: from scratch
            return
        models = model.models if isinstance(model, RoutedModel) else [model]
        kept = net.kept(position, torch.tensor([list(one.values()) for one in sizes]))
        for one, columns in zip(models, kept, strict=True):
            assert isinstance(one, CTRModel)
            inherit(one, net, columns)

    def supernet(self, schema: Schema, candidates: Sequence[int], *, model: ModelOptions, seed: int = 0) -> Supernet:
        """The untrained full-size model with its gate network."""
        router = self.router_options(candidates[-1])
        return GatedSupernet(schema, candidates, options=model, router=router, clusters=self.counts, seed=seed)

    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """Trains model and gates together, with the regularisers in the loss."""
        gates, hook = gated(supernet).gates, WarmUp(self.warmup)

        def penalty() -> torch.Tensor:
            assert gates.open is not None
            if not hook.over:
                return gates.open.new_zeros(())
            return regulariser(gates.open, sparse=self.sparse, polar=self.polar)

        return Trainer(
            supernet, dataset.train, dataset.valid, options, seed=seed, device=device, hook=hook, penalty=penalty
        )

    def finish(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> None:
        """Clusters training rows."""
        net = gated(supernet)
        feed = Feed(dataset.train, torch.device("cpu"))
        rows = np.random.default_rng((seed, 8)).permutation(len(feed))[: self.cluster_rows]
        ids, _ = feed.batch(torch.from_numpy(np.sort(rows)))
        net.find_clusters(ids.to(net.found.device), seed=seed)
        found = ", ".join(f"{int(n)} of {k}" for n, k in zip(net.found, net.clusters, strict=True))
        _logger.info("%.1f%% of all gates stay undecided; clusters found: %s", 100 * float(net.interior), found)

    def scorer(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> SubnetScorer:
        """Scores sizes per cluster, each row under the mask of its cluster."""
        return ClusterScorer(gated(supernet), dataset.valid, rows=self.score_rows, seed=seed)

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """For every number of clusters the sizes at thresholds θ, positions of shape ``(points, most clusters · fields)``.

        sizes[c][f] is the number of columns that more than a share of θ of the cluster's rows use; below 0, θ keeps all. The
        path goes on between and beyond these points, from column to column of equal shares, as
        :meth:`GatedSupernet.importance` ranks them: else it would end where all are left that every row uses.
        A cluster that is in use keeps at least one column, so that the sizes tell how many clusters there are; and where
        θ has more distinct values than are asked for, evenly spaced ones are taken.
        """
        net = gated(supernet)
        candidates = net.embedding.candidates
        points = []
        for count, position in sorted(net.clusterings().items()):
            ranks = net.importance(position).cpu().numpy()
            nested = to_candidates(threshold_path(ranks.reshape(-1, ranks.shape[2])), candidates)
            sizes = nested.reshape(len(nested), *ranks.shape[:2])
            if count > 1:
                nested = nested[np.all((sizes > 0).any(2), axis=1)]
            taken = np.unique(np.linspace(0, len(nested) - 1, min(self.thresholds, len(nested))).round().astype(int))
            points.append(np.pad(nested[taken], ((0, 0), (0, (max(self.counts) - count) * ranks.shape[1]))))
        return np.concatenate(points)


class WarmUp(StepHook):
    """Tells whether a training's first steps are over; see :class:`optuna_aes.models.step_hook.StepHook`."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.over = False

    def before(self, step: int, steps: int) -> None:
        """A function of the step alone, so that a resumed training has the same."""
        self.over = step >= self.share * steps


def gated(supernet: Supernet) -> GatedSupernet:
    """The supernet, of which iHAS asks for its gates."""
    assert isinstance(supernet, GatedSupernet)
    return supernet
