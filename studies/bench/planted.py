"""What the demo's claim rests on: share of the Bayes AUC and the noise fields' sizes, for several seeds of data and search.

``python -m studies.bench.planted [--seeds 5] [--first 0]``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import optuna

from optuna_aes import Search
from optuna_aes.data.synthetic import bayes_share
from studies.bench.settings import planted_task


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("seed  params  of full  test AUC  Bayes share  full size's share  noise fields' sizes  seconds")
    for seed in range(given.first, given.first + given.seeds):
        task = planted_task(seed)
        facts = task.dataset.facts or {}
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            storage = f"sqlite:///{Path(folder) / 'aes.db'}"
            result = Search.create(task, name="planted", storage=storage, budget=0.25, seed=seed).run()
        best, full = result.best, max(result.points, key=lambda p: p.params)
        assert best is not None
        noise = {name: best.sizes[name] for name in facts["noise"]}
        share, full_share = (bayes_share(p.auc_test, facts["bayes_auc"]) for p in (best, full))
        print(
            f"{seed:4d}  {best.params:6d}  {best.params / result.full['params']:7.1%}  {best.auc_test:8.4f}  {share:11.4f}  "
            f"{full_share:17.4f}  {noise}  {time.perf_counter() - started:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
