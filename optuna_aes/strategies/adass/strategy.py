"""AdaS&S: a one-shot supernet trained with adaptive sampling, searched by reinforcement learning.

He Wei, Yuekui Yang, Yang Zhang, Haiyang Wu, Meixi Liu, Shaoping Ma, 2024, arXiv 2411.07504. The abstract is what we could
read: the supernet's sharing, the sampling's formulas and the penalty's form are reconstructions, each with a switch.
This module fits and scores; the search policies are in :mod:`optuna_aes.strategies.adass.policy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.blocks import Partition, check_blocks, partition
from optuna_aes.data.dataset import Dataset, Schema
from optuna_aes.errors import InputError
from optuna_aes.models.feed import Feed
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.precision import logits, takes_bfloat16
from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.adass.policy import Floats, PolicyOptions
from optuna_aes.strategies.adass.sampling import PathSampler, SamplingOptions
from optuna_aes.strategies.base import OneShot

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class AdaSS(OneShot):
    """The AdaS&S strategy.

    Args:
        sharing: ``"prefix"`` (one table per field, candidates are its first columns; the default by measurement) or
            ``"separate"`` (a table per candidate, aligned by a map and a batch norm).
        sampling: How the supernet's paths are drawn.
        policy: How sizes are searched in the trained supernet.
        score_rows: Validation rows that score a subnet, at most.
        race: Share of them that come first in scoring: what seems to add nothing to the front there is not scored on the
            rest (see :mod:`optuna_aes.models.racing`). 0 scores all subnets on all rows.
        blocks: What has a size of its own: ``"field"``, or ``"frequency"``, ``parts`` ranges of every large field's values by
            training frequency, for rare values need fewer columns than frequent ones. The paper searches fields; blocks are
            DNIS's idea (Cheng et al., 2020, arXiv 2006.04466), and so are ``"shares"`` and ``"bands"``
            (see :func:`optuna_aes.data.blocks.partition`).
        parts: See ``blocks``.

    Raises:
        InputError: If a value is out of range.
    """

    name: ClassVar[str] = "adass"
    sampler: ClassVar[str] = "adass"
    trims: ClassVar[bool] = True

    # Blocks of fewer rows save next to nothing, and each is one more size to search.
    BLOCK_ROWS: ClassVar[int] = 32

    sharing: str = "prefix"
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    score_rows: int = 50_000
    race: float = 0.0
    blocks: str = "field"
    parts: int = 5

    def __post_init__(self) -> None:
        check_blocks(self.blocks, self.parts)
        if self.sharing == "separate" and self.blocks != "field":
            raise InputError(f"sharing='separate' has a size per field: blocks={self.blocks!r} needs sharing='prefix'")
        if self.sharing not in ("prefix", "separate"):
            raise InputError(f"sharing={self.sharing!r} is not known: give 'prefix' or 'separate'")
        if self.sharing == "separate" and self.sampling.paths != 1:
            raise InputError("sharing='separate' trains one path a step: set sampling.paths=1")
        if not 0 <= self.race < 1:
            raise InputError(f"race={self.race} is out of range: give a share in [0, 1)")
        if self.score_rows < 1:
            raise InputError(f"score_rows={self.score_rows} is out of range: give at least 1")

    @property
    def budget_levels(self) -> tuple[float, ...]:
        """The levels of the policy."""
        return self.policy.levels

    @property
    def fit_settings(self) -> dict[str, Any]:
        """Sharing, sampling and blocks; the baselines that search this supernet can take it over."""
        blocks = {} if self.blocks == "field" else {"blocks": self.blocks, "parts": self.parts}
        return {"name": AdaSS.name, "sharing": self.sharing, "sampling": self.sampling, **blocks}

    @property
    def table_per_field(self) -> bool:
        """See :attr:`OneShot.table_per_field`."""
        return self.sharing == "prefix"

    @property
    def normalises(self) -> bool:
        """Separate tables are batch-normalised."""
        return self.sharing == "separate"

    @property
    def horizon(self) -> int:
        """That of the policy, which explores less and less along it."""
        return self.policy.horizon

    def planned(self, trials: int) -> Self:
        """See :attr:`horizon`."""
        return replace(self, policy=replace(self.policy, horizon=trials))

    def partition(self, dataset: Dataset) -> Partition | None:
        """The blocks, by frequency in the training rows."""
        return partition(dataset.schema, dataset.train.ids, self.blocks, self.parts, least=self.BLOCK_ROWS)

    def supernet(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        model: ModelOptions,
        seed: int = 0,
        partition: Partition | None = None,
    ) -> Supernet:
        """The untrained supernet."""
        return Supernet(schema, candidates, options=model, sharing=self.sharing, seed=seed, partition=partition)

    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """The training of a supernet; its validation AUC is the mean over a fixed panel of subnets.

        The panel holds every uniform size, so that the checkpoint kept is good at small sizes too.
        """
        supernet.to(device)
        embedding = supernet.embedding
        blocks, count = embedding.blocks, len(embedding.candidates)
        panel = np.array([np.full(blocks, k) for k in range(count) if embedding.candidates[k] > 0])
        scorer = self.scorer(supernet, dataset, seed=seed)
        drops = embedding.candidates[0] == 0
        paths = PathSampler(blocks, count, self.sampling, seed=seed, drops=drops)
        hook = SupernetHook(supernet, dataset, paths, seed=seed, amp=takes_bfloat16(options, device))
        return Trainer(
            supernet,
            dataset.train,
            dataset.valid,
            options,
            seed=seed,
            device=device,
            hook=hook,
            evaluate=lambda: float(scorer(panel).mean()),
        )

    def scorer(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> SubnetScorer:
        """Scores subnets of a trained supernet on validation rows."""
        return SubnetScorer(supernet, dataset.valid, rows=self.score_rows, seed=seed)


class SupernetHook(StepHook):
    """Draws the paths of each training step, and feeds what the step showed back to the sampler.

    Args:
        supernet: The supernet in training.
        dataset: Its data; the probe batch is drawn from the training rows.
        sampler: Draws paths and keeps the statistics.
        seed: Seed of the probe batch.
        amp: Whether probes compute in bfloat16.
    """

    # Field importance moves slowly: every so many steps is often enough.
    IMPORTANCE_EVERY: ClassVar[int] = 4

    def __init__(
        self, supernet: Supernet, dataset: Dataset, sampler: PathSampler, *, seed: int = 0, amp: bool = False
    ) -> None:
        self.supernet = supernet
        self.sampler = sampler
        self.seed = seed
        self.amp = amp
        self.paths = np.zeros((1, supernet.embedding.blocks), dtype=np.int64)
        self._probe: tuple[Tensor, Tensor] | None = None
        if sampler.options.table == "probe":
            feed = Feed(dataset.train, torch.device("cpu"))
            rows = np.random.default_rng((seed, 2)).permutation(len(feed))[: sampler.options.probe_rows]
            device = supernet.embedding.candidate_sizes.device
            ids, labels = feed.batch(torch.from_numpy(np.sort(rows)))
            self._probe = ids.to(device), labels.to(device)

    def before(self, step: int, steps: int) -> None:
        """Draws the step's paths; see :class:`optuna_aes.models.step_hook.StepHook`."""
        every = max(1, steps // self.sampler.options.probes)
        if self._probe is not None and step % every == 0 and step >= self.sampler.options.warmup * steps:
            self.sampler.observe_probe(self._probe_lag(step))
        self.paths = self.sampler.draw(step, step / steps)
        self.supernet.embedding.set_paths(self.paths, self.sampler.draw_fields(step))
        self.supernet.embedding.keep_gradient = self._watches(step)

    def after(self, step: int, losses: Tensor) -> None:
        """Observes the step's losses or gradients."""
        embedding = self.supernet.embedding
        output = embedding.output
        if output is not None and output.grad is not None:
            contribution = embedding.by_block((output.grad * output.detach()).sum(2).abs()).mean(0)
            if self.sampler.options.field_share < 1:
                self.sampler.observe_importance(_numpy(contribution))
            if self.sampler.options.table == "grad":
                self.sampler.observe(self.paths, self._gradient_norms(output.grad))
        embedding.output, embedding.output_blocks, embedding.keep_gradient = None, None, False
        if self.sampler.options.table == "loss":
            total = self._by_path(losses)
            rows = self._by_path(torch.ones_like(losses))
            drawn = rows > 0  # a last batch may have fewer rows than there are paths
            self.sampler.observe(self.paths[drawn], total[drawn] / rows[drawn])

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return self.sampler.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.sampler.load(state)

    def _watches(self, step: int) -> bool:
        options = self.sampler.options
        return options.table == "grad" or (options.field_share < 1 and step % self.IMPORTANCE_EVERY == 0)

    def _gradient_norms(self, grad: Tensor) -> Floats:
        """Gradient norms of every path's tables over √size, shape ``(paths, blocks)``; a size of 0 has no table."""
        embedding = self.supernet.embedding
        sizes = np.array(embedding.candidates)[self.paths]
        norms = np.sqrt(self._by_path(embedding.by_block(grad.square().sum(2))) / np.maximum(sizes, 1))
        return np.where(sizes > 0, norms, 0.0)

    def _by_path(self, values: Tensor) -> Floats:
        """Sums over each path's rows of the batch, shape ``(paths, ...)`` for values of shape ``(batch, ...)``."""
        piece = self.supernet.embedding.piece_of(len(values))
        return _numpy(values.new_zeros(len(self.paths), *values.shape[1:]).index_add_(0, piece, values))

    def _probe_lag(self, step: int) -> Floats:
        """Mean over random subnets of loss(f←k) − min_k' loss(f←k'), shape ``(fields, candidates)``."""
        assert self._probe is not None
        ids, labels = self._probe
        fields, count = self.sampler.fields, self.sampler.candidates
        rng = np.random.default_rng((self.seed, step, 3))
        lag = np.zeros((fields, count))
        for subnet in rng.integers(count, size=(self.sampler.options.probe_subnets, fields)):
            paths = np.repeat(subnet[None], fields * count, axis=0)
            at = np.arange(fields * count)
            paths[at, at // count] = at % count
            found = logits(partial(self.supernet.logits, paths), ids, amp=self.amp)
            losses = F.binary_cross_entropy_with_logits(found, labels.expand_as(found), reduction="none").mean(1)
            table = _numpy(losses).reshape(fields, count)
            lag += table - table.min(1, keepdims=True)
        return lag / self.sampler.options.probe_subnets


def _numpy(values: Tensor) -> Floats:
    return values.detach().cpu().numpy().astype(np.float64)
