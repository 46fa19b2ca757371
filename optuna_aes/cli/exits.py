"""How a command ends: exit codes, one line on stderr, and where the traceback of a bug goes."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from optuna_aes.errors import AesError

DONE, BUG, USER, STOPPED = 0, 1, 2, 130

DEBUG = "OPTUNA_AES_DEBUG"


def report(error: BaseException) -> int:
    """Says on stderr, in one line, what ended the command.

    Args:
        error: What was raised.

    Returns:
        The exit code.
    """
    if debugging():
        print(_traceback(error), end="", file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        _say("stopped: run the same command again to go on")
        return STOPPED
    if isinstance(error, AesError):
        _say(f"error: {_one_line(str(error))}")
        return USER
    # Typer carries a click of its own in new releases and imports it in old ones: known by what it can do.
    if hasattr(error, "format_message"):
        _say(f"error: {_usage(error)}")
        return USER
    from optuna_aes.search.work import interrupted

    if interrupted(error):
        return report(KeyboardInterrupt())
    if known := _known(error):
        _say(f"error: {known}")
        return USER
    _say(_bug(error))
    return BUG


def debugging() -> bool:
    """Whether tracebacks are to be shown."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def _usage(error: BaseException) -> str:
    text = _one_line(error.format_message())  # type: ignore[attr-defined]  # asked for by the caller
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "optuna-aes"
    return f"{text[:1].lower()}{text[1:].rstrip('.')}: see {command} --help"


def _known(error: BaseException) -> str | None:
    """Failures of the machine, which no code of ours can help."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    from optuna_aes.search.work import out_of_memory

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and not isinstance(cause.orig, (TypeError, ValueError)):
        return f"the storage failed: {_one_line(str(cause.orig))}; what finished is kept: run the same command again"
    if out_of_memory(error):
        return "out of memory: give a smaller --batch-size or --dim, a larger --min-count, or --device cpu"
    if hasattr(error, "details") and type(error).__module__.startswith("grpc"):
        told = _one_line(str(error.details()))
        return f"the storage's proxy failed: {told}; what finished is kept: run the same command again"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _bug(error: BaseException) -> str:
    what = f"error: this is a bug in optuna-aes ({type(error).__name__}: {_one_line(str(error))})"
    if debugging():
        return what
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="optuna-aes-", suffix=".txt", encoding="utf-8", delete=False
        ) as file:
            file.write(_traceback(error))
    except OSError:
        return f"{what}: set {DEBUG}=1 to see the traceback"
    return f"{what}: please report it with {file.name}"


def _traceback(error: BaseException) -> str:
    from optuna_aes.storage._messages import without_passwords

    return without_passwords("".join(traceback.format_exception(error)))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    if "@" in text or "=" in text:  # only then, as the import takes a moment
        from optuna_aes.storage._messages import without_passwords

        text = without_passwords(text)
    print(text, file=sys.stderr, flush=True)
