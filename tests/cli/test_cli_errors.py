"""Bad input: one line that says what is wrong, exit code 2, and nothing written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from command_line import SMALL, Ended, click_table

from optuna_aes.cli import app as app_module
from optuna_aes.cli import exits, main
from optuna_aes.errors import InputError

Run = Callable[..., Ended]


def listing(folder: Path) -> dict[str, bytes | str | None]:
    # SQLite's own side files come and go with its connections, and what they hold moves into the database when they go.
    files = (p for p in sorted(folder.rglob("*")) if not p.name.endswith(("-wal", "-shm")))
    return {str(p): content(p) for p in files}


def content(path: Path) -> bytes | str | None:
    if path.is_dir():
        return None
    with path.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            return path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump())


def assert_refused(ended: Ended, *texts: str) -> None:
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, ended.err
    assert "Traceback" not in ended.err
    for text in texts:
        assert text in ended.err


def lines(change: Callable[[list[str]], list[str]]) -> bytes:
    return ("\n".join(change(click_table(300))) + "\n").encode()


BAD_TABLES = {
    "empty file": (b"", "clicks.csv"),
    "no rows": (lines(lambda t: t[:1]), "no rows"),
    "missing label column": (lines(lambda t: [t[0].replace("label", "target"), *t[1:]]), "label column 'label'"),
    "label not 0 or 1": (lines(lambda t: [*t, "u1,i1,3,7"]), "7"),
    "a single class": (lines(lambda t: [t[0], *(r[:-1] + "1" for r in t[1:])]), "class"),
    "a constant field": (
        lines(lambda t: [t[0], *(",".join([*r.split(",")[:2], "5", r[-1]]) for r in t[1:])]),
        "'hour' held one value",
    ),
    "duplicate columns": (lines(lambda t: ["user,user,hour,label", *t[1:]]), "'user' is there twice"),
    "not UTF-8": (lines(lambda t: t) + b"u\xe9\xff,i1,3,1\n", "UTF-8"),
    "ragged rows": (lines(lambda t: [*t, "u1,i1,3"]), "clicks.csv"),
}


@pytest.mark.parametrize(("content", "text"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_used(folder: Path, aes: Run, content: bytes, text: str) -> None:
    (folder / "clicks.csv").write_bytes(content)
    before = listing(folder)

    assert_refused(aes("search", "clicks.csv", *SMALL), text)

    assert listing(folder) == before


BAD_OPTIONS = {
    "missing file": ("search nope.csv", "nope.csv does not exist"),
    "another label": ("search clicks.csv --label lable", "did you mean 'label'?"),
    "unknown strategy": ("search clicks.csv --strategy randon", "strategy='randon' is not known: give one of adass"),
    "budget above 100 %": ("search clicks.csv --budget 150%", "out of range"),
    "budget of nothing": ("search clicks.csv --budget 0", "out of range"),
    "budget below zero": ("search clicks.csv --budget=-0.5", "out of range"),
    "budget that is none": ("search clicks.csv --budget lots", "is not a budget"),
    "budget below the smallest": ("search clicks.csv --sizes 2,4 --budget 10", "below the smallest architecture"),
    "storage that is no URL": ("search clicks.csv --storage nonsense", "is not a storage URL"),
    "storage in no folder": ("search clicks.csv --storage sqlite:///no/aes.db", "does not exist: create it first"),
    "storage that is no database": ("search clicks.csv --storage sqlite:///clicks.csv", "is not a SQLite database"),
    "server that is not there": (
        "search clicks.csv --storage postgresql://me:geheim@127.0.0.1:1/x",
        "check that the server runs",
    ),
    "unknown artifact store": ("search clicks.csv --artifacts ftp://x", "unknown kind"),
    "artifacts in a file": ("search clicks.csv --artifacts clicks.csv/x", "is not a folder"),
    "name of a stage": ("search clicks.csv --name a/fit", "ends like a stage's study"),
    "empty name": ("search clicks.csv --name=", "cannot name a study"),
    "no trials": ("search clicks.csv --trials 0", "trials=0 is out of range"),
    "less than no retraining": ("search clicks.csv --retrain=-1", "retrain=-1 is out of range"),
    "unknown backbone": ("search clicks.csv --backbone gpt", "backbone='gpt' is not known"),
    "unknown device": ("search clicks.csv --device tpu", "device='tpu' is not known"),
    "no threads": ("search clicks.csv --threads 0", "threads=0 is out of range"),
    "more threads than can be": ("search clicks.csv --threads 1000000000", "threads=1000000000 is out of range"),
    "a seed below zero": ("search clicks.csv --seed=-1", "seed=-1 is out of range"),
    "a seed of many digits": ("search clicks.csv --seed 99999999999", "seed=99999999999 is out of range"),
    "an endless spread": ("search clicks.csv --init-std inf", "init_std=inf"),
    "batch norm of one row": ("search clicks.csv --batch-norm --batch-size 1", "give at least 2"),
    "no epochs": ("search clicks.csv --epochs 0", "epochs=0 is out of range"),
    "two fractions": ("search clicks.csv --fractions 0.5,0.5", "give three"),
    "levels above the budget": ("search clicks.csv --levels 2", "shares of the budget"),
    "one size": ("search clicks.csv --sizes 4", "at least two different sizes"),
    "sizes that are no numbers": ("search clicks.csv --sizes 0,big", "is not a list of whole numbers"),
    "sizes that end elsewhere": ("search clicks.csv --sizes 0,4 --dim 8", "make the largest size 8"),
    "no dimension": ("search clicks.csv --dim 0", "--dim 0 is out of range"),
    "unknown column": ("search clicks.csv --drop hours", "did you mean 'hour'?"),
    "table twice": ("search clicks.csv --data clicks.csv", "given twice"),
    "unknown format": ("search clicks.csv --format xls", "format='xls' is unknown"),
    "unknown option": ("search clicks.csv --trails 3", "--trials"),
    "no number": ("search clicks.csv --trials many", "--trials"),
    "no table": ("search", "optuna-aes search --help"),
    "unknown command": ("serch clicks.csv", "optuna-aes --help"),
    "status of nothing": ("status", "aes.db does not exist"),
    "pareto of nothing": ("pareto --name x", "aes.db does not exist"),
    "export of nothing": ("export --out model", "aes.db does not exist"),
    "dashboard of nothing": ("dashboard", "aes.db does not exist"),
    "missing recipe": ("search nope.toml", "the recipe nope.toml cannot be read"),
    "demo in a file": ("demo --out clicks.csv", "clicks.csv"),
}


@pytest.mark.parametrize(("command", "text"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_cannot_be_used(folder: Path, aes: Run, command: str, text: str) -> None:
    before = listing(folder)

    ended = aes(*command.split())

    assert_refused(ended, text)
    assert "geheim" not in ended.err
    assert listing(folder) == before


@pytest.fixture
def searched(folder: Path, aes: Run) -> Path:
    assert aes("search", "clicks.csv", *SMALL).code == 0
    return folder


OTHER_SETTINGS = {
    "seed": ("--seed 3", "seed was 0 and is 3"),
    "budget": ("--budget 0.5", "budget was"),
    "sizes": ("--sizes 0,2,4", "candidates was [0, 1, 2, 4] and is [0, 2, 4]"),
    "training": ("--lr 0.02", "train.lr was 0.01 and is 0.02. Use"),
    "supernet": ("--fit-epochs 3", "fit.epochs was 2 and is 3. Use"),
    "strategy": ("--levels 1,0.5", "strategy.options.policy.levels was"),
    "model": ("--backbone mlp", "model.backbone was 'deepfm' and is 'mlp'"),
    "artifacts": ("--artifacts weights", "artifacts was None and is 'weights'"),
}


def test_a_name_that_is_taken_by_other_settings(searched: Path, aes: Run) -> None:
    before = listing(searched)

    for options, text in OTHER_SETTINGS.values():
        assert_refused(aes("search", "clicks.csv", *SMALL, *options.split()), "study 'clicks'", text)

    assert listing(searched) == before


def test_a_name_that_is_taken_by_other_data(searched: Path, aes: Run) -> None:
    database = content(searched / "aes.db")
    (searched / "clicks.csv").write_text("\n".join(click_table(seed=1)) + "\n", encoding="utf-8")

    ended = aes("search", "clicks.csv", *SMALL)  # the new table is encoded first: its fingerprint is its content's

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "study 'clicks' was made with other settings: the data (its fingerprint was" in ended.err
    assert content(searched / "aes.db") == database


def test_a_name_that_is_taken_by_another_program(folder: Path, aes: Run) -> None:
    study = optuna.create_study(storage="sqlite:///aes.db", study_name="clicks")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    del study
    names = set(listing(folder))

    assert_refused(aes("search", "clicks.csv", *SMALL), "is not a search of optuna_aes")
    assert_refused(aes("status", "--name", "clicks"), "there is no search named 'clicks'")

    assert set(listing(folder)) == names


def test_what_can_be_read_of_a_search_that_is_not_there(searched: Path, aes: Run) -> None:
    before = listing(searched)
    for command in ("status --name x", "pareto --name x", "export --name x --out m", "dashboard --name x"):
        assert_refused(aes(*command.split()), "there is no search named 'x': the storage holds clicks")
    assert_refused(aes("export", "--out", "model", "--trial", "99"), "trial=99")
    assert_refused(aes("pareto", "--html", "no/front.html"), "no/front.html")
    assert listing(searched) == before


def test_divergence_is_one_line_and_the_search_can_go_on(folder: Path, aes: Run) -> None:
    hot = [*SMALL, "--lr", "1e30"]
    for _ in range(2):
        ended = aes("search", "clicks.csv", *hot)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "lower the learning rate" in ended.err


def test_a_bug_leaves_its_traceback_in_a_file(
    folder: Path, aes: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr(app_module, "find_record", broken)
    monkeypatch.setattr(exits.tempfile, "tempdir", str(tmp_path))
    ended = aes("status")

    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "this is a bug in optuna-aes (RuntimeError: oh no)" in ended.err
    file = Path(ended.err.split()[-1])
    assert "def broken" not in file.read_text()
    assert 'raise RuntimeError("oh' in file.read_text()

    monkeypatch.setenv("OPTUNA_AES_DEBUG", "1")
    assert "Traceback" in aes("status").err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("x=1\nis bad"), 2, "error: x=1 is bad\n"),
        (KeyboardInterrupt(), 130, "stopped: run the same command again to go on\n"),
        (OSError(28, "No space left on device", "aes.db"), 2, "error: aes.db: No space left on device\n"),
        (MemoryError(), 2, "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: out of memory"),
    ],
)
def test_every_end_has_its_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(app_module, "find_record", fail)
    assert main(["status"]) == code
    assert capsys.readouterr().err.startswith(text)


def test_a_stop_that_made_a_library_stumble_is_a_stop(aes: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise UnboundLocalError("updated_state")

    monkeypatch.setattr(app_module, "find_record", fail)
    assert aes("status") == Ended(130, "", "stopped: run the same command again to go on\n")
