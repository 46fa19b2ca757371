"""Does the supernet's ranking mean anything? Kendall's τ between inherited and retrained validation AUC.

``python -m studies.bench.ranking planted|frappe [--architectures 20] [--seeds 1] [--modes adaptive …] [--no-amp] …``

Random sizes, uniform per field, are trained from scratch once per seed and scored in one supernet per mode. The trainings
are nearly all of the time and the same for every mode, so their AUC is kept in a file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from optuna_aes import AdaSS, CTRModel, SamplingOptions, Task
from optuna_aes.models.training import Trainer
from studies.bench.settings import task_of

MODES = {
    "adaptive": AdaSS(),
    "adaptive, one path": AdaSS(sampling=SamplingOptions(paths=1, full_share=0.3)),
    "adaptive by gradient": AdaSS(sampling=SamplingOptions(table="grad")),
    "adaptive by loss": AdaSS(sampling=SamplingOptions(table="loss")),
    "adaptive, 60 % of fields": AdaSS(sampling=SamplingOptions(field_share=0.6)),
    "uniform": AdaSS(sampling=SamplingOptions(table="uniform", paths=1, full_share=0.0)),
    "uniform, 8 paths": AdaSS(sampling=SamplingOptions(table="uniform")),
    "sandwich": AdaSS(sampling=SamplingOptions(table="uniform", paths=1, full_share=0.5)),
    "separate tables": AdaSS(sharing="separate", sampling=SamplingOptions(paths=1, full_share=0.0)),
}


class Retrained:
    """Validation AUC of models trained from scratch, kept in a file."""

    def __init__(self, task: Task, cache: Path) -> None:
        self.task = task
        self.cache = cache
        settings = f"{task.dataset.fingerprint} {task.model} {task.train}"
        self.prefix = hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()
        self.known: dict[str, float] = json.loads(cache.read_text()) if cache.exists() else {}

    def __call__(self, path: np.ndarray, seed: int) -> float:
        """The AUC of one choice of sizes with one seed."""
        key = f"{self.prefix} {' '.join(map(str, path))} {seed}"
        if key not in self.known:
            task = self.task
            model = CTRModel(
                task.dataset.schema, task.space.from_indices(path), dim=task.space.full, options=task.model, seed=seed
            )
            trainer = Trainer(model, task.dataset.train, task.dataset.valid, task.train, seed=seed)
            trainer.run()
            self.known[key] = trainer.best_auc
            self.cache.write_text(json.dumps(self.known))
        return self.known[key]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("planted", "frappe"))
    parser.add_argument("--architectures", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="trainings per architecture")
    parser.add_argument("--supernets", type=int, default=2, help="supernets per mode, by seed")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--fit-epochs", type=int, help="of the supernets; as the task has it if not given")
    parser.add_argument("--no-amp", action="store_true", help="in float32, also where the task has it otherwise")
    parser.add_argument("--cache", type=Path, default=Path("ranking.json"))
    given = parser.parse_args(arguments)

    torch.set_num_threads(1)
    task = task_of(given.data)
    if given.no_amp:
        task = replace(task, train=replace(task.train, amp=False), fit=replace(task.fit_options, amp=False))
    if given.fit_epochs:
        task = replace(task, fit=replace(task.fit_options, epochs=given.fit_epochs))
    retrained = Retrained(task, given.cache)
    shape = (given.architectures, len(task.space))
    paths = np.random.default_rng(123).integers(len(task.candidates), size=shape)
    truth = np.array([[retrained(path, seed) for seed in range(given.seeds)] for path in paths])
    target = truth.mean(1)
    if given.seeds > 1:
        print(f"standard deviation of retraining: {truth.std(1, ddof=1).mean():.5f}")
    print(f"{given.data}: {len(paths)} architectures, retrained AUC {target.min():.4f} to {target.max():.4f}")
    for mode in given.modes:
        taus, started = [], time.perf_counter()
        for seed in range(given.supernets):
            strategy = MODES[mode]
            supernet = strategy.supernet(task.dataset.schema, task.candidates, model=task.model, seed=seed)
            strategy.trainer(supernet, task.dataset, options=task.fit_options, seed=seed).run()
            inherited = strategy.scorer(supernet, task.dataset)(paths)
            taus.append(kendalltau(inherited, target)[0])
        seconds = (time.perf_counter() - started) / given.supernets
        shown = " ".join(f"{t:.3f}" for t in taus)
        bias = float((inherited - target).mean())
        print(f"  {mode:26s} τ {shown}   inherited − retrained {bias:+.4f}   {seconds:.0f} s a supernet", flush=True)


if __name__ == "__main__":
    main()
