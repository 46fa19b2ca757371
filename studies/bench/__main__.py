"""Runs the benchmarks that need no data beside the package: ``python -m studies.bench``, or ``make bench``."""

from __future__ import annotations

from studies.bench import planted, ranking, storage, training

if __name__ == "__main__":
    storage.main([])
    training.main([])
    ranking.main(["planted", "--seeds", "2"])
    planted.main([])
