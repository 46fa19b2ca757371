"""What is searched: one embedding size per block, its parameter name in a study, and what it costs.

A block is a field, or a frequency range of a field. Only numpy and Optuna's distributions are used here, so that a
study over any model of one's own needs nothing else of this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution

from optuna_aes.errors import InputError

Sizes = dict[str, int]
"""The chosen embedding size of every block, by the block's name."""

PREFIX = "size:"

ITEMSIZE: dict[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Block:
    """Rows that share one embedding size: a field, or a frequency range of a field.

    Args:
        name: Unique in its space; the study's parameter is ``size:<name>``.
        rows: Rows of the block's table, out-of-vocabulary rows included.
    """

    name: str
    rows: int

    @property
    def parameter(self) -> str:
        """The name of the block's parameter in a study."""
        return PREFIX + self.name


@dataclass(frozen=True)
class Cost:
    """What a choice of sizes costs.

    Args:
        params: Parameters of the embedding tables, and of the router where there is one and it is counted.
        projections: Parameters of the maps that align tables to the common width, where the model has such maps.
        bytes: Bytes of both in the space's dtype.
        optimizer_bytes: Bytes that training adds: two moments, the second one kept per row (row-wise Adam).
        router: Parameters of what sends each row to its cluster's model, whether they are counted or not.
    """

    params: int
    projections: int
    bytes: int
    optimizer_bytes: int
    router: int = 0


class EmbeddingSpace:
    """The sizes that a search may give to every block.

    Args:
        blocks: Rows of each block's table by name (``{"user": 957, "item": 4082}``), or :class:`Block` objects.
        candidates: Sizes to choose from, the same for all blocks; 0 drops the block. Sorted on construction.
        dtype: The tables' dtype, one of ``float32``, ``float16``, ``bfloat16``, ``float64``.
        align: ``"pad"`` when tables of different sizes meet by zero-padding, which costs nothing; ``"linear"`` when each
            table smaller than the full size has a map of ``size × full size`` parameters, which is counted apart.

    Raises:
        InputError: If a block has no rows, a name is empty, doubled or has characters that a study's parameter cannot
            carry, or the candidates are not at least two different sizes ≥ 0.

    Example:
        >>> space = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16))
        >>> space.cost({"user": 2, "item": 4}).params
        18242
    """

    def __init__(
        self,
        blocks: Mapping[str, int] | Sequence[Block],
        candidates: Sequence[int] = (0, 1, 2, 4, 8, 16),
        *,
        dtype: str = "float32",
        align: str = "pad",
    ) -> None:
        pairs = blocks.items() if isinstance(blocks, Mapping) else [(b.name, b.rows) for b in blocks]
        self.blocks: tuple[Block, ...] = tuple(
            Block(str(name), _whole(rows, f"rows of block {str(name)!r}")) for name, rows in pairs
        )
        _check_blocks(self.blocks)
        self.candidates = _check_candidates(candidates)
        if dtype not in ITEMSIZE:
            raise InputError(f"dtype={dtype!r} is not known: give one of {', '.join(ITEMSIZE)}")
        if align not in ("pad", "linear"):
            raise InputError(f"align={align!r} is not known: give 'pad' or 'linear'")
        self.dtype = dtype
        self.align = align
        self.names: tuple[str, ...] = tuple(b.name for b in self.blocks)
        self.rows: npt.NDArray[np.int64] = np.array([b.rows for b in self.blocks], dtype=np.int64)
        # One object for all blocks and trials: who writes trials by the thousand turns it into text once.
        low, high = self.candidates[0], self.candidates[-1]
        whole = len(self.candidates) == high - low + 1
        self._distribution: CategoricalDistribution | IntDistribution = (
            IntDistribution(low, high) if whole else CategoricalDistribution(self.candidates)
        )

    def __len__(self) -> int:
        return len(self.blocks)

    def __repr__(self) -> str:
        return f"EmbeddingSpace({dict(zip(self.names, self.rows.tolist(), strict=True))}, candidates={self.candidates})"

    @property
    def full(self) -> int:
        """D, the largest candidate: the common width of the full-size model."""
        return self.candidates[-1]

    @property
    def smallest(self) -> int:
        """Parameters of the smallest architecture."""
        return int(self.rows.sum()) * self.candidates[0]

    @property
    def how_to_shrink(self) -> str:
        """What makes the smallest architecture smaller, for an error's text."""
        return f"add a smaller candidate than {self.candidates[0]}"

    @property
    def table_params(self) -> npt.NDArray[np.int64]:
        """Parameters of every block at every candidate, int64 of shape (blocks, candidates)."""
        return self.rows[:, None] * np.array(self.candidates, dtype=np.int64)[None, :]

    def params_of(self, choices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The ``params`` of :meth:`cost` of many choices at once.

        Args:
            choices: Positions among the candidates, shape ``(n, blocks)``.

        Returns:
            int64 of shape ``(n,)``.
        """
        return np.asarray(self.table_params[np.arange(len(self)), choices].sum(1), dtype=np.int64)

    def distributions(self) -> dict[str, CategoricalDistribution | IntDistribution]:
        """The study's search space: a categorical distribution per block, or an integer one where no size is left out."""
        return dict.fromkeys((b.parameter for b in self.blocks), self._distribution)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Sizes:
        """Asks the trial for every block's size.

        Args:
            trial: A running trial, or a :class:`optuna.trial.FixedTrial`.

        Returns:
            The sizes by block name, in the space's order.
        """
        return self.from_params(
            {
                name: trial.suggest_int(name, over.low, over.high)
                if isinstance(over, IntDistribution)
                else trial.suggest_categorical(name, over.choices)
                for name, over in self.distributions().items()
            }
        )

    def uniform(self, size: int) -> Sizes:
        """The same size for every block."""
        return dict.fromkeys(self.names, size)

    def from_params(self, params: Mapping[str, Any]) -> Sizes:
        """The sizes in a trial's parameters.

        Raises:
            InputError: If a block's parameter is missing.
        """
        missing = [b.parameter for b in self.blocks if b.parameter not in params]
        if missing:
            raise InputError(f"the trial has no parameter {missing[0]!r}: its study searched another space")
        return {b.name: int(params[b.parameter]) for b in self.blocks}

    def to_params(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The inverse of :meth:`from_params`, checked."""
        return {PREFIX + name: size for name, size in self.check(sizes).items()}

    def to_indices(self, sizes: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """Positions of the sizes among the candidates, int64 of shape (blocks,)."""
        checked = self.check(sizes)
        return np.array([self.candidates.index(checked[name]) for name in self.names], dtype=np.int64)

    def from_indices(self, indices: npt.NDArray[np.integer[Any]]) -> Sizes:
        """The inverse of :meth:`to_indices`."""
        return {name: self.candidates[int(k)] for name, k in zip(self.names, indices, strict=True)}

    def check(self, sizes: Mapping[str, int]) -> Sizes:
        """The sizes in the space's order.

        Raises:
            InputError: If a block is missing, a name is not a block, or a size is no candidate.
        """
        unknown = [name for name in sizes if name not in self.names]
        missing = [name for name in self.names if name not in sizes]
        if unknown or missing:
            what = f"unknown block {unknown[0]!r}" if unknown else f"no size for block {missing[0]!r}"
            raise InputError(f"sizes has {what}: the blocks are {', '.join(self.names)}")
        for name in self.names:
            if sizes[name] not in self.candidates:
                raise InputError(f"sizes[{name!r}]={sizes[name]!r} is not a candidate: {self.candidates}")
        return {name: int(sizes[name]) for name in self.names}

    def cost(self, sizes: Mapping[str, int]) -> Cost:
        """Parameters and bytes of the sizes, before any training.

        Args:
            sizes: A size of 0 or more for every block; sizes between the candidates are allowed, so that reference
                architectures can be costed too.

        Raises:
            InputError: If a block is missing, or a size is negative or no whole number.
        """
        try:
            chosen = np.array([_whole(sizes[name], f"sizes[{name!r}]") for name in self.names], dtype=np.int64)
        except KeyError as error:
            raise InputError(f"sizes has no size for block {error.args[0]!r}") from None
        if (chosen < 0).any():
            raise InputError(f"sizes must be 0 or more, not {int(chosen.min())}")
        params = int(chosen @ self.rows)
        mapped = (chosen > 0) & (chosen < self.full)
        projections = int(chosen[mapped].sum()) * self.full if self.align == "linear" else 0
        itemsize = ITEMSIZE[self.dtype]
        moments = params + int(self.rows[chosen > 0].sum()) + 2 * projections
        return Cost(
            params=params,
            projections=projections,
            bytes=(params + projections) * itemsize,
            optimizer_bytes=moments * itemsize,
        )


class ClusteredSpace(EmbeddingSpace):
    """Sizes for a model per cluster of rows: a block is a field in a cluster, ``field@cluster``.

    A cluster whose blocks all have size 0 is not in use. Where one is in use there is one model and nothing else; where more
    are, a router says which model is for which row, and it has parameters too.

    Args:
        fields: The space of one model.
        clusters: The most clusters that there can be.
        router: Parameters of the router.
        counted: Whether they count towards the cost and the budget.
        least: The fewest clusters that a search tries.

    Raises:
        InputError: If 0 is no candidate: clusters could not go out of use.
    """

    def __init__(
        self, fields: EmbeddingSpace, *, clusters: int, router: int, counted: bool = True, least: int = 1
    ) -> None:
        if fields.candidates[0] != 0:
            raise InputError(f"candidates={fields.candidates} must have 0, the size of clusters that are not in use")
        blocks = [Block(f"{b.name}@{c}", b.rows) for c in range(clusters) for b in fields.blocks]
        super().__init__(blocks, fields.candidates, dtype=fields.dtype, align=fields.align)
        self.clusters = clusters
        self.router = router
        self.counted = counted
        self.least = least

    def to_json(self) -> dict[str, Any]:
        """What it is made with, besides the fields."""
        return {name: getattr(self, name) for name in ("clusters", "router", "counted", "least")}

    @property
    def smallest(self) -> int:
        """See :attr:`EmbeddingSpace.smallest`."""
        return self.router if self.least > 1 and self.counted else 0

    @property
    def how_to_shrink(self) -> str:
        """See :attr:`EmbeddingSpace.how_to_shrink`."""
        return "let clusters begin at 1, which needs no router, or leave the router out with count_router=false"

    def uniform(self, size: int) -> Sizes:
        """The same size for every field of one model, without clusters."""
        first = len(self) // self.clusters
        return {name: size if at < first else 0 for at, name in enumerate(self.names)}

    def params_of(self, choices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """See :meth:`EmbeddingSpace.params_of`."""
        used = (choices > 0).reshape(len(choices), self.clusters, len(self) // self.clusters).any(2).sum(1)
        return super().params_of(choices) + np.where((used > 1) & self.counted, self.router, 0)

    def cost(self, sizes: Mapping[str, int]) -> Cost:
        """See :meth:`EmbeddingSpace.cost`: the sum over all clusters, and the router."""
        tables = super().cost(sizes)
        used = np.array([sizes[name] for name in self.names]).reshape(self.clusters, -1).any(1).sum()
        router = self.router if used > 1 else 0
        counted = router if self.counted else 0
        return replace(
            tables,
            params=tables.params + counted,
            bytes=tables.bytes + counted * ITEMSIZE[self.dtype],
            router=router,
        )


def _check_blocks(blocks: Sequence[Block]) -> None:
    if not blocks:
        raise InputError("blocks is empty: give at least one field with its cardinality")
    seen: set[str] = set()
    for block in blocks:
        # \ud800-\udfff: half a character, as bad bytes in a file's header become; no database can store it
        if not block.name or len(PREFIX + block.name) > 512 or re.search(r"[\x00-\x1f\ud800-\udfff]", block.name):
            raise InputError(
                f"block name {block.name!r} cannot name a study's parameter: use 1 to 507 printable letters"
            )
        if block.name in seen:
            raise InputError(f"block {block.name!r} is given twice")
        seen.add(block.name)
        if block.rows < 1:
            raise InputError(f"block {block.name!r} has {block.rows} rows: a table needs at least one")


def _check_candidates(candidates: Sequence[int]) -> tuple[int, ...]:
    given = [_whole(c, "a candidate") for c in candidates]
    if any(c < 0 for c in given):
        raise InputError(f"candidates={tuple(given)} must be whole numbers ≥ 0")
    unique = tuple(sorted(set(given)))
    if len(unique) < 2 or len(unique) < len(given):
        raise InputError(f"candidates={tuple(given)} must be at least two different sizes")
    return unique


def _whole(value: Any, what: str) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    raise InputError(f"{what} is {value!r}: give a whole number")
