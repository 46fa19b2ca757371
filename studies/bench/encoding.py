"""From a raw table to ids on disk: us, a pandas factorise-and-write pipeline, and a hand-written polars group-by and join.

``python -m studies.bench.encoding [--rows 1000000] [--rounds 5] [--write]``

The table is a Parquet file of 26 columns of text, with vocabularies from ten to a fifth of the rows, and a label. All three
write the same ids: ranked by frequency in the training rows, equal ones by value, 0 for what these do not show. Each runs in
a process of its own; they take turns, and given are medians over the rounds with the range, and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from optuna_aes.data import EncodeOptions, encode
from optuna_aes.data.dataset import SPLITS
from optuna_aes.data.splits import random_split
from studies.bench.results import ratios, spread, write_section
from studies.bench.storage import peak_mib

FIELDS = 26
FRACTIONS = (0.8, 0.1, 0.1)
CHUNK = 1_000_000
NAMES = [f"c{i}" for i in range(FIELDS)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aes-bench")
    parser.add_argument("--write", action="store_true", help="write to studies/bench/RESULTS.md")
    parser.add_argument("--way", choices=WAYS, help="one run, in this process")
    given = parser.parse_args(arguments)
    file = given.cache / f"encoding-{given.rows}.parquet"
    if given.way:
        print(json.dumps(run(given.way, file)))
        return
    if not file.exists():
        given.cache.mkdir(parents=True, exist_ok=True)
        make_table(file, given.rows)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way in WAYS:
            command = [sys.executable, "-W", "ignore", "-m", "studies.bench.encoding", "--way", way]
            command += ["--rows", str(given.rows), "--cache", str(given.cache)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1], flush=True)
    same = {tuple(one["sums"]) for runs in found.values() for one in runs}
    lines = [
        f"{given.rows:,} rows × {FIELDS} columns of text, {file.stat().st_size / 2**20:,.0f} MiB of Parquet, "
        f"{raw_mib(file):,.0f} MiB of text; {given.rounds} rounds. "
        + ("All wrote the same ids." if len(same) == 1 else f"THE IDS DIFFER: {sorted(same)}"),
        "",
        "| | seconds, median (range) | ours is, round by round | peak MiB | of which imports |",
        "|---|---|---|---|---|",
    ]
    for way, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        speed = ratios(seconds, [one["seconds"] for one in found["ours"]])
        lines.append(
            f"| {way} | {spread(seconds, '.1f')} | {spread(speed, unit='×')} as fast "
            f"| {max(one['mib'] for one in runs):,.0f} | {runs[0]['imports_mib']:,.0f} |"
        )
    text = "\n".join(lines)
    print(text)
    if given.write:
        write_section(f"Encoding: {given.rows:,} rows", text)


def make_table(file: Path, rows: int) -> None:
    """Writes the raw table, a million rows at a time."""
    rng = np.random.default_rng(0)
    sizes = (10 ** np.linspace(1, np.log10(rows / 5), FIELDS)).astype(int)
    words = [pl.Series(rng.permutation(2**32 // 2**8)[:size]).cast(pl.String).str.zfill(8) for size in sizes]
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        for part, start in enumerate(range(0, rows, CHUNK)):
            count = min(CHUNK, rows - start)
            # Cubed uniform numbers: a few values are frequent, many are rare, as in click logs.
            drawn = {
                n: w.gather((rng.random(count) ** 3 * len(w)).astype(np.int64))
                for n, w in zip(NAMES, words, strict=True)
            }
            frame = pl.DataFrame({"label": rng.integers(0, 2, count).astype(np.uint8), **drawn})
            frame.write_parquet(Path(folder) / f"{part:04d}.parquet")
        pl.scan_parquet(Path(folder) / "*.parquet").sink_parquet(file)


def raw_mib(file: Path) -> float:
    """How much the columns' text is, out of the file."""
    lengths = pl.scan_parquet(file).select(pl.col(NAMES).str.len_bytes().sum()).collect()
    return float(lengths.sum_horizontal()[0]) / 2**20


def run(way: str, file: Path) -> dict[str, object]:
    """Encodes once, and says how long it took and what came out."""
    imports = peak_mib()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        started = time.perf_counter()
        WAYS[way](file, Path(folder) / "out")
        seconds = time.perf_counter() - started
        mib = peak_mib()
        sums = [checksum(Path(folder) / "out" / f"{split}_ids.npy") for split in SPLITS]
    return {"seconds": seconds, "mib": mib, "imports_mib": imports, "sums": sums}


def checksum(file: Path) -> int:
    """A sum over ids that depends on where they stand."""
    ids = np.load(file, mmap_mode="r")
    weights = np.arange(1, ids.shape[1] + 1)
    parts = (
        ids[at : at + CHUNK] @ weights * (at + np.arange(len(ids[at : at + CHUNK])) % 1009)
        for at in range(0, len(ids), CHUNK)
    )
    return int(sum(int(part.sum()) for part in parts))


def ours(file: Path, out: Path) -> None:
    encode(file, out, options=EncodeOptions(label="label", fractions=FRACTIONS, min_count=1, categorical=tuple(NAMES)))


def with_pandas(file: Path, out: Path) -> None:
    """A column at a time, factorised and mapped to ranks."""
    import pandas as pd

    out.mkdir()
    table = pd.read_parquet(file)
    split = random_split(len(table), FRACTIONS, seed=0)
    ids = np.empty((len(table), FIELDS), dtype=np.int32)
    for column, name in enumerate(NAMES):
        codes, values = pd.factorize(table[name])
        counts = np.bincount(codes[split == 0], minlength=len(values))
        order = pd.DataFrame({"count": counts, "value": values}).sort_values(
            ["count", "value"], ascending=[False, True]
        )
        rank = np.empty(len(values), dtype=np.int32)
        rank[order.index] = np.arange(1, len(values) + 1)
        ids[:, column] = np.where(counts > 0, rank, 0)[codes]
    write(out, ids, table["label"].to_numpy(), split)


def with_polars(file: Path, out: Path) -> None:
    """Group by, rank and join back, lazily, all columns in one query."""
    out.mkdir()
    rows = pl.scan_parquet(file).select(pl.len()).collect().item()
    split = random_split(rows, FRACTIONS, seed=0)
    train = pl.scan_parquet(file).filter(pl.Series(split == 0))
    table = pl.scan_parquet(file)
    for name in NAMES:
        ranks = (
            train.group_by(name)
            .len("n")
            .sort(["n", name], descending=[True, False])
            .select(name, pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias(f"{name}_id"))
        )
        table = table.join(ranks, on=name, how="left", maintain_order="left").drop(name)
    found = table.select("label", *(pl.col(f"{name}_id").fill_null(0) for name in NAMES)).collect()
    write(out, found.drop("label").to_numpy(order="c"), found["label"].to_numpy(), split)


def write(out: Path, ids: np.ndarray, labels: np.ndarray, split: np.ndarray) -> None:
    for code, name in enumerate(SPLITS):
        np.save(out / f"{name}_ids.npy", ids[split == code])
        np.save(out / f"{name}_labels.npy", labels[split == code])


WAYS = {"ours": ours, "pandas": with_pandas, "polars": with_polars}

if __name__ == "__main__":
    main()
