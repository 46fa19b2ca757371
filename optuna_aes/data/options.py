"""What a user may choose about the encoding of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from optuna_aes.errors import DataError

NUMERIC = ("quantile", "log2")
_TUPLES = ("multi", "drop", "categorical", "numeric_columns")


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How a table becomes ids. Every value is JSON-ready, so that an encoded dataset can say how it was made.

    A column of text or of integers is categorical (ids of users and items are integers), a column of decimal numbers is
    numeric; ``categorical``, ``numeric_columns`` and ``multi`` say otherwise for the columns they name.

    Args:
        label: The label's column; default the format's own (``"label"``, Avazu ``"click"``).
        split: ``"random"``, or ``"time:<column>"``: the earliest rows train, the latest test, equal times stay together.
            Ignored where the source is a folder with a given split.
        fractions: Shares of training, validation and test rows. Of a folder with ``train.*`` and ``test.*`` only,
            ``valid / (train + valid)`` of the training rows are taken for validation.
        seed: Seed of the random split.
        min_count: Values seen less often than this in training share the out-of-vocabulary id.
        numeric: ``"quantile"``: about equally full buckets; ``"log2"``: ``floor(log(x)²)``, as in work on Criteo.
        buckets: Buckets of a ``"quantile"`` field.
        multi: Columns that hold bags of values, such as ``"Action|Comedy"``.
        separator: Stands between the values of a bag.
        max_values: Distinct values kept of one bag, the first ones.
        drop: Columns to leave out.
        categorical: Columns of decimal numbers that are categories.
        numeric_columns: Columns of integers that are quantities, to be bucketed.
        tags: MovieLens only: how many of a film's most used tags to add as a multi-valued field.

    Raises:
        DataError: If a value is out of its range.
    """

    label: str | None = None
    split: str = "random"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    min_count: int = 1
    numeric: str = "quantile"
    buckets: int = 32
    multi: tuple[str, ...] = ()
    separator: str = "|"
    max_values: int = 16
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric_columns: tuple[str, ...] = ()
    tags: int = 0

    def __post_init__(self) -> None:
        for name in _TUPLES:
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(v, str) for v in value):
                raise DataError(f"{name}={value!r} must be a list of column names")
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "fractions", tuple(self.fractions))
        if (
            len(self.fractions) != 3
            or min(self.fractions) <= 0
            or not math.isclose(sum(self.fractions), 1, abs_tol=1e-6)
        ):
            raise DataError(f"fractions={self.fractions!r} must be three positive numbers that sum to 1")
        if self.split != "random" and self.time_column is None:
            raise DataError(f"split={self.split!r} is unknown: use 'random' or 'time:<column>'")
        if self.numeric not in NUMERIC:
            raise DataError(f"numeric={self.numeric!r} is unknown: use one of {', '.join(NUMERIC)}")
        if not self.separator:
            raise DataError("separator='' is empty: give the sign that stands between the values of a bag, such as '|'")
        for name, low in (("min_count", 1), ("buckets", 2), ("max_values", 1), ("tags", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise DataError(f"{name}={getattr(self, name)!r} is too small: give at least {low}")

    @property
    def time_column(self) -> str | None:
        """The column of a ``"time:<column>"`` split, or None."""
        kind, _, column = self.split.partition(":")
        return column if kind == "time" and column else None

    def to_json(self) -> dict[str, Any]:
        """The options as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncodeOptions:
        """The inverse of :meth:`to_json`.

        Raises:
            DataError: If a key is unknown or a value is out of its range.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise DataError(f"unknown encode option {unknown[0]!r}: the options are {', '.join(sorted(known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)
