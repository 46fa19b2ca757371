"""A password in a storage's URL appears nowhere: not in what is printed, written, recorded or raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from command_line import SMALL, Ended

from optuna_aes.storage import safe_url
from optuna_aes.storage._messages import without_passwords

Run = Callable[..., Ended]

CORE = "hunter2"  # whatever is encoded, this stays as it is
PASSWORD = f"p@ss:/{CORE}%ü"
ENCODED = quote(PASSWORD, safe="")


@pytest.fixture
def guarded(postgres_server: Any, postgres_url: str) -> Iterator[sa.URL]:
    """A database that only a role with a password may use."""
    rules = Path(postgres_server.pgdata) / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all secretive scram-sha-256\n{before}")
    postgres_server.psql("SELECT pg_reload_conf()")
    url = sa.make_url(postgres_url)
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE secretive LOGIN SUPERUSER PASSWORD '{PASSWORD}'".replace("%", "%%"))
    yield url.set(username="secretive", password=PASSWORD)
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP OWNED BY secretive CASCADE")
        connection.exec_driver_sql("DROP ROLE secretive")
    admin.dispose()
    rules.write_text(before)
    postgres_server.psql("SELECT pg_reload_conf()")


def shown(url: sa.URL) -> str:
    text = url.render_as_string(hide_password=False)
    assert CORE in text
    return text


def contents(url: sa.URL) -> str:
    """Everything that the database holds, as text."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        found = "".join(str(connection.exec_driver_sql(f'SELECT * FROM "{name}"').all()) for name in names)
    engine.dispose()
    return found


@pytest.mark.slow
def test_a_whole_search(guarded: sa.URL, folder: Path, aes: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    storage = ("--storage", shown(guarded))
    said = [aes("search", "clicks.csv", *SMALL, *storage)]
    said += [
        aes("search", "clicks.csv", *SMALL, *storage, "--json"),
        aes("search", "clicks.csv", *SMALL, *storage, "--lr", "0.5"),  # refused: other settings
        aes("status", *storage),
        aes("status", *storage, "--json"),
        aes("status", *storage, "--name", "nosuch"),
        aes("pareto", *storage, "--json", "--html", "b.html"),
        aes("export", *storage, "--out", "model"),
        aes("worker", *storage, "--device", "cpu", "--threads", "1"),
        aes("storage", "check", *storage),
        aes("storage", "gc", *storage, "--hours", "0"),
        aes("storage", "upgrade", *storage),
    ]
    assert [ended.code for ended in said] == [0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0], said
    assert "***" in said[0].out + said[0].err
    assert (folder / "model/sizes.json").exists()
    for ended in said:
        assert CORE not in ended.out + ended.err
    for path in folder.rglob("*"):
        if path.is_file():
            assert CORE.encode() not in path.read_bytes(), path
    assert CORE not in contents(guarded)


def failing(url: sa.URL) -> dict[str, list[str]]:
    right, wrong = shown(url), shown(url.set(password=f"{PASSWORD}x"))
    away = f"postgresql://u:{ENCODED}@127.0.0.1:1/d"
    return {
        "wrong password": ["status", "--storage", wrong],
        "no such database": ["status", "--storage", shown(url.set(database="nosuch"))],
        "empty database": ["status", "--storage", right],
        "nobody there": ["search", "clicks.csv", *SMALL, "--storage", away],
        "nobody there, check": ["storage", "check", "--storage", away],
        "not encoded": ["status", "--storage", f"postgresql://u:{PASSWORD}@127.0.0.1:1/d"],
        "no number": ["status", "--storage", f"postgresql://u:{ENCODED}@h:port/d"],
        "no such kind": ["status", "--storage", f"nosuch://u:{ENCODED}@h/d"],
        "an option of the URL": ["status", "--storage", f"postgresql://u@127.0.0.1:1/d?password={ENCODED}"],
        "in the wrong place": ["status", right],
        "as the table": ["search", right],
        "as the table, not encoded": ["search", f"postgresql://u:{PASSWORD}@h/d"],
        "as the artifacts": ["search", "clicks.csv", *SMALL, "--artifacts", right],
        "as a number": ["search", "clicks.csv", "--epochs", right],
        "as an option": ["status", f"--{right}"],
        "of MySQL": ["status", "--storage", f"mysql+pymysql://u:{ENCODED}@127.0.0.1:1/d"],
        "of the proxy": ["status", "--storage", f"grpc://u:{ENCODED}@127.0.0.1:1"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["0", "1"])
def test_every_way_to_fail(
    guarded: sa.URL,
    folder: Path,
    aes: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    debug: str,
) -> None:
    monkeypatch.setenv("OPTUNA_AES_DEBUG", debug)
    for case, command in failing(guarded).items():
        ended = aes(*command)
        assert ended.code == 2, (case, ended)
        assert CORE not in ended.out + ended.err + caplog.text, case
        assert debug == "1" or ended.err.count("\n") == 1, (case, ended)


def test_a_failure_in_the_middle(
    guarded: sa.URL, folder: Path, aes: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the database complains of, what is a bug of ours, and the report that is written of it."""
    import tempfile

    from optuna_aes.search import read

    storage = ("--storage", shown(guarded))
    assert aes("search", "clicks.csv", *SMALL, *storage, "--no-run", "--quiet").code == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def broken(*args: object) -> None:
        raise RuntimeError(f"cannot do {shown(guarded)} at all")

    with monkeypatch.context() as patch:
        patch.setattr(read, "_fit_counts", broken)
        ended = aes("status", *storage)
    assert ended.code == 1
    (report,) = tmp_path.glob("optuna-aes-*.txt")
    assert CORE not in ended.err + report.read_text()
    assert ":***@" in report.read_text()
    engine = sa.create_engine(guarded)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_params RENAME TO hidden")
    engine.dispose()
    for command in (["status"], ["pareto"], ["storage", "check"]):
        ended = aes(*command, *storage)
        assert CORE not in ended.out + ended.err
        assert command == ["storage", "check"] or ended.code != 0


def test_in_any_text() -> None:
    for text in ("at sqlite:///a.db and http://h:80/x?y=1", "no colon u@h", "postgresql://u@h:5432/d"):
        assert without_passwords(text) == text
    for url in (
        f"postgresql://u:{ENCODED}@h/d",
        f"postgresql://u:{PASSWORD}@h/d",
        f"x://h/d?sslpassword={ENCODED}&a=1",
    ):
        for text in (url, f"no file {url!r} here", json.dumps({"a": url})):
            assert CORE not in without_passwords(text), text
            assert "***" in without_passwords(text)
    assert CORE not in safe_url(f"postgresql://u:{ENCODED}@h/d")
