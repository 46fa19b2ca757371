"""Runs the benchmarks that need no data beside the package: ``python -m studies.bench``, or ``make bench``."""

from __future__ import annotations

from studies.bench import (
    cost,
    encoding,
    memory,
    planted,
    proposing,
    racing,
    ranking,
    same_front,
    scoring,
    start,
    storage,
    supernet_step,
    training,
)

if __name__ == "__main__":
    storage.main([])
    for bench in (training, start, supernet_step, encoding, memory, scoring, racing, proposing, same_front):
        bench.main(["--write"])
    same_front.main(["--wide", "--seeds", "3", "--trainings", "340", "--write"])
    cost.main(["planted", "--write"])
    ranking.main(["planted", "--seeds", "2"])
    planted.main([])
