from __future__ import annotations

from pathlib import Path

from optuna_aes.search.stability import Stability, StabilityRow
from optuna_aes.visualization import plot_agreement, plot_picks, stability_report

SAME, OTHER = {"a": 4, "<b>": 0}, {"a": 4, "<b>": 2}
ROWS = (
    StabilityRow.of("adass", {0.1: [SAME, SAME], 0.5: [SAME, SAME]}, {0.1: [SAME, OTHER], 0.5: [SAME, SAME]}),
    StabilityRow.of("<x>", {0.1: [], 0.5: []}, {0.1: [], 0.5: [OTHER, OTHER]}),
)
FOUND = Stability((0.1, 0.5), 2, ROWS)


def test_each_strategy_has_two_bars() -> None:
    whole, search = plot_agreement(FOUND).data
    assert list(whole.y) == ["&lt;x&gt;", "adass"]
    assert list(whole.x) == [1.0, 0.75]
    assert list(search.x) == [None, 1.0]
    assert search.name == "Seeds of the search alone"


def test_what_every_seed_picked_is_told() -> None:
    (sizes,) = plot_picks(FOUND, 0.1).data
    assert list(sizes.y) == ["adass · 1", "adass · 0"]
    assert list(sizes.x) == ["a", "&lt;b&gt;"]
    assert [list(row) for row in sizes.text] == [[4, 2], [4, 0]]
    assert list(sizes.z[1]) == [2.0, -1.0]
    (both,) = plot_picks(FOUND, 0.5).data
    assert len(both.y) == 4


def test_nothing_and_different_blocks_are_said() -> None:
    empty = Stability((0.1,), 2, (StabilityRow.of("x", {0.1: []}, {0.1: []}),))
    mixed = Stability((0.1,), 2, (*ROWS, StabilityRow.of("y", {0.1: []}, {0.1: [{"a": 1}, {"a": 1}]})))
    for found, text in ((empty, "Nothing was picked"), (mixed, "different blocks")):
        fig = plot_picks(found, 0.1)
        assert not fig.data
        assert text in fig.layout.annotations[0].text


def test_the_report_is_one_file_without_links_out(tmp_path: Path) -> None:
    page = stability_report(FOUND, tmp_path / "s.html", name="clicks <2>").read_text()
    assert "clicks &lt;2&gt;" in page
    assert page.count('class="figure"') == 3
    assert "<script src" not in page
