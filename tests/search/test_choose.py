from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tiny_search import tiny_data, tiny_search

from optuna_aes.errors import InputError
from optuna_aes.models.delong import difference_error
from optuna_aes.search import choose as choose_module
from optuna_aes.search.choose import choose, chosen
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.read import picks_of
from optuna_aes.search.records import CHOSEN, Picks, Scored, scored


def trial(number: int, auc: float, params: int) -> Scored:
    return Scored(number, {"a": number, "b": 1}, auc, params)


def first(order: Sequence[Scored]) -> Scored:
    return order[0]


def numbers(picks: Picks | Sequence[Scored]) -> list[int]:
    return [p.number for p in (picks.found if isinstance(picks, Picks) else picks)]


# AUC rises with parameters, except that trial 4 is not worth what it costs.
TRIALS = [trial(0, 0.60, 100), trial(1, 0.65, 200), trial(2, 0.70, 400), trial(3, 0.75, 800), trial(4, 0.55, 900)]


def test_every_level_names_its_best() -> None:
    assert numbers(choose(TRIALS, [1000, 500, 250], 3, first)) == [3, 2, 1]


def test_levels_are_taken_from_the_largest() -> None:
    assert numbers(choose(TRIALS, [250, 1000, 500], 2, first)) == [3, 2]


def test_budgets_between_the_levels_come_next_and_the_best_left_over_last() -> None:
    # Between 1000 and 100 lies 316, whose best is trial 1; then 562 names trial 2.
    assert numbers(choose(TRIALS, [1000, 100], 4, first)) == [3, 0, 1, 2]
    assert numbers(choose(TRIALS, [1000], 5, first)) == [3, 2, 1, 0, 4]


def test_no_more_than_there_is_and_no_sizes_twice() -> None:
    twin = Scored(9, dict(TRIALS[3].sizes), 0.75, 800)
    assert numbers(choose([*TRIALS, twin], [1000, 900], 20, first)) == [3, 2, 1, 0, 4]
    assert choose([], [1000], 3, first) == Picks((), {})
    assert choose(TRIALS, [1000], 0, first) == Picks((), {})


def test_a_level_below_every_trial_names_nothing() -> None:
    assert numbers(choose(TRIALS, [1000, 50], 2, first)) == [3, 1]  # 50 has none, 223 lies between


def test_at_fixed_budgets_each_has_its_best_and_nothing_is_filled_up() -> None:
    picks = choose(TRIALS, [250, 1000, 900, 50], 4, first, fill=False)
    assert numbers(picks) == [3, 1]
    assert picks.levels == {1000: 0, 900: 0, 250: 1}
    assert [pick and pick.number for pick in map(picks.at, (1e6, 900, 899.5, 250, 249))] == [3, 3, 1, 1, None]


def test_a_filled_up_choice_tells_what_the_levels_named() -> None:
    picks = choose(TRIALS, [1000, 100], 4, first)
    assert numbers(picks) == [3, 0, 1, 2]
    assert picks.levels == {1000: 0, 100: 1}


def test_of_equal_scores_the_cheaper_and_then_the_earlier() -> None:
    same = [trial(0, 0.7, 300), trial(1, 0.7, 200), trial(2, 0.7, 200)]
    assert numbers(choose(same, [1000], 3, first)) == [1, 2, 0]


def test_the_rule_sees_what_fits_by_score() -> None:
    seen: list[list[int]] = []

    def rule(order: Sequence[Scored]) -> Scored:
        seen.append(numbers(order))
        return order[-1]

    assert numbers(choose(TRIALS, [1000, 250], 2, rule)) == [4, 0]
    assert seen[:2] == [[3, 2, 1, 0, 4], [1, 0]]


def test_the_pick_is_the_best_less_the_tables_that_are_worth_nothing(tmp_path: Path) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), trials=40, retrain=2)
    search.run(["fit", "search"])
    context = search.context
    space = context.space
    trials = scored(context.studies.search, context.budget)
    scorer = context.strategy.scorer(load_supernet(context), context.task.dataset, seed=context.seed)
    trimmed = 0

    def surely_worse(sizes: dict[str, int], best: dict[str, int]) -> bool:
        ours, theirs = scorer.parts(np.array([space.to_indices(s) for s in (sizes, best)]))
        worth = 0.003 * (1 - space.cost(sizes).params / max(1, space.cost(best).params))
        return theirs.auc - ours.auc > max(difference_error(theirs, ours), worth)

    for number in range(len(trials)):
        best = trials[number]
        pick = choose_module._Trim(context)([best, *trials])
        assert pick.number == best.number
        assert pick.params == space.cost(pick.sizes).params <= best.params
        assert not surely_worse(pick.sizes, best.sizes)
        assert pick.auc == pytest.approx(scorer(space.to_indices(pick.sizes)[np.newaxis])[0])
        changed = {name for name in space.names if pick.sizes[name] != best.sizes[name]}
        trimmed += bool(changed)
        for block in space.blocks:
            if block.name in changed:
                assert pick.sizes[block.name] == 0
                assert block.rows * best.sizes[block.name] > 0.01 * best.params
    assert trimmed


def test_what_a_table_must_earn_goes_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), trials=40, retrain=2)
    search.run(["fit", "search"])
    best = max(scored(search.context.studies.search, search.context.budget), key=lambda t: t.auc)
    kept = {}
    for price in (0.0, 0.003, 0.1, 10.0):
        monkeypatch.setattr(choose_module._Trim, "PRICE", price)
        kept[price] = choose_module._Trim(search.context)([best]).params
    assert sorted(kept.values(), reverse=True) == list(kept.values())
    assert kept[10.0] < 0.1 * best.params <= kept[0.0]


def test_the_choice_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data())
    search.run(["fit", "search"])
    picks = chosen(search.context, search.record.plan)
    assert search.context.studies.retrain.user_attrs[CHOSEN]["picks"] == [asdict(pick) for pick in picks.found]
    with monkeypatch.context() as patch:
        patch.delattr(choose_module, "choose")
        assert chosen(search.context, search.record.plan) == picks
    more = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), retrain=3)
    assert len(chosen(more.context, more.record.plan).found) == 3


def test_a_search_that_is_compared_picks_at_the_budgets_it_is_given(tmp_path: Path) -> None:
    search = tiny_search(
        f"sqlite:///{tmp_path}/aes.db", tiny_data(), trials=40, picks_at=(1.0, 0.6, 0.3), reference=False
    )
    search.run()
    context = search.context
    picks = chosen(context, context.plan)
    levels = [context.budget.level(share).params for share in (1.0, 0.6, 0.3)]
    assert list(picks.levels) == levels
    assert all(picks.found[at].params <= level for level, at in picks.levels.items())
    assert picks_of(search.record) == picks
    assert search.status()["stages"]["retrain"] == {
        "requested": len(picks.found), "finished": len(picks.found), "running": 0, "failed": 0, "pruned": 0
    }  # fmt: skip
    with pytest.raises(InputError, match="picks_at"):
        tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), picks_at=(2.0,))
