"""``optuna-aes storage``: upgrade, check and clean up the database of searches."""

from __future__ import annotations

from typing import Annotated

import typer

from optuna_aes.cli.exits import DONE, USER
from optuna_aes.cli.options import STORAGE

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
    from optuna_aes.storage import open_storage

    troubles = 0
    for finding in look(open_storage(storage, must_exist=True)):
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
    from optuna_aes.storage import open_storage

    for found in clear(open_storage(storage, must_exist=True), hours=hours, dry=dry_run):
        rest = [f"{found.kept:,} in use"]
        rest += [f"{found.young:,} too young"] if found.young else []
        rest += [f"{found.foreign:,} not of this database's studies"] if found.foreign else []
        done = "would be removed" if dry_run else "removed"
        print(
            f"{found.place}: {found.removed:,} artifacts {done} ({_size(found.bytes)}); {', '.join(rest)}", flush=True
        )


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
