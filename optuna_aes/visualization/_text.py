"""Numbers and points as a reader wants them: short, and safe inside HTML and plotly's text."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from optuna_aes.data.synthetic import bayes_share
from optuna_aes.search.results import Point, Result

_NAME = 28
_LINE = 58
_LINES = 9


def human(value: float) -> str:
    """Three digits and a unit: 85, 1.2k, 10k, 134k, 2.05M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            digits = max(0, 2 - int(math.log10(max(abs(value) / factor, 1))))
            text = f"{value / factor:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
    return f"{value:.0f}"


def human_bytes(value: float) -> str:
    """Bytes in binary units: 640 B, 21.3 KiB, 1.4 MiB."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def human_seconds(value: float) -> str:
    """A duration: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """A share as a percentage with at most one digit after the point: 25 %, 14.6 %. Its space does not break."""
    return f"{100 * share:.{0 if round(1000 * share) % 10 == 0 else 1}f}\u00a0%"


def metric(value: float) -> str:
    """An AUC or a loss with four digits, or a dash where there is none."""
    return f"{value:.4f}" if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A difference with its sign: +0.0007, −0.0012, ±0."""
    if abs(value) < 0.00005:
        return "±0"
    return f"{value:+.4f}".replace("-", "−")


def spread(point: Point) -> str:
    """The test AUC, with its standard deviation where there are several seeds."""
    if point.seeds > 1:
        return f"{metric(point.auc_test)} ± {metric(point.auc_test_std)}"
    return metric(point.auc_test)


def safe(text: object) -> str:
    """Text of the data made safe: plotly reads a little HTML in all its labels."""
    return html.escape(str(text), quote=False)


def short(name: str, limit: int = _NAME) -> str:
    """A name of at most ``limit`` characters, cut in its middle, where long names differ least."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[-tail:]}"


def uniform_size(point: Point) -> int:
    """The one size of a uniform point."""
    return max(point.sizes.values(), default=0)


def size_counts(sizes: Mapping[str, int]) -> str:
    """How often each size is used, largest first: 16 ×2, 8 ×3, 0 ×5."""
    counts = Counter(sizes.values())
    return ", ".join(f"{size} ×{counts[size]}" for size in sorted(counts, reverse=True))


def size_lines(point: Point) -> list[str]:
    """The sizes by field, in lines of readable width; the largest come first, and what is too much is counted."""
    if point.uniform:
        return [f"all fields size {uniform_size(point)}"]
    lines, width = [""], 0
    named = sorted(point.sizes.items(), key=lambda item: -item[1])
    for done, (name, size) in enumerate(named):
        name = short(name)
        if width and width + len(name) + 6 > _LINE:
            if len(lines) == _LINES:
                return [*lines, f"… and {len(named) - done} fields more"]
            lines.append("")
            width = 0
        lines[-1] += f"{' · ' if width else ''}{safe(name)} <b>{size}</b>"
        width += len(name) + 6
    return lines


def bayes_auc(result: Result) -> float | None:
    """The best AUC possible, where the data are planted and it is known."""
    value: Any = result.facts.get("bayes_auc")
    return float(value) if isinstance(value, (int, float)) and value > 0.5 else None


def share_of_bayes(result: Result, point: Point) -> str | None:
    """What part of the possible AUC above chance a point reaches, as a percentage."""
    best = bayes_auc(result)
    return None if best is None else percent(bayes_share(point.auc_test, best))


def full_point(result: Result) -> Point | None:
    """The uniform point at the full size: what a search is to be compared with."""
    return next((p for p in result.points if p.uniform and p.params >= result.full["params"]), None)


def hover(result: Result, point: Point) -> str:
    """The text shown over a point."""
    kind = f"Uniform size {uniform_size(point)}" if point.uniform else f"Trial {point.trial}"
    place = "" if point.feasible else " · over budget"
    seeds = f"{point.seeds} seed{'s' if point.seeds != 1 else ''}"
    lines = [
        f"<b>{kind}</b>{place}",
        f"{point.params:,} params · {percent(of_full(result, point))} of full",
        f"AUC test {spread(point)} · valid {metric(point.auc_valid)} · {seeds}",
    ]
    share = share_of_bayes(result, point)
    if share is not None:
        lines.append(f"{share} of the Bayes AUC above chance")
    return "<br>".join([*lines, *size_lines(point)])


def of_full(result: Result, point: Point) -> float:
    """A point's parameters as a share of the full-size tables."""
    return point.params / max(result.full["params"], 1)
