"""Several searches on one table, by strategy and seed: what ``compare`` and ``stability`` run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna
from rich.console import Console

from optuna_aes.cli import request
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.strategy import knows_blocks, strategy_of
from optuna_aes.cli.values import Amount, Numbers
from optuna_aes.errors import InputError
from optuna_aes.search.search import Search
from optuna_aes.strategies.base import OneShot


@dataclass(frozen=True)
class Fleet:
    """Searches of several strategies with the same budgets.

    Args:
        options: Of every search; name, strategy, seed, budget and levels are set for each.
        strategies: Names of strategies.
        seeds: How many seeds of each.
        shares: Budgets as shares of the full-size parameters: the largest is every search's budget, and each is a level at
            which one choice of sizes is picked.
        trainings: Trials of strategies that train each of them from scratch.

    Raises:
        InputError: If something is out of range.
    """

    options: SearchOptions
    strategies: Sequence[str]
    seeds: int
    shares: Sequence[float]
    trainings: int = 20

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds {self.seeds} is out of range: give at least 1")
        if not self.strategies or not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise InputError("give one strategy or more, and shares in (0, 1]")
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    @property
    def picks_at(self) -> tuple[float, ...]:
        """The shares as shares of the budget, the largest first."""
        return tuple(share / max(self.shares) for share in sorted(set(self.shares), reverse=True))

    @property
    def names(self) -> list[str]:
        """The strategies, each once."""
        return list(dict.fromkeys(self.strategies))

    def searches(self) -> list[SearchOptions]:
        """The options of every search, seed by seed."""
        seeds = range(self.options.seed, self.options.seed + self.seeds)
        return [self.search(strategy, seed) for seed in seeds for strategy in self.names]

    def search(self, strategy: str, seed: int) -> SearchOptions:
        """The options of one search.

        The uniform sizes are the same for all of a seed: the first strategy trains them. A strategy that has one size per
        field keeps to that where others divide fields into blocks.
        """
        divides = knows_blocks(strategy) or not any(map(knows_blocks, self.names))
        options = replace(
            self.options,
            strategy=strategy,
            seed=seed,
            name=f"{self.options.name}.{strategy.replace(':', '-')}.{seed}",
            budget=Amount(max(self.shares)),
            levels=Numbers(self.picks_at),
            blocks=self.options.blocks if divides else SearchOptions.blocks,
            reference=self.options.reference and strategy == self.names[0],
        )
        return options if isinstance(strategy_of(options), OneShot) else replace(options, trials=self.trainings)

    def check(self, searches: Sequence[SearchOptions]) -> None:
        """Refuses what cannot be run before any of it is."""
        for one in searches:
            request.prepare(one, picks_at=self.picks_at)

    def run(
        self,
        searches: Sequence[SearchOptions],
        work: Callable[[Search], object],
        console: Console,
        *,
        lent: Mapping[str, str] | None = None,
    ) -> None:
        """Creates or takes up one search after the other, with what those before it can lend, and does work with it.

        Args:
            searches: Their options.
            work: What to do with each.
            console: Where to tell of progress.
            lent: By name of a search, the one whose supernet it takes, where it is not to look for one itself.
        """
        dataset = request.open_data(self.options)
        for number, one in enumerate(searches, 1):
            if not one.quiet:
                console.print(f"[bold]{one.name}[/bold]  [dim]{number} of {len(searches)}[/dim]")
            before = searches[: number - 1]
            lender = (lent or {}).get(one.name or "") or _lender(one, before)
            others = [other.name or "" for other in before]
            with progress_for(console, quiet=one.quiet) as progress:
                wish = request.wish_of(one, picks_at=self.picks_at)
                work(request.create(wish, dataset, progress, supernet_of=lender, trained_by=others))


def _lender(one: SearchOptions, before: Sequence[SearchOptions]) -> str | None:
    """The search whose supernet this one would train again, if there is one."""
    mine = strategy_of(one)
    if not isinstance(mine, OneShot):
        return None
    for other in before:
        theirs = strategy_of(other)
        if (
            other.seed == one.seed
            and isinstance(theirs, OneShot)
            and theirs.fit_settings == mine.fit_settings
            and theirs.every_size == mine.every_size
        ):
            return other.name
    return None
