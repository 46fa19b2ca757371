from __future__ import annotations

import numpy as np
import pytest
from helpers import PLAIN, tiny_split

from optuna_aes.models import racing
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.racing import Known, Racer, parts_of
from optuna_aes.models.supernet import SubnetScorer, Supernet

PATHS = np.array([[3, 3, 3], [1, 0, 2], [0, 3, 0], [2, 2, 2], [0, 0, 0], [3, 1, 0], [0, 1, 3], [1, 1, 1]])
PARAMS = np.array([352, 46, 200, 176, 0, 170, 82, 88])


def make_racer(share: float = 0.25) -> tuple[SubnetScorer, Racer]:
    options = ModelOptions(backbone="mlp", hidden=(16, 8), init_std=0.7)
    scorer = SubnetScorer(Supernet(PLAIN, (0, 1, 2, 4), options=options), tiny_split(PLAIN, rows=2000))
    return scorer, Racer(scorer, share, box=(40, 352), seed=1)


def known_of(scorer: SubnetScorer, at: list[int]) -> Known:
    return Known(PATHS[at], PARAMS[at], scorer(PATHS[at]))


def test_a_part_has_its_share_of_both_classes_and_scores_near_the_whole() -> None:
    scorer, racer = make_racer()
    (heat,) = racer.heats
    first = heat.scorer
    assert first.labels.sum() == round(0.25 * scorer.labels.sum())
    assert len(first.labels) == pytest.approx(0.25 * len(scorer.labels), abs=1)
    np.testing.assert_allclose(first(PATHS), scorer(PATHS), atol=0.1)
    assert (first.ids == scorer.part(0.25, seed=1).ids).all()
    assert not (first.ids == scorer.part(0.25, seed=2).ids).all()


def test_parts_grow_and_lie_within_each_other() -> None:
    _, racer = make_racer(0.02)
    assert parts_of(0.02) == (0.02, 0.08, 0.32)
    assert [len(heat.scorer.labels) for heat in racer.heats] == [40, 160, 640]
    rows = [{tuple(row) for row in heat.scorer.ids.tolist()} for heat in racer.heats]
    assert rows[0] <= rows[1] <= rows[2]


def test_without_rivals_all_are_scored_on_all_rows() -> None:
    scorer, racer = make_racer()
    aucs, rows = racer(PATHS, PARAMS, known_of(scorer, []))
    assert (rows == 2000).all()
    np.testing.assert_allclose(aucs, scorer(PATHS), atol=1e-7)


@pytest.mark.parametrize("share", [0.25, 0.1])
def test_estimates_are_near_the_score_below_the_rival_and_never_better_than_it(share: float) -> None:
    scorer, racer = make_racer(share)
    every = known_of(scorer, list(range(len(PATHS))))
    aucs, rows = racer(PATHS, PARAMS, every)
    scores, full = scorer(PATHS), rows == 2000
    assert set(rows) <= {2000, *(len(heat.scorer.labels) for heat in racer.heats)}
    assert not full.all()
    np.testing.assert_allclose(aucs[full], scores[full], atol=1e-7)
    np.testing.assert_allclose(aucs[~full], scores[~full], atol=0.05)
    for at in np.flatnonzero(~full):
        rival = every.rival(int(PARAMS[at]))
        assert rival is not None
        assert aucs[at] < every.aucs[rival]


def test_what_may_add_to_the_front_is_scored_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, racer = make_racer()
    known = known_of(scorer, [1, 2, 4])
    monkeypatch.setattr(racing, "WORTH", -1.0)
    assert (racer(PATHS, PARAMS, known)[1] == 2000).all()
    monkeypatch.setattr(racing, "WORTH", 10.0)
    full = racer(PATHS, PARAMS, known)[1] == 2000
    assert full.tolist() == [known.rival(int(used)) is None for used in PARAMS]


def test_the_gain_is_the_area_that_a_point_adds() -> None:
    known = Known(PATHS[:2], np.array([100, 10]), np.array([0.9, 0.7]))
    # From 1 to 10 nothing, from 10 to 100 an excess of 0.2, from 100 to 1000 one of 0.4.
    total = 0.2 + 0.4
    assert known.gain(100, 0.95, 1, 1000) == pytest.approx(0.05 / total)
    assert known.gain(10, 0.8, 1, 1000) == pytest.approx(0.1 / total)
    assert known.gain(1, 0.6, 1, 1000) == pytest.approx(0.1 / total)
    assert known.gain(10, 0.7, 1, 1000) == known.gain(1000, 1.0, 1, 1000) == 0
    assert known.rival(9) is None
    assert known.rival(99) == 1
