"""What the tests of the command line share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A search of a second or two, at every command's end.
SMALL = [
    *("--epochs", "2", "--batch-size", "256", "--lr", "0.01", "--hidden", "8", "--dim", "4", "--device", "cpu"),
    *("--trials", "24", "--group", "6", "--retrain", "1", "--no-reference", "--threads", "1"),
]


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    code: int
    out: str
    err: str


def click_table(rows: int = 2000, *, seed: int = 0) -> list[str]:
    """Lines of a CSV file with three fields, of which two say something of the label."""
    rng = np.random.default_rng(seed)
    user, item, hour = rng.integers(0, 40, rows), rng.integers(0, 60, rows), rng.integers(0, 24, rows)
    logit = np.sin(user * 1.7) + 2 * np.cos(item * 2.3)
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    label[:2] = (0, 1)
    return ["user,item,hour,label", *(f"u{u},i{i},{h},{y}" for u, i, h, y in zip(user, item, hour, label, strict=True))]
