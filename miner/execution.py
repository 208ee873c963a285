# SPDX-License-Identifier: MIT
"""Who mines the pieces: this process, some of its own, a Dask cluster. The result is the same."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from types import ModuleType
from typing import Any

import pyarrow as pa

from miner.partial import Partial, mine_piece
from miner.pieces import Task
from tracer.interrupt import uninterrupted

_POOL_ROWS = 1 << 20  # fewer are mined before other processes have started
CONNECT_S = 10  # to reach a scheduler
_RETRIES = 5  # of a piece whose Dask worker died

Executor = Callable[[Iterable[Task]], Iterator[Partial]]
"""Mines tasks; results in their order, each as soon as it is there."""


class ExecutionError(Exception):
    """The processes or the cluster that should mine failed; the message says what to do."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cycles of objects that nobody uses: mining makes none, and looking through the
    many objects that it does make took 6 % of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def mine_task(task: Task) -> Partial:
    """One task, wherever it runs."""
    with _uncollected():
        return mine_piece(*task)


def _mine_tasks(tasks: Sequence[Task]) -> list[Partial]:
    return [mine_task(task) for task in tasks]


def shares(tasks: Iterable[Task], rows: int, workers: int) -> Iterator[list[Task]]:
    """Parts of tasks of `rows` events for processes to take one after the other: long ones first,
    as a process has at hand what it read of the piece before, and short ones to end together."""
    share: list[Task] = []
    size = 0
    for task in tasks:
        share.append(task)
        size += task[1].stop - task[1].start
        if 2 * workers * size >= rows:
            yield share
            rows -= size
            share, size = [], 0
    if share:
        yield share


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["miner.partial"])
    return context


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT_BYTES = 1 << 30


def _begin() -> None:
    """Ctrl-C ends a mining process without a word: the one that started it has something to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _keep_memory()


def _keep_memory() -> None:
    """Let a mining process use the memory of one column for the next one: the kernel need not clear
    pages for it again, which took 6 % of its time."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def _without_script() -> Iterator[None]:
    """Hide the script that runs. A new process would import it, which none of ours needs, and where
    its work is not below `if __name__ == "__main__"` begin that work once more."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _ended_with_us() -> Iterator[None]:
    """End the processes that mine when this one gives up: a pool waits for what they do."""
    others = set(multiprocessing.active_children())  # a Dask cluster's in this process, say
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        raise


def _pool(workers: int, rows: int, tasks: Iterable[Task]) -> Iterator[Partial]:
    try:
        with ProcessPoolExecutor(workers, _context(), _begin) as pool, _ended_with_us():
            waiting = []
            for share in shares(tasks, rows, workers):
                # Processes start when there is work for them; none may be there unknown to us.
                with uninterrupted(), _without_script():
                    waiting.append(pool.submit(_mine_tasks, share))
            # What clusters need takes a second to import: better now than at the end.
            import_module("sklearn.cluster")
            while waiting:
                yield from waiting.pop(0).result()
    except BrokenProcessPool:
        raise ExecutionError(
            "a mining process was killed, for lack of memory perhaps: try --workers 1"
        ) from None


@contextmanager
def local(rows: int, workers: int | None = None) -> Iterator[Executor]:
    """Mine traces of `rows` events on this machine with up to `workers` processes; by default one
    per CPU."""
    limit = workers or len(os.sched_getaffinity(0))
    pooled = limit > 1 and rows >= _POOL_ROWS
    if pooled:
        # It imports what the processes need while the traces are opened. Until a process mines
        # (`_begin`) Ctrl-C is not for it: while it imports it would print where it was.
        _context()
        resource_tracker.ensure_running()  # which would let Ctrl-C through again
        with uninterrupted():
            forkserver.ensure_running()

    def run(tasks: Iterable[Task]) -> Iterator[Partial]:
        return _pool(limit, rows, tasks) if pooled else map(mine_task, tasks)

    with _uncollected():
        yield run


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Mine on the Dask cluster whose scheduler is at `address`.

    Its workers need this package, and the traces at the same paths (or URLs). Pieces of a worker
    that dies are mined by another one.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ExecutionError("no Dask here: pip install 'cosy[dask]'") from None
    try:
        client = Client(address, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise ExecutionError(f"no Dask scheduler at {address}: {error}") from None

    def run(tasks: Iterable[Task]) -> Iterator[Partial]:
        waiting = client.map(mine_task, list(tasks), retries=_RETRIES, pure=False)
        while waiting:
            yield waiting.pop(0).result()

    with client:
        yield run
