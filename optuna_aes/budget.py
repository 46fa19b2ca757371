"""The memory budget: the one place where a limit on parameters or bytes is computed, checked and repaired."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import optuna

from optuna_aes.errors import InputError
from optuna_aes.space import ITEMSIZE, EmbeddingSpace, Sizes

CONSTRAINT = "memory_budget"

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30, "t": 10**12, "ti": 2**40}


class MemoryBudget:
    """A limit on the embedding tables of a model, known before any training.

    Give exactly one of ``fraction``, ``params`` and ``bytes``. The budget holds for the tables; the projections that
    align them and what the optimiser needs are reported by :meth:`EmbeddingSpace.cost` but not limited.

    Args:
        space: The space whose sizes are limited.
        fraction: Share of the full-size tables, in (0, 1].
        params: Number of parameters.
        bytes: Bytes, as a number or a text such as ``"512MiB"`` or ``"1.5 GB"``; counted in ``space.dtype``.

    Raises:
        InputError: If not exactly one limit is given, it is out of range, or even the smallest architecture of the space
            is above it.

    Example:
        >>> space = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16))
        >>> MemoryBudget(space, fraction=0.25).params
        20156
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        *,
        fraction: float | None = None,
        params: int | None = None,
        bytes: int | str | None = None,
    ) -> None:
        self.space = space
        self.full_params = space.cost(space.uniform(space.full)).params
        self.params = self._limit(fraction, params, bytes)
        if self.params < space.smallest:
            raise InputError(
                f"the budget of {self.params:,} parameters is below the smallest architecture of the space, "
                f"{space.smallest:,}: raise the budget, or {space.how_to_shrink}"
            )
        if self.params < 1:  # no share of it can be computed, and it leaves nothing to search
            raise InputError(
                f"the budget is below one parameter, and the full-size tables have {self.full_params:,}: raise the budget"
            )

    def _limit(self, fraction: float | None, params: int | None, bytes: int | str | None) -> int:
        given = [(n, v) for n, v in (("fraction", fraction), ("params", params), ("bytes", bytes)) if v is not None]
        if len(given) != 1:
            names = ", ".join(name for name, _ in given) or "none"
            raise InputError(f"give exactly one of fraction, params and bytes to MemoryBudget, not {names}")
        if fraction is not None:
            if not 0 < fraction <= 1:
                raise InputError(f"fraction={fraction} is out of range: give a share of the full size in (0, 1]")
            return _floor(fraction * self.full_params)
        if params is not None:
            if not 1 <= params < math.inf:
                raise InputError(f"params={params} is out of range: give a number of at least 1")
            return int(params)
        assert bytes is not None
        return parse_bytes(bytes) // ITEMSIZE[self.space.dtype]

    def __repr__(self) -> str:
        return f"MemoryBudget(params={self.params}, of={self.full_params})"

    @property
    def bytes(self) -> int:
        """The limit in bytes of the space's dtype."""
        return self.params * ITEMSIZE[self.space.dtype]

    @property
    def fraction(self) -> float:
        """The limit as a share of the full-size tables."""
        return self.params / self.full_params

    def level(self, share: float) -> MemoryBudget:
        """A smaller budget: this one times ``share``, but never below the smallest architecture."""
        return MemoryBudget(self.space, params=max(1, self.space.smallest, _floor(self.params * share)))

    def used(self, sizes: Mapping[str, int]) -> float:
        """Used share of the budget: 1 is just full, more is over."""
        return self.space.cost(sizes).params / self.params

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the sizes are inside the budget."""
        return self.space.cost(sizes).params <= self.params

    def check(self, trial: optuna.Trial, sizes: Mapping[str, int]) -> None:
        """Records the constraint ``memory_budget`` and prunes the trial if the sizes are over budget.

        Call it once, after all sizes are suggested and before any training: a trial pruned with sizes missing would take
        them away from the samplers that model all sizes jointly.

        Args:
            trial: The running trial.
            sizes: What :meth:`EmbeddingSpace.suggest` returned.

        Raises:
            optuna.TrialPruned: If the sizes are over budget.
        """
        self.record(trial, sizes)
        if not self.fits(sizes):
            raise optuna.TrialPruned(
                f"{self.space.cost(sizes).params:,} embedding parameters are over the budget of {self.params:,}"
            )

    def record(self, trial: optuna.Trial, sizes: Mapping[str, int]) -> None:
        """Records the constraint ``memory_budget``, and lets the trial live; a retried trial has it already."""
        if CONSTRAINT not in trial.constraints:
            trial.set_constraint(CONSTRAINT, self.violation(sizes))

    def violation(self, sizes: Mapping[str, int]) -> float:
        """The constraint's value, used/budget − 1: feasible when it is 0 or less."""
        return self.used(sizes) - 1.0

    def project(self, sizes: Mapping[str, int]) -> Sizes:
        """The nearest sizes inside the budget.

        Nearest is Euclidean on the ladder of candidates: the sum over blocks of (steps down)² is smallest. It is found
        exactly, by dynamic programming over that sum.

        Args:
            sizes: Candidate sizes of every block.

        Returns:
            The same sizes if they fit, else the repaired ones.
        """
        indices = self.space.to_indices(sizes)
        need = int(self.space.cost(sizes).params) - self.params
        if need <= 0:
            return self.space.from_indices(indices)
        params = self.space.table_params
        # saving[f][j]: parameters saved when block f goes j steps down, at distance j²
        saving = [params[f, k] - params[f, k::-1] for f, k in enumerate(indices)]
        best = _best_suffix(saving)
        distance = int(np.argmax(best[0] >= need))
        lowered = indices.copy()
        for f, options in enumerate(saving):
            j = next(
                j
                for j in range(len(options))
                if j * j <= distance and options[j] + best[f + 1][distance - j * j] >= need
            )
            lowered[f] -= j
            distance -= j * j
            need -= int(options[j])
        return self.space.from_indices(lowered)


def _floor(value: float) -> int:
    # A product such as 0.29 × 100 comes out a rounding error below the whole number that was meant.
    return int(value + 4 * math.ulp(value))


def _best_suffix(saving: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """``best[f][s]``: the most parameters that blocks f.. can save at a distance of at most s."""
    total = sum((len(options) - 1) ** 2 for options in saving)
    best = [np.zeros(total + 1, dtype=np.int64)]
    for options in reversed(saving):
        rest = best[-1]
        here = rest.copy()
        for j in range(1, len(options)):
            here[j * j :] = np.maximum(here[j * j :], options[j] + rest[: total + 1 - j * j])
        best.append(here)
    return best[::-1]


def parse_bytes(text: int | str) -> int:
    """Bytes of a number or a text such as ``"512MiB"``, ``"1.5 GB"``, ``"2000000"``.

    Raises:
        InputError: If the text is not a positive number with an optional unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]i?)?b?)\s*", str(text), flags=re.IGNORECASE | re.ASCII)
    if match is None or (value := int(float(match[1]) * _UNITS[(match[2] or "").lower()])) < 1:
        raise InputError(f"bytes={text!r} is not a size: give a number of bytes, or a text such as '512MiB' or '1.5GB'")
    return value


def parse_budget(space: EmbeddingSpace, text: str | float) -> MemoryBudget:
    """The budget that a command line names: a share such as ``0.25`` or ``25%``, a number of parameters, or bytes.

    A number of at most 1 is a share, a larger whole number counts parameters, and a text with a unit counts bytes.

    Raises:
        InputError: If the text is none of these, or the value is out of range.
    """
    raw = str(text).strip()
    try:
        if raw.endswith("%"):
            return MemoryBudget(space, fraction=float(raw[:-1]) / 100)
        if re.search(r"\d.*[a-z]", raw, flags=re.IGNORECASE) and not re.fullmatch(
            r"[\d.]+e[+-]?\d+", raw, re.IGNORECASE
        ):
            return MemoryBudget(space, bytes=raw)
        # A comma may only part thousands: "0,25" is a share in some countries and must not become 25 parameters.
        grouped = re.fullmatch(r"\d{1,3}(,\d{3})+(\.0*)?", raw) is not None
        value = float(raw.replace(",", "") if grouped else raw)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"budget={raw!r} is not a budget: give a share such as 0.25 or 25%, parameters such as 100000, or bytes "
            "such as 512MiB"
        ) from None
    if value <= 1:
        return MemoryBudget(space, fraction=value)
    if not value.is_integer():
        raise InputError(f"budget={raw!r} is neither a share of at most 1 nor a whole number of parameters")
    return MemoryBudget(space, params=int(value))


def check_levels(levels: Sequence[float]) -> None:
    """Refuses levels that are not shares of a budget.

    Raises:
        InputError: If one is not.
    """
    if not levels or not all(0 < share <= 1 for share in levels):
        raise InputError(f"levels={tuple(levels)} must be one or more shares of the budget in (0, 1]")
