# SPDX-License-Identifier: MIT
"""Who mines the pieces: this process, some of its own, a Dask cluster. The result is the same."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from miner.partial import Partial, mine_piece
from miner.pieces import Piece, Trace

_POOL_ROWS = 1 << 20  # fewer are mined before other processes have started
CONNECT_S = 10  # to reach a scheduler
_NEIGHBOURS = 3  # pieces that stay together even if that leaves less to share out
_RETRIES = 5  # of a piece whose Dask worker died

Task = tuple[Trace, Piece, Piece | None]
Executor = Callable[[Sequence[Task]], list[Partial]]
"""Mines tasks; results in their order."""


class ExecutionError(Exception):
    """The processes or the cluster that should mine failed; the message says what to do."""


def mine_task(task: Task) -> Partial:
    """One task, wherever it runs."""
    return mine_piece(*task)


def _pool(workers: int, tasks: Sequence[Task]) -> list[Partial]:
    # Neighbours go to one process, which then has the piece before at hand.
    chunk = max(-(-len(tasks) // (workers * 4)), min(-(-len(tasks) // workers), _NEIGHBOURS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["miner.partial"])
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(pool.map(mine_task, tasks, chunksize=chunk))
    except BrokenProcessPool:
        raise ExecutionError(
            "a mining process was killed, for lack of memory perhaps: try --workers 1"
        ) from None


@contextmanager
def local(workers: int | None = None) -> Iterator[Executor]:
    """Mine on this machine with up to `workers` processes; by default one per CPU."""
    limit = workers or len(os.sched_getaffinity(0))

    def run(tasks: Sequence[Task]) -> list[Partial]:
        used = min(limit, len(tasks))
        if used < 2 or sum(piece.stop - piece.start for _, piece, _ in tasks) < _POOL_ROWS:
            return [mine_task(task) for task in tasks]
        return _pool(used, tasks)

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

    def run(tasks: Sequence[Task]) -> list[Partial]:
        futures = client.map(mine_task, list(tasks), retries=_RETRIES, pure=False)
        found: list[Partial] = client.gather(futures)  # type: ignore[no-untyped-call]
        return found

    with client:
        yield run
