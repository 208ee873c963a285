# SPDX-License-Identifier: MIT
"""Calls as small integers: equal tokens are calls that one compound operation could stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from miner.annotate import Annotated
from miner.events import CALL_NUMBERS, NO_RET, Bools, Events, Ints
from miner.joins import argument_index, fd_index, pick
from miner.order import dense
from tracer import syscalls


class BodyKey(NamedTuple):
    """A call in the body of a loop over entries; means the same in every trace."""

    nr: int
    via: int  # miner.annotate.Via
    xattr: str  # name of the attribute, empty where the call has none
    detail: int = 0  # what else tells calls apart: access mode of an open, command of an ioctl


@dataclass(frozen=True)
class BodyTokens:
    """Per event the index into `keys`, -1: not in the body of a loop over entries."""

    codes: Ints
    keys: list[BodyKey]


def by_class(nr: Ints, *classes: syscalls.SyscallClass) -> Bools:
    """Which of the call numbers belong to one of the classes."""
    return _of_class(classes)[nr]


@cache
def _of_class(classes: tuple[syscalls.SyscallClass, ...]) -> Bools:
    table = np.zeros(CALL_NUMBERS, dtype=bool)
    for number, call in syscalls.by_nr().items():
        table[number] = call.cls in classes
    return table


def xattr_codes(events: Events, rows: Ints) -> Ints:
    """Code of the attribute's name in `events.path2` of each of the events `rows`, -1: none."""
    has_name = argument_index(syscalls.ArgKind.NAME)[events.nr[rows]] >= 0
    return np.where(has_name, events.path2.codes[rows], -1)


def body_tokens(annotated: Annotated) -> BodyTokens:
    """Tokens of all child calls; opens that only go down into a sub-directory are left out."""
    events = annotated.events
    codes = np.full(len(events), -1, dtype=np.int64)
    rows = np.flatnonzero(
        (annotated.via >= 0) & ~annotated.descends & (events.ret != NO_RET) & events.own
    )
    xattr = xattr_codes(events, rows) + 1
    packed = (xattr << 16) | (events.nr[rows] << 3) | annotated.via[rows]
    codes[rows], first = dense(packed)
    unique = packed[first]
    names = ["", *events.path2.array.to_pylist()]
    keys = [BodyKey(int(u >> 3) & 0x1FFF, int(u) & 7, names[int(u) >> 16]) for u in unique]
    return BodyTokens(codes, keys)


def outcome(events: Events, rows: Ints) -> Ints:
    """Class of each outcome: 0 success, 1 zero where a count was possible, else errno + 1."""
    kinds = syscalls.ArgKind
    counts = argument_index(kinds.BUF_OUT, kinds.IOV_OUT, kinds.DIRENTS_OUT) >= 0
    ret = events.ret[rows]
    failed = (ret < 0) & (ret >= -4095)
    empty = (ret == 0) & counts[events.nr[rows]]
    return np.where(failed, 1 - ret, np.where(empty, 1, 0))


def flag_values(events: Events, rows: Ints) -> Ints:
    """The flags argument of each call (32 bits), 0 where it has none."""
    kinds = syscalls.ArgKind
    flags = argument_index(kinds.AT_FLAGS, kinds.OPEN_FLAGS, kinds.FLAGS, kinds.CMD)
    return pick(events, rows, flags)


def stream_tokens(annotated: Annotated, rows: Ints) -> Ints:
    """For each of the events `rows` a token of (call, provenance, flags, outcome), from 0.

    Provenance of a descriptor: the call that made it (0: none, 1: inherited). Provenance of a path:
    how it names an entry of a directory that was read, or that it does not.
    """
    events, root = annotated.events, annotated.root[rows]
    maker = np.where(root >= 0, events.nr[np.maximum(root, 0)] + 2, 1)
    maker = np.where(fd_index(events.nr[rows]) >= 0, maker, 0)
    flags, _ = dense(flag_values(events, rows))
    token, _ = dense(events.nr[rows], maker, annotated.via[rows], flags, outcome(events, rows))
    return token
