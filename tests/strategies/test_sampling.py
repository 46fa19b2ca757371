from __future__ import annotations

import json

import numpy as np
import pytest

from optuna_aes.errors import InputError
from optuna_aes.strategies.adass.sampling import PathSampler, SamplingOptions


def make(fields: int = 3, candidates: int = 4, *, seed: int = 0, **options: object) -> PathSampler:
    return PathSampler(fields, candidates, SamplingOptions(**{"full_share": 0.0, **options}), seed=seed)


def lagging(sampler: PathSampler) -> PathSampler:
    lag = np.zeros((sampler.fields, sampler.candidates))
    lag[0, 1] = 1.0
    sampler.observe_probe(lag)
    return sampler


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"table": "magic"}, "table='magic' is not known: give one of probe, grad, loss, uniform"),
        ({"full_share": 1.5}, "full_share=1.5"),
        ({"warmup": -0.1}, "warmup"),
        ({"delta": 2.0}, "delta"),
        ({"rho": float("nan")}, "rho=nan"),
        ({"decay": 1.1}, "decay"),
        ({"field_share": 0.0}, "field_share=0.0"),
        ({"paths": 0}, "paths=0"),
        ({"probes": 0}, "probes"),
        ({"probe_rows": 0}, "probe_rows"),
        ({"probe_subnets": 0}, "probe_subnets"),
        ({"tau": 0.0}, "tau=0.0"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        SamplingOptions(**given)


@pytest.mark.parametrize("table", ["probe", "grad", "loss"])
def test_warm_up_is_uniform_and_then_what_lags_is_favoured(table: str) -> None:
    sampler = lagging(make(table=table, warmup=0.2))
    for progress in (0.0, 0.1, 0.2):
        np.testing.assert_array_equal(sampler.probabilities(progress), 0.25)
    favour = [sampler.probabilities(progress)[0, 1] for progress in (0.2, 0.4, 0.7, 1.0)]
    assert favour == sorted(set(favour))
    np.testing.assert_allclose(sampler.probabilities(0.9)[1:], 0.25)  # fields whose candidates lag alike


def test_uniform_takes_no_notice_of_lags() -> None:
    np.testing.assert_array_equal(lagging(make(table="uniform")).probabilities(1.0), 0.25)


@pytest.mark.parametrize("tau", [1e-4, 1.0, 100.0])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e9])
def test_probabilities_sum_to_one_and_keep_their_uniform_part(scale: float, tau: float) -> None:
    sampler = make(5, 6, delta=0.7, tau=tau)
    sampler.observe_probe(scale * np.random.default_rng(0).random((5, 6)))
    for progress in np.linspace(0, 1, 11):
        probabilities = sampler.probabilities(progress)
        ramp = max(0.0, (progress - 0.15) / 0.85)
        np.testing.assert_allclose(probabilities.sum(1), 1)
        assert (probabilities >= (1 - 0.7 * ramp) / 6 - 1e-12).all()


def test_what_was_not_seen_counts_as_the_mean_of_its_field() -> None:
    sampler = make(2, 4, table="loss", delta=1.0)
    sampler.observe(np.array([[0, 3], [1, 3]]), np.array([0.9, 0.1]))
    probabilities = sampler.probabilities(1.0)
    assert probabilities[0, 0] > probabilities[0, 2] == probabilities[0, 3] > probabilities[0, 1]
    np.testing.assert_allclose(probabilities[1], 0.25)


def test_lags_are_running_means_of_what_was_observed() -> None:
    sampler = make(2, 3, table="grad", decay=0.75)
    sampler.observe(np.array([[0, 2]]), np.array([[1.0, 5.0]]))
    sampler.observe(np.array([[0, 1], [0, 2]]), np.array([[2.0, 7.0], [4.0, 1.0]]))
    np.testing.assert_allclose(sampler.lag, [[0.75 * 1.25 + 0.25 * 4, 0, 0], [0, 7, 0.75 * 5 + 0.25 * 1]])
    assert sampler.seen.tolist() == [[True, False, False], [False, True, True]]


def test_draws_have_the_probabilities() -> None:
    sampler = lagging(make(paths=8, seed=3))
    drawn = np.concatenate([sampler.draw(step, 1.0) for step in range(3000)])
    assert drawn.dtype == np.int64
    shares = np.stack([(drawn == k).mean(0) for k in range(4)], axis=1)
    np.testing.assert_allclose(shares, sampler.probabilities(1.0), atol=0.01)


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    one, other = make(6, field_share=0.5, seed=1), make(6, field_share=0.5, seed=1)
    for step in (5, 2, 9):
        one.draw(step, 0.5)
        one.draw_fields(step)
    for step in (2, 3):
        np.testing.assert_array_equal(one.draw(step, 0.5), other.draw(step, 0.5))
        np.testing.assert_array_equal(one.draw_fields(step), other.draw_fields(step))
    assert (one.draw(2, 0.5) != one.draw(3, 0.5)).any()
    assert (one.draw(2, 0.5) != make(6, seed=2).draw(2, 0.5)).any()


@pytest.mark.parametrize("paths", [1, 3, 8])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.29, 0.5, 1.0])
def test_full_paths_are_spread_evenly_over_the_steps(paths: int, share: float) -> None:
    sampler = make(8, 4, paths=paths, full_share=share, table="uniform")
    full = np.array([(sampler.draw(step, 0.5) == 3).all(1).sum() for step in range(400)])
    wanted = share * paths
    # A path of eight fields is full by chance once in 65,000 draws: none in this many.
    assert set(full) <= {int(wanted), int(np.ceil(wanted))} | {round(wanted)}
    assert np.abs(full.cumsum() - wanted * np.arange(1, 401)).max() <= 1


@pytest.mark.parametrize(
    ("share", "fields", "count"), [(0.5, 7, 4), (0.55, 20, 11), (0.7, 10, 7), (0.01, 5, 1), (0.75, 26, 20)]
)
@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_field_draws_have_the_asked_for_number_and_favour_what_is_important(
    share: float, fields: int, count: int, rho: float
) -> None:
    sampler = make(fields, field_share=share, rho=rho, decay=0.0)
    saliency = np.full(fields, 0.1)
    saliency[0] = 5.0
    sampler.observe_importance(saliency)
    drawn = np.array([sampler.draw_fields(step) for step in range(600)])
    assert (drawn.sum(1) == count).all()
    rates = drawn.mean(0)
    assert (rates[0] > rates[1:].max() + 0.05) == (rho > 0)
    if rho < 1:
        assert rates.min() > 0


@pytest.mark.parametrize("saliency", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
def test_fields_without_any_importance_can_be_drawn(saliency: list[float]) -> None:
    sampler = make(3, field_share=0.6, rho=1.0, decay=0.0)
    sampler.observe_importance(np.array(saliency))
    with np.errstate(all="raise"):
        assert all(sampler.draw_fields(step).sum() == 2 for step in range(50))


def test_all_fields_are_updated_by_default() -> None:
    assert make().draw_fields(0) is None


@pytest.mark.parametrize("options", [{"table": "probe"}, {"table": "grad", "field_share": 0.5, "paths": 3}])
def test_the_state_survives_json_to_the_last_bit(options: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    sampler, copy = make(5, 4, seed=7, **options), make(5, 4, seed=7, **options)
    for _ in range(4):
        sampler.observe(rng.integers(4, size=(3, 5)), rng.random((3, 5)) ** 9)
        sampler.observe_importance(rng.random(5))
    copy.load(json.loads(json.dumps(sampler.state())))
    for name in ("lag", "seen", "importance"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(sampler, name))
        assert getattr(copy, name).dtype == getattr(sampler, name).dtype
    np.testing.assert_array_equal(copy.draw(9, 0.8), sampler.draw(9, 0.8))
    paths, values = rng.integers(4, size=(2, 5)), rng.random((2, 5))
    for each in (sampler, copy):
        each.observe(paths, values)
    np.testing.assert_array_equal(copy.lag, sampler.lag)


def test_size_zero_is_never_favoured_however_far_it_lags() -> None:
    options = SamplingOptions(table="probe", full_share=0.0, warmup=0.0)
    lag = np.tile([5.0, 0.2, 0.1, 0.0], (2, 1))  # no table at all is far worse than any
    favours, keeps = (PathSampler(2, 4, options, drops=drops) for drops in (False, True))
    for paths in (favours, keeps):
        paths.observe_probe(lag)
    assert (favours.probabilities(1.0)[:, 0] > 0.5).all()
    np.testing.assert_allclose(keeps.probabilities(1.0)[:, 0], 1 / 4)
    np.testing.assert_allclose(keeps.probabilities(1.0).sum(1), 1.0)
    assert (keeps.probabilities(1.0)[:, 1] > keeps.probabilities(1.0)[:, 3]).all()
