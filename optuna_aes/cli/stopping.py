"""Ctrl-C and SIGTERM both end a command by KeyboardInterrupt, and neither is ever lost."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN = 0.05  # seconds


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block a scheduler's SIGTERM stops the main thread as Ctrl-C does.

    Python calls finalisers and weak references' callbacks between any two instructions, and drops what is raised in them: a
    Ctrl-C that comes just then is sent once more.
    """
    hook = sys.unraisablehook

    def unraisable(what: UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            # From another thread, and a little later: an interrupt within this hook would be dropped as well.
            threading.Timer(AGAIN, _interrupt).start()
        else:
            hook(what)

    before = signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill"):  # also wakes a thread that sleeps or waits
        # A shell starts what it puts in the background with SIGINT ignored.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if ignored else signal.SIGINT)
    else:
        _thread.interrupt_main()


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt
