# SPDX-License-Identifier: MIT
"""Loops of servers: what a thread does for each request that it reads from a connection."""

from __future__ import annotations

import numpy as np

from miner.annotate import Annotated, Via
from miner.bodies import Body
from miner.events import NO_RET, Bools, Ints
from miner.joins import fd_index, is_one
from miner.motifs import Over
from miner.order import dense, order, starts
from miner.sessions import key_codes, runs

_RECEIVES = ("read", "readv", "recvfrom", "recvmsg")
_SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile", "splice")
_WAITS = (
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"),
    *("accept", "accept4", "futex", "wait4", "nanosleep", "clock_nanosleep"),
)


def _begins(annotated: Annotated) -> Bools:
    """Reads from an accepted connection that follow a write to it, or nothing: a request begins."""
    events = annotated.events
    out = np.zeros(len(events), dtype=bool)
    accepted = is_one(events.nr, "accept", "accept4")
    if not accepted.any():
        return out
    rows = np.flatnonzero(is_one(events.nr, *_RECEIVES, *_SENDS) & events.own)
    root = annotated.root[rows]
    rows = rows[(root >= 0) & accepted[root]]
    ret = events.ret[rows]
    receives = is_one(events.nr[rows], *_RECEIVES) & (ret > 0)
    moves = receives | (is_one(events.nr[rows], *_SENDS) & (ret >= 0))
    rows, receives = rows[moves], receives[moves]
    by_connection = order(events.object[rows])
    rows, receives = rows[by_connection], receives[by_connection]
    first = starts(events.object[rows])
    after = np.append(True, ~receives[:-1]) | first
    out[rows[receives & after]] = True
    return out


def _via(annotated: Annotated, rows: Ints, iteration: Ints, connection: Ints) -> Ints:
    """FILE: on the connection; RESULT: on a descriptor that the same request opened."""
    events, root = annotated.events, annotated.root[rows]
    iteration_of = np.full(len(events), -1, dtype=np.int64)
    iteration_of[rows] = iteration
    has_fd = fd_index(events.nr[rows]) >= 0
    opened_here = has_fd & (root >= 0) & (iteration_of[root] == iteration)
    on_connection = has_fd & (events.object[rows] == connection[iteration])
    return np.where(
        on_connection, int(Via.FILE), np.where(opened_here, int(Via.RESULT), int(Via.OTHER))
    )


def requests(annotated: Annotated) -> Body | None:
    """Iterations: the calls of a thread from the first read of a request to the next wait."""
    events = annotated.events
    begins = _begins(annotated)
    if not begins.any():
        return None
    serving = np.bincount(events.thread[begins], minlength=int(events.thread.max()) + 1) > 0
    rows = np.flatnonzero(serving[events.thread] & (events.ret != NO_RET) & events.own)
    rows = rows[order(events.thread[rows])]
    waits = is_one(events.nr[rows], *_WAITS)
    segment = np.cumsum(starts(events.thread[rows]) | begins[rows] | waits) - 1
    serves = np.zeros(int(segment[-1]) + 1, dtype=bool)
    serves[segment[begins[rows]]] = True
    rows, segment = rows[serves[segment]], segment[serves[segment]]
    # By connection, then by time.
    iteration, first = dense(segment)
    connection = events.object[rows[first]]
    by_connection = order(connection)
    rank = np.empty(len(first), dtype=np.int64)
    rank[by_connection] = np.arange(len(first))
    sort = order(rank[iteration])
    rows, iteration = rows[sort], rank[iteration][sort]
    connection = connection[by_connection]
    codes, keys = key_codes(events, rows, _via(annotated, rows, iteration, connection))
    return Body(
        over=Over.REQUESTS,
        keys=keys,
        rows=rows,
        codes=codes,
        iteration=iteration,
        instance=runs(connection),
    )
