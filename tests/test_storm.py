"""A small storm over workers; the large one is ``python -m studies.bench.storm``."""

from __future__ import annotations

import pytest

from studies.bench.storm import Weather, storm


@pytest.mark.slow
@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_workers_that_are_killed_and_frozen_lose_nothing(server: str, request: pytest.FixtureRequest) -> None:
    if server == "postgres":
        request.getfixturevalue("postgres_server")  # skips where there is none
    restart = server == "postgres"
    weather = Weather(
        server=server,
        workers=3,
        kills=3,
        every=3.0,
        freezes=1,
        disk=False,
        restart=restart,
        rows=5000,
        trials=60,
        retrain_seeds=1,
    )
    report = storm(weather)
    report.show()
    assert report.events["killed"] == 3
    assert report.stages["search"]["finished"] == 60
    assert report.good
