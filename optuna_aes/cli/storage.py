"""``optuna-aes storage``: upgrade, check and clean up the database of searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from optuna_aes.cli.exits import DONE, USER
from optuna_aes.cli.options import STORAGE

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

app = typer.Typer(
    add_completion=False, help="Upgrade, check or clean up the database of searches.", no_args_is_help=True
)

Storage = Annotated[str, typer.Option(metavar="URL", help="The database.")]


@app.command(help="Bring a database of an older Optuna to the schema of this one. Make a copy of it first.")
def upgrade(storage: Storage = STORAGE) -> None:
    """See the command's help."""
    from optuna_aes.storage.engine import upgrade_schema

    before, now = upgrade_schema(storage)
    print(f"schema {now}: nothing to do" if before == now else f"schema {before} is now {now}")


@app.command(
    help="Look for damage: schema, numbers, trials that nobody works on, checksums of artifacts. Exits 2 if any."
)
def check(storage: Storage = STORAGE) -> None:
    """See the command's help."""
    _quiet()
    from optuna_aes.search.upkeep import check as look

    troubles = 0
    for finding in look(_database(storage)):
        troubles += finding.trouble is not None
        print(
            f"ok   {finding.what}" if finding.trouble is None else f"BAD  {finding.what}: {finding.trouble}", flush=True
        )
    raise typer.Exit(USER if troubles else DONE)


@app.command(help="Remove artifacts that no study names: what killed workers and deleted studies left.")
def gc(
    storage: Storage = STORAGE,
    hours: Annotated[float, typer.Option(min=0, help="Leave what is younger: it may be named in a moment.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be.")] = False,
) -> None:
    """See the command's help."""
    _quiet()
    from optuna_aes.search.upkeep import clear

    for found in clear(_database(storage), hours=hours, dry=dry_run):
        rest = [f"{found.kept:,} in use"]
        rest += [f"{found.young:,} too young"] if found.young else []
        rest += [f"{found.foreign:,} not of this database's studies"] if found.foreign else []
        done = "would be removed" if dry_run else "removed"
        print(
            f"{found.place}: {found.removed:,} artifacts {done} ({_size(found.bytes)}); {', '.join(rest)}", flush=True
        )


@app.command(help="Serve a database over gRPC, for workers that cannot reach it: they take --storage grpc://HOST:PORT.")
def serve(
    storage: Storage = STORAGE,
    host: Annotated[
        str, typer.Option(help="Where to listen; there is no password: not where strangers are.")
    ] = "localhost",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 13000,
) -> None:
    """See the command's help."""
    _quiet()
    database = _database(storage)
    from optuna.storages import get_storage, run_grpc_proxy_server

    from optuna_aes.errors import InputError
    from optuna_aes.storage import safe_url

    print(f"serving {safe_url(storage)} at grpc://{host}:{port} until Ctrl-C", flush=True)
    try:
        run_grpc_proxy_server(get_storage(database), host=host, port=port)
    except ImportError:
        raise InputError('the proxy needs grpcio: pip install "optuna-aes[grpc]"') from None
    except RuntimeError as error:
        raise InputError(f"cannot listen at {host}:{port} ({error}): give another --port") from None


def _database(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    from optuna_aes.errors import InputError
    from optuna_aes.storage import open_storage, safe_url

    opened = open_storage(url, must_exist=True)
    if not isinstance(opened, RDBStorage):
        raise InputError(f"{safe_url(url)} is a proxy: give the database that it serves")
    return opened


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _quiet() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
