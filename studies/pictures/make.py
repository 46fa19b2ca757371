"""Makes the README's picture: the front of a finished search, drawn by the same code as the report.

``python studies/pictures/make.py --name demo --storage sqlite:///demo/aes.db``

It needs ``pip install kaleido`` and a Chromium or Chrome.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from optuna_aes.search.read import open_record, result
from optuna_aes.visualization import plot_pareto

HERE = Path(__file__).parent


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="demo")
    parser.add_argument("--storage", default="sqlite:///demo/aes.db")
    parser.add_argument("--out", type=Path, default=HERE / "front.png")
    given = parser.parse_args()
    figure = plot_pareto(result(open_record(given.name, given.storage)))
    figure.write_image(given.out, width=900, height=500, scale=2)
    print(f"wrote {given.out}: {given.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
