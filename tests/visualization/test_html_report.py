from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs
from sample_results import FULL, ROWS, history, point, result

from optuna_aes.errors import InputError
from optuna_aes.search.results import History, Result
from optuna_aes.visualization import report

EVIL = "<script>alert('x')</script>"
EMPTY = History((), (), (), (), {})


class Page(HTMLParser):
    """What a browser would make of the page: its scripts, its loads, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.within: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.within = None

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts[-1] += data
        elif self.within != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.texts))

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(s) for s in self.scripts if s.startswith("{")]


def written(found: Result, how: History, folder: Path, **options: Any) -> Page:
    path = report(found, how, folder / "front.html", **options)
    return Page(path.read_bytes().decode("utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(result(facts={"bayes_auc": 0.988}), history(), tmp_path_factory.mktemp("report"), rows=ROWS)


def test_nothing_is_loaded_and_plotly_is_there_once(page: Page) -> None:
    assert page.loads == []
    plotly = get_plotlyjs()
    assert [s == plotly for s in page.scripts].count(True) == 1
    assert len([s for s in page.scripts if len(s) > 1_000_000]) == 1
    ours = "".join(s for s in page.scripts if s != plotly)
    assert "http" not in ours


def test_the_style_sheet_loads_nothing_and_the_browser_is_told_so(tmp_path: Path) -> None:
    text = report(result(), history(), tmp_path / "x.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'" in text
    assert 'charset="utf-8"' in text


def test_the_header_says_what_was_searched_and_found(page: Page) -> None:
    for part in ("frappe", "adass", "deepfm", "25.8k", "86.1k", "75.9\u00a0%", "0.9835", "0.9846", "99.1\u00a0%"):
        assert part in page.text
    assert f"0.0005 below size {FULL} for every field" in page.text
    assert "−0.0005" in page.text


def test_all_figures_are_in_the_page(page: Page) -> None:
    assert len(page.figures) == 4
    for figure in page.figures:
        assert figure["data"]
        assert figure["layout"]["meta"]["narrow"]["dragmode"] is False
        assert "text" not in figure["layout"].get("title", {})  # the page says it


def test_the_table_holds_every_point(page: Page) -> None:
    for p in result().points:
        assert f"{p.params:,}" in page.text
        assert f"{p.auc_test:.4f} ± 0.0004" in page.text
        assert f"{p.logloss_test:.4f}" in page.text
    assert "81.1 KiB" in page.text
    assert "8 ×1, 4 ×3, 3 ×1, 2 ×4, 1 ×1" in page.text


def test_the_stages_times_and_the_next_command(page: Page) -> None:
    for part in ("1 min 23 s", "21.4 s", "10 min 04 s", "11 min 49 s", "optuna-aes export --name frappe"):
        assert part in page.text


def test_text_of_the_data_never_becomes_markup(tmp_path: Path) -> None:
    sizes = {EVIL: 4, 'quo"te': 2}
    rows = {EVIL: 50, 'quo"te': 9}
    found = result(
        study=EVIL, strategy=EVIL, backbone=EVIL, points=tuple(point(i, sizes, 0.9, rows=rows) for i in range(3))
    )
    path = report(found, replace(history(5), seconds={EVIL: 1.0}), tmp_path / "x.html", rows=rows)
    text = path.read_text(encoding="utf-8")
    assert text.count("alert(") > 3
    assert "<script>alert" not in text
    assert not re.search(r"</script>(?!\s*(</section>|<script|</body>))", text)
    assert Page(text).text.count(EVIL) > 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auc_test": 0.9840}, "the same as size 16 for every field"),
        ({"auc_test": 0.9850}, "0.0010 above size 16 for every field"),
    ],
)
def test_the_best_point_against_the_full_size(change: dict[str, float], words: str, tmp_path: Path) -> None:
    found = result()
    points = tuple(replace(p, **change) if p is found.best else p for p in found.points)
    assert words in written(replace(found, points=points), history(), tmp_path).text


def test_without_reference_points_nothing_is_compared(tmp_path: Path) -> None:
    found = result()
    bare = replace(found, points=tuple(p for p in found.points if not p.uniform))
    assert "for every field" not in written(bare, history(), tmp_path).text


def test_only_uniform_points_and_no_history(tmp_path: Path) -> None:
    found = result()
    page = written(replace(found, points=tuple(p for p in found.points if p.uniform)), EMPTY, tmp_path)
    assert len(page.figures) == 2
    assert "No searched point fits the budget" in page.text
    assert "optuna-aes export" not in page.text


def test_one_point_one_seed_nothing_inherited(tmp_path: Path) -> None:
    only = point(0, dict.fromkeys(ROWS, 2), 0.97, seeds=1, auc_test_std=0.0, auc_inherited=None)
    page = written(result(points=(only,)), EMPTY, tmp_path)
    assert len(page.figures) == 2
    assert "one seed" in page.text
    assert "0.9700 ±" not in page.text


def test_a_study_without_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no retrained points yet") as caught:
        report(result(points=()), history(), tmp_path / "x.html")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        report(result(), history(), tmp_path / "nowhere" / "x.html")


def test_a_folder_in_place_of_the_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        report(result(), history(), tmp_path / "x.html")
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_an_interrupted_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.html"
    path.write_text("old")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        report(result(), history(), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_the_same_result_gives_the_same_page(tmp_path: Path) -> None:
    pages = [report(result(), history(), str(tmp_path / name)) for name in ("a.html", "b.html")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_reports_need_no_torch() -> None:
    code = "import sys, optuna_aes.visualization; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
