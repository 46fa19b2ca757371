"""``optuna-aes dashboard``: Optuna's own dashboard, with the front of a search as a figure in it."""

from __future__ import annotations

import importlib
import importlib.util

from optuna_aes.errors import InputError
from optuna_aes.search.read import open_record, result
from optuna_aes.storage import open_storage, safe_url

FIGURE = "optuna-aes-front"


def run_dashboard(storage: str, *, name: str | None, host: str, port: int) -> None:
    """Serves the dashboard until Ctrl-C.

    Args:
        storage: URL of the database.
        name: Search whose front is published in its study, or None.
        host: Where to listen.
        port: Port to listen at.

    Raises:
        InputError: If the dashboard is not installed, or the port is taken.
        StorageError: If the storage cannot be opened, or holds no such search.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise InputError('the dashboard is not installed: pip install "optuna-aes[dashboard]"')
    opened = open_storage(storage, must_exist=True)
    optuna_dashboard = importlib.import_module("optuna_dashboard")  # by name: it is optional, and has no types

    if name is not None:
        record = open_record(name, opened)
        found = result(record)
        if found.points:
            from optuna_aes.visualization import plot_pareto

            # The dashboard does not know constraints of trials; this figure does.
            optuna_dashboard.save_plotly_graph_object(record.studies.search, plot_pareto(found), graph_object_id=FIGURE)
    print(f"serving {safe_url(storage)} at http://{host}:{port}/ until Ctrl-C", flush=True)
    try:
        optuna_dashboard.run_server(opened, host=host, port=port)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {host}:{port} ({error}): give another --port") from None
