"""How messages name a database and tell what it complains of: on one line, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from optuna_aes.errors import StorageError

# A libpq URL may carry passwords among its options as well.
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)


# A URL wherever it stands in a text. Up to the last @ of the word: who writes a password in may not have encoded it.
# One slash is left where it was taken for a path.
_PASSWORD = re.compile(r"(:/+[^\s:/@]*):\S*@")
_OPTION = re.compile(rf"([?&][^=&\s]*(?:{_SECRET_OPTION.pattern})[^=&\s]*=)[^&\s'\"]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """A text with ``***`` for the password in every URL, as where a user gives a URL in the wrong place."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def safe_url(url: str | URL) -> str:
    """Write a storage's URL for a log, an error or a report: the same, with ``***`` for every password.

    Args:
        url: A database URL. Of one that cannot be parsed only the part before ``://`` is kept, because the rest may
            hold a password in any place.
    """
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        head, found, _ = str(url).partition("://")
        if found:
            return f"{head}://..."
        return "..." if "@" in head else head
    hidden = {key: "***" for key in parsed.query if _SECRET_OPTION.search(key)}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def one_line(error: BaseException, url: URL | None = None) -> str:
    """The driver's own words on one line, without SQL, parameters, or what is secret in the URL."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
    for secret in _secrets(url) if url is not None else ():
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def explained(action: str, engine: Engine) -> Iterator[None]:
    """Turn the database's errors, which quote SQL over many lines, into ours.

    Args:
        action: What cannot be done then.
        engine: The database.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(
            f"cannot {action} in {safe_url(engine.url)}: {one_line(error, engine.url)}; nothing finished is lost, start "
            "again when the database can be used"
        ) from None


def _secrets(url: URL) -> list[str]:
    options = [str(value) for key, value in url.query.items() if _SECRET_OPTION.search(key)]
    return [secret for secret in (str(url.password or ""), *options) if secret]
