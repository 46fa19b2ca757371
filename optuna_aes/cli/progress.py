"""Progress of a search: bars in a terminal, a few plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from optuna_aes.models.training import Epoch

ENCODING = {"read": "reading", "fit": "fitting the encoder", "write": "writing"}
REFRESH = 0.1  # seconds between two updates of a bar


class Progress:
    """Hears everything and shows nothing; what the other two have in common.

    Each stage becomes one finished line: ``fit  6 epochs · AUC 0.7312 · 41 s``. Use it as a context manager.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._started = 0.0
        self._detail = ""
        self._idle = False
        self._finished = self._requested = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()
        self._close()

    def encode(self, stage: str, done: int, total: int | None) -> None:
        """How far the encoding of the table is; see :func:`optuna_aes.data.encode`."""
        if self._stage != "encode":
            self._begin("encode")
        self._show(ENCODING.get(stage, stage), done, total or 0)

    def fetch(self, done: int, total: int) -> None:
        """How many bytes of the dataset are fetched; see :func:`optuna_aes.storage.remote.open_dataset_at`."""
        if self._stage != "fetch":
            self._begin("fetch")
        self._show(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB", done, total)

    def encoded(self, rows: int, fields: int) -> None:
        """The dataset is there."""
        if self._stage in ("encode", "fetch"):
            self._detail = f"{rows:,} rows · {fields} fields"
            self._end()

    def stage(self, stage: str, finished: int, requested: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        again = stage == self._stage
        if not again:
            self._end()
        self._finished, self._requested = finished, requested
        self._idle = finished >= requested
        self._detail = ""
        if not again:
            self._begin(stage)
        if self._idle:
            self._detail = f"{_count(stage, finished)} · done before" if requested else "nothing to do"
        elif finished:
            self.note(f"{stage} goes on after {finished} of {_count(stage, requested)}")
        self._show("" if self._idle else "starting", finished, requested)

    def note(self, text: str) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""

    def epoch(self, epoch: Epoch, total: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        self._finished = epoch.number
        self._detail = f"epoch {epoch.number}/{total} · AUC {epoch.auc:.4f} · {_rate(epoch.rows_per_second)}"

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        self._finished = finished
        self._detail = f"{finished}/{requested} trials · best AUC {best_auc:.4f} · front {front}"

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        self._finished = finished
        self._detail = f"{finished}/{requested} trainings · last: AUC {auc_valid:.4f} at {params:,} parameters"

    def _begin(self, stage: str) -> None:
        self._stage, self._started, self._detail = stage, time.monotonic(), ""

    def _end(self) -> None:
        """Ends the stage at hand, if any, with its line."""
        if self._stage:
            detail = self._detail
            if self._stage == "retrain":  # the last one's AUC says nothing of all
                detail = detail.partition(" · last:")[0]
            if not self._idle:
                detail = f"{detail} · {seconds_text(time.monotonic() - self._started)}".removeprefix(" · ")
            self._print_end(self._stage, detail)
        self._stage, self._idle = "", False

    def _show(self, text: str, done: float, total: float) -> None:
        pass

    def _print_end(self, stage: str, detail: str) -> None:
        pass

    def _close(self) -> None:
        pass


class PlainProgress(Progress):
    """Lines for a log: one for each epoch, each quarter of the search, each training."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._quarter = 0

    def note(self, text: str) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        self._line(text)

    def epoch(self, epoch: Epoch, total: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().epoch(epoch, total)
        self._line(f"fit: {self._detail}")

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().scored(finished, requested, best_auc, front)
        quarter = 4 * finished // requested
        if quarter > self._quarter:
            self._quarter = quarter
            self._line(f"search: {self._detail}")

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().retrained(finished, requested, auc_valid, params)
        self._line(f"retrain: {self._detail}")

    def _begin(self, stage: str) -> None:
        super()._begin(stage)
        self._quarter = 4 * self._finished // max(1, self._requested)

    def _print_end(self, stage: str, detail: str) -> None:
        self._line(f"{stage} done: {detail}")

    def _line(self, text: str) -> None:
        # Not through rich's wrapping: a log's reader may look for a whole line. Flushed, as a killed run's last words count.
        self.console.file.write(text + "\n")
        self.console.file.flush()


class LiveProgress(Progress):
    """A bar for the stage at hand, under one line for each stage that is done."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._bars = Bars(
            SpinnerColumn(style="cyan"),
            TextColumn("[bold]{task.description}", table_column=Column(min_width=7)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def note(self, text: str) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        self.console.print(Text(f"  {text}", style="dim"))

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        now = time.monotonic()
        if now - self._shown < REFRESH and done < total:
            return
        self._shown = now
        if self._stage == "fit":
            self._show(self._detail or f"epoch 1 · {_rate(rows_per_second)}", done, total)
        else:
            self._show(self._detail or _rate(rows_per_second), self._finished + done / total, self._requested)

    def epoch(self, epoch: Epoch, total: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().epoch(epoch, total)
        self._show(self._detail)

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().scored(finished, requested, best_auc, front)
        self._show(self._detail, finished, requested)

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        """See :class:`optuna_aes.search.progress.Listener`."""
        super().retrained(finished, requested, auc_valid, params)
        self._show(self._detail, finished, requested)

    def _show(self, text: str, done: float | None = None, total: float | None = None) -> None:
        if self._task is None:
            self._task = self._bars.add_task(self._stage, total=total, detail=text)
        self._bars.update(self._task, completed=done, total=total, detail=text)

    def _print_end(self, stage: str, detail: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self.console.print(
            Text.assemble(("✓ ", "green"), (f"{stage:<8}", "bold"), detail), soft_wrap=True, highlight=False
        )

    def _close(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C must not leave the cursor hidden
            self._bars.stop()


def progress_for(console: Console, *, quiet: bool) -> Progress:
    """The progress display that suits where it is printed."""
    if quiet:
        return Progress()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def _count(stage: str, count: int) -> str:
    unit = {"fit": "epoch", "search": "trial", "retrain": "training"}[stage]
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _rate(rows_per_second: float) -> str:
    if rows_per_second >= 1e6:
        return f"{rows_per_second / 1e6:.1f}M rows/s"
    if rows_per_second >= 1e4:
        return f"{rows_per_second / 1e3:.0f}k rows/s"
    return f"{rows_per_second:,.0f} rows/s"


def seconds_text(seconds: float) -> str:
    """A duration, as one says it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
