"""Adaptive sampling of supernet paths: which size each field trains next, and which fields' tables are updated.

Reconstruction of AdaS&S (Wei et al., 2024, arXiv 2411.07504). The abstract says that adaptive sampling trains the supernet
well; a second-hand summary names two layers, table sampling that favours under-performing candidates and feature sampling
that favours important fields. The formulas here are ours (the ramp follows PA&DA, Lu et al., 2023, arXiv 2302.14772).
The statistics are numpy, and know neither model nor study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import InputError
from optuna_aes.strategies.adass.policy import Floats, softmax

TABLE_SAMPLING = ("probe", "grad", "loss", "uniform")


@dataclass(frozen=True)
class SamplingOptions:
    """How paths are drawn.

    Args:
        table: What says how far a candidate lags: ``"probe"`` (loss on a fixed probe batch), ``"grad"`` (gradient norm),
            ``"loss"`` (training loss of the paths that used it), or ``"uniform"`` (nothing: every candidate alike).
        full_share: Share of the paths of a step that have the full size everywhere. The sandwich habit of slimmable
            networks (Yu and Huang, 2019, arXiv 1903.05134) is ``table="uniform"`` with ``full_share=0.5``.
        paths: Distinct paths in one step, each on its own piece of the batch; 1 is the single path of the paper's summary.
            Give 1 to a backbone with batch norm: subnets are scored one by one, and one that was trained in mixed company
            meets other batch statistics there.
        field_share: Share of fields whose tables a step updates, drawn by importance; 1 updates all.
        warmup: Share of the steps that draw uniformly.
        delta: Largest weight of the lag against the uniform draw, reached at the end of a linear ramp.
        rho: Weight of importance against the uniform draw of fields.
        tau: Temperature of the softmax over standardised lags.
        decay: Decay of the running means.
        probes: How often in a training run lags are probed; for ``table="probe"``.
        probe_rows: Rows of the probe batch.
        probe_subnets: Random subnets that a probe averages over.
    """

    table: str = "probe"
    full_share: float = 0.1
    paths: int = 8
    field_share: float = 1.0
    warmup: float = 0.15
    delta: float = 0.7
    rho: float = 0.5
    tau: float = 1.0
    decay: float = 0.9
    probes: int = 8
    probe_rows: int = 2048
    probe_subnets: int = 2

    def __post_init__(self) -> None:
        if self.table not in TABLE_SAMPLING:
            raise InputError(f"table={self.table!r} is not known: give one of {', '.join(TABLE_SAMPLING)}")
        for name in ("full_share", "warmup", "delta", "rho", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give a share in [0, 1]")
        if not 0 < self.field_share <= 1:
            raise InputError(f"field_share={self.field_share} is out of range: give a share in (0, 1]")
        for name in ("paths", "probes", "probe_rows", "probe_subnets"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least 1")
        if not self.tau > 0:
            raise InputError(f"tau={self.tau} must be above 0")


class PathSampler:
    """Draws the paths of every step from running statistics of the training.

    A draw depends on seed, step and statistics only, so a resumed training draws what an uninterrupted one would.

    Args:
        fields: Number of fields F, or of blocks where fields are divided.
        candidates: Number of candidates K, ascending in size.
        options: How paths are drawn.
        seed: Seed of the draws.
        drops: Whether the first candidate is size 0. It has no table that more training could help, and the lag of a field
            that cannot be missed would send most steps to a model without that field; so its probability stays 1/K.
    """

    def __init__(
        self, fields: int, candidates: int, options: SamplingOptions, *, seed: int = 0, drops: bool = False
    ) -> None:
        self.fields = fields
        self.candidates = candidates
        self.options = options
        self.seed = seed
        self.first = 1 if drops and candidates > 1 else 0
        self.lag: Floats = np.zeros((fields, candidates))
        self.seen: npt.NDArray[np.bool_] = np.zeros((fields, candidates), dtype=bool)
        self.importance: Floats = np.ones(fields)

    def probabilities(self, progress: float) -> Floats:
        """Probability of every candidate, float64 of shape ``(fields, candidates)``.

        Args:
            progress: Share of the training that is done, in [0, 1].
        """
        uniform = np.full((self.fields, self.candidates), 1.0 / self.candidates)
        ramp = (progress - self.options.warmup) / max(1e-9, 1.0 - self.options.warmup)
        if self.options.table == "uniform" or ramp <= 0 or not self.seen.any():
            return uniform
        weight = self.options.delta * ramp
        favour = uniform.copy()
        trained = slice(self.first, None)
        mass = uniform[:, trained].sum(1, keepdims=True)
        lag = _standardised(self.lag[:, trained], self.seen[:, trained])
        favour[:, trained] = mass * softmax(lag / self.options.tau)
        return (1 - weight) * uniform + weight * favour

    def draw(self, step: int, progress: float) -> npt.NDArray[np.int64]:
        """The paths of a step, int64 of shape ``(paths, fields)``.

        Args:
            step: Number of the step, from 0.
            progress: Share of the training that is done.
        """
        count = self.options.paths
        rng = np.random.default_rng((self.seed, step, 0))
        edges = self.probabilities(progress).cumsum(1)
        drawn = (rng.random((count, self.fields, 1)) > edges[None, :, :-1]).sum(2)
        # full_share of all paths of the run: with one path a step, every so many steps
        full = np.floor((step + 1) * count * self.options.full_share) - np.floor(step * count * self.options.full_share)
        drawn[: int(full)] = self.candidates - 1
        return np.asarray(drawn, dtype=np.int64)

    def draw_fields(self, step: int) -> npt.NDArray[np.bool_] | None:
        """Which fields' tables a step updates, shape ``(fields,)``; None for all."""
        if self.options.field_share >= 1:
            return None
        # 0.55 · 20 is 11, and a rounding error more
        count = int(np.ceil(self.options.field_share * self.fields - 1e-9))
        rho = self.options.rho
        share = (1 - rho) / self.fields + rho * self.importance / max(1e-12, self.importance.sum())
        share = np.maximum(share, 1e-12)  # without importance, at rho = 1: last in the draw
        # Gumbel top-k draws without replacement
        keys = np.log(share) + np.random.default_rng((self.seed, step, 1)).gumbel(size=self.fields)
        update = np.zeros(self.fields, dtype=bool)
        update[np.argsort(-keys)[:count]] = True
        return update

    def observe(self, paths: npt.NDArray[np.int64], values: Floats) -> None:
        """Folds a measure of the drawn candidates into the lags.

        Args:
            paths: What was drawn, shape ``(paths, fields)``.
            values: The measure, shape ``(paths,)`` for a loss or ``(paths, fields)`` for a gradient norm.
        """
        values = np.broadcast_to(values.reshape(len(paths), -1), paths.shape)
        for path, value in zip(paths, values, strict=True):
            at = (np.arange(self.fields), path)
            keep = np.where(self.seen[at], self.options.decay, 0.0)
            self.lag[at] = keep * self.lag[at] + (1 - keep) * value
            self.seen[at] = True

    def observe_probe(self, lag: Floats) -> None:
        """Takes the lags that a probe measured, shape ``(fields, candidates)``."""
        self.lag[:], self.seen[:] = lag, True

    def observe_importance(self, saliency: Floats) -> None:
        """Folds mean |<∂L/∂h_f, h_f>| of a step into the fields' importance, shape ``(fields,)``."""
        decay = self.options.decay
        self.importance = decay * self.importance + (1 - decay) * saliency / max(1e-12, saliency.mean())

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"lag": self.lag.tolist(), "seen": self.seen.tolist(), "importance": self.importance.tolist()}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.lag, self.importance = np.array(state["lag"]), np.array(state["importance"])
        self.seen = np.array(state["seen"], dtype=bool)


def _standardised(lag: Floats, seen: npt.NDArray[np.bool_]) -> Floats:
    """Lags less their field's mean over their field's deviation; 0 where nothing was seen."""
    filled = np.where(seen, lag, np.nan)
    known = seen.any(1)
    out = np.zeros_like(lag)
    rows = filled[known]
    spread = np.nanstd(rows, axis=1, keepdims=True)
    out[known] = (rows - np.nanmean(rows, axis=1, keepdims=True)) / np.maximum(spread, 1e-12)
    return np.nan_to_num(out)
