"""Search embedding sizes for a table of your own, export the best model, and predict with it on raw rows.

    python own_data.py clicks.csv --label click

Without a table, a small one is made up. Run again, it goes on where it stopped, and does nothing that is done.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch

from optuna_aes import EncodeOptions, Encoder, ModelOptions, Search, Task, TrainOptions, encode, load_model


def made_up(path: Path, rows: int = 20_000) -> Path:
    """A CSV of clicks: users and ads of three tastes, hours that matter a little, sessions that mean nothing."""
    rng = np.random.default_rng(0)
    user, ad, hour, session = (rng.integers(n, size=rows) for n in (200, 100, 24, 2000))
    taste, liking = rng.integers(3, size=200), rng.normal(size=200)
    logit = np.where(taste[user] == taste[ad], 1.5, -1.0) + taste[user] - liking[ad] + 0.5 * (hour > 18)
    click = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    pl.DataFrame({"user": user, "ad": ad, "hour": hour, "session": session, "click": click}).write_csv(path)
    return path


def main() -> None:
    """Encodes, searches, exports, predicts."""
    parser = argparse.ArgumentParser(description="Search embedding sizes for a table.")
    parser.add_argument(
        "table", nargs="?", type=Path, help="a CSV or Parquet file, or a folder with train.* and test.*"
    )
    parser.add_argument("--label", default="click", help="the column that holds 0 or 1")
    parser.add_argument("--out", type=Path, default=Path("own_data"), help="folder for everything that is written")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.table or made_up(given.out / "clicks.csv")

    # 1. Ids are fitted to the training rows only. The encoder stays with the dataset, and goes with the model.
    dataset = encode(table, given.out / "data", options=EncodeOptions(label=given.label))

    # 2. The whole search, resumable. These settings are for a small table; the defaults are for a million rows or more.
    task = Task(
        dataset,
        model=ModelOptions(backbone="deepfm", hidden=(32,), init_std=0.1),
        train=TrainOptions(epochs=8, batch_size=256, lr=2e-2, schedule="cosine", patience=0),
        candidates=(0, 1, 2, 4, 8),
    )
    search = Search.create(
        task, name="clicks", storage=f"sqlite:///{given.out / 'aes.db'}", budget=0.25, trials=60, retrain=3, seed=0
    )
    result = search.run()

    # 3. The front: test AUC against embedding parameters. The last point is the full size, for comparison.
    print(f"budget {result.budget['params']:,} of {result.full['params']:,} embedding parameters")
    for point in (*result.front, result.points[-1]):
        print(f"  test AUC {point.auc_test:.4f}  {point.params:>6,} parameters  {point.sizes}")

    # 4. The model that is best on validation inside the budget, as a folder, and back as a torch module.
    folder = search.export(given.out / "model")
    model, encoder = load_model(folder), Encoder.load(folder)
    rows = pl.DataFrame(
        {field.name: ["3", "never seen"] for field in encoder.fields if field.spec.kind == "categorical"}
    )
    rows = rows.with_columns(pl.lit(None).alias(f.name) for f in encoder.fields if f.name not in rows.columns)
    with torch.no_grad():
        probabilities = torch.sigmoid(model(torch.from_numpy(encoder.transform(rows))))
    print(f"predictions for two raw rows: {', '.join(f'{p:.3f}' for p in probabilities.tolist())}")


if __name__ == "__main__":
    main()
