"""Several workers on this machine, each a process of its own; this one starts them, tells of their progress, and ends them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from multiprocessing.connection import Listener as Socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import torch
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from optuna_aes.errors import AesError, InputError
from optuna_aes.search.progress import Listener, Silent
from optuna_aes.search.work import WAITING, StageError

if TYPE_CHECKING:
    from optuna_aes.search.search import Search

MOST_RESTARTS = 10  # of one worker that dies
GRACE = 10.0  # seconds that workers have to give their trials back, before they are killed
STAGES = ("fit", "search", "retrain")
EVERY = 0.2  # seconds between two steps that a worker tells of


@dataclass(frozen=True)
class Post:
    """What a worker process is started with; picklable."""

    name: str
    storage: str
    data: str
    device: str
    threads: int
    poll: float
    stages: tuple[str, ...]
    address: Any
    key: bytes
    parent: int


def run_local(search: Search, workers: int, stages: Sequence[str]) -> None:
    """Runs a search by so many processes on this machine, to its end.

    They share the memory-mapped dataset, the threads of the CPU and the GPUs. One that dies is started again. On Ctrl-C all
    give their trials back and end; they also do when this process dies.

    Args:
        search: The search; its dataset lies in a folder.
        workers: How many.
        stages: Which stages.

    Raises:
        InputError: If the dataset or the database is in memory.
        AesError: What made the workers end; the first one's.
    """
    context, url = search.context, search.record.storage.url
    folder, listener = context.task.dataset.folder, context.listener
    if folder is None:
        raise InputError(f"workers={workers} need the dataset in a folder: write it with dataset.save(FOLDER) first")
    if url.startswith("sqlite") and (url.endswith("://") or ":memory:" in url or "mode=memory" in url):
        raise InputError(f"workers={workers} cannot share a database in memory: give a file or a server")
    threads = max(1, (context.task.threads or joblib.cpu_count()) // workers)
    with _hearing(listener) as (address, key):
        posts = [
            Post(
                name=search.record.name,
                storage=url,
                data=str(Path(folder).resolve()),
                device=_device(context.task.device, number),
                threads=threads,
                poll=context.poll,
                stages=tuple(stages),
                address=address,
                key=key,
                parent=os.getpid(),
            )
            for number in range(workers)
        ]
        _run_all(posts, listener)


def _device(device: str, number: int) -> str:
    """GPUs in turn, where it is for us to choose."""
    if device != "auto" or not torch.cuda.is_available():
        return device
    return f"cuda:{number % torch.cuda.device_count()}"


def _run_all(posts: Sequence[Post], listener: Listener) -> None:
    seats = [_Seat(post) for post in posts]
    try:
        for seat in seats:
            seat.start()
        while busy := [seat for seat in seats if not seat.future.done()]:
            for seat in seats:
                if seat.died() and seat.restarts < MOST_RESTARTS:
                    listener.note("a worker died: another one takes its place")
                    seat.restarts += 1
                    seat.start()
            time.sleep(0.1 if busy else 0)
    except BaseException:
        _stop(seats)
        raise
    errors = [error for seat in seats if (error := seat.future.exception()) is not None]
    for seat in seats:
        seat.executor.shutdown()
    # Of several the one that tells most: a StageError tells of another worker's.
    for error in sorted(errors, key=lambda error: (isinstance(error, StageError), not isinstance(error, AesError))):
        raise error


class _Seat:
    """One worker: an executor of its own, as one that dies takes its whole executor with it."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.restarts = 0

    def start(self) -> None:
        threads = str(self.post.threads)
        self.executor = ProcessPoolExecutor(max_workers=1, env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
        self.future: Future[None] = self.executor.submit(_work, self.post)

    def died(self) -> bool:
        return self.future.done() and isinstance(self.future.exception(), TerminatedWorkerError)

    @property
    def pids(self) -> list[int]:
        return list(self.executor._processes or ())


def _stop(seats: Sequence[_Seat]) -> None:
    """Asks the workers to end, as Ctrl-C does, and kills those that do not."""
    started = [seat for seat in seats if hasattr(seat, "future")]
    for seat in started:
        seat.future.cancel()
        for pid in seat.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(not seat.future.done() for seat in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    for seat in started:
        # Waits for the executor's threads: one that Python's end cuts off may leave a semaphore that is warned of.
        seat.executor.shutdown(kill_workers=True)


# In the worker


def _work(post: Post) -> None:
    import optuna

    from optuna_aes.data import Dataset
    from optuna_aes.search.search import Search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with, args=(post.parent,), daemon=True).start()
    search = Search.load(
        post.name,
        post.storage,
        dataset=Dataset.open(post.data),
        device=post.device,
        threads=post.threads,
        poll=post.poll,
        listener=_Teller(Client(post.address, authkey=post.key)),
    )
    search.run(post.stages)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Ends this process when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


class _Teller(Silent):
    """Passes on what it hears, to the process that started this one."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last = 0.0

    def _tell(self, call: str, *values: Any) -> None:
        with suppress(OSError):  # the parent is gone: this process will be, too
            self.connection.send((call, values))

    def stage(self, stage: str, finished: int, requested: int) -> None:
        self._tell("stage", stage, finished, requested)

    def note(self, text: str) -> None:
        if not text.startswith(WAITING):  # each other's, which is no news
            self._tell("note", text)

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        if time.monotonic() - self.last > EVERY:
            self.last = time.monotonic()
            self._tell("step", done, total, rows_per_second)

    def epoch(self, epoch: Any, total: int) -> None:
        self._tell("epoch", epoch, total)

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        self._tell("scored", finished, requested, best_auc, front)

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        self._tell("retrained", finished, requested, auc_valid, params)


# In the process that started them


@contextmanager
def _hearing(listener: Listener) -> Iterator[tuple[Any, bytes]]:
    """Within the block, what workers tell reaches the listener."""
    key, lock, merge = os.urandom(16), threading.Lock(), _Merge(listener)
    socket = Socket(authkey=key)

    def accept() -> None:
        while True:
            try:
                connection = socket.accept()
            except Exception:  # closed; or a worker that died while it said hello
                if closed:
                    return
                continue
            threading.Thread(target=hear, args=(connection,), daemon=True).start()

    def hear(connection: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                call, values = connection.recv()
                with lock:
                    merge.tell(call, values)

    closed = False
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield socket.address, key
    finally:
        closed = True
        socket.close()


class _Merge:
    """Makes one story of several workers': stages go on and never back, and counts do not fall."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.at = -1
        self.count = -1

    def tell(self, call: str, values: Sequence[Any]) -> None:
        """Passes a call on, if it is news."""
        told: Callable[..., None] = getattr(self.listener, call)
        if call == "stage":
            stage = STAGES.index(values[0])
            # A fit that is resumed begins again, and says after how many epochs.
            if stage < self.at or (stage == self.at and stage > 0):
                return
            self.at, self.count = stage, -1
        elif call in ("scored", "retrained"):
            if values[0] <= self.count or self.at != ("scored", "retrained").index(call) + 1:
                return
            self.count = values[0]
        elif call in ("epoch", "step") and self.at != 0:
            return
        told(*values)
