# SPDX-License-Identifier: MIT
"""Loops over open files: all calls on one descriptor, from the open to the close, and copies.

Found by data flow: what a descriptor means is known (it was opened by that call), so other calls
between, threads and noise do not break an iteration apart.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from miner.annotate import Annotated, Via
from miner.bodies import ARGV, ENTRY, Body, path_identity
from miner.events import NO_RET, Bools, Events, Ints
from miner.joins import argument_index, fd_index, is_one, last_before, pick
from miner.motifs import Over
from miner.order import dense, order, starts
from miner.tokens import BodyKey, by_class, xattr_codes
from tracer import syscalls

_K = syscalls.ArgKind
OPENS = ("open", "openat", "openat2", "creat")
# Access mode, O_CREAT, O_TRUNC, O_DIRECTORY, O_PATH.
_ACCESS = 0o3 | 0o100 | 0o1000 | 0o200000 | 0o10000000
_O_CREAT = 0o100
_NAMES = ("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat")
_READS = ("read", "pread64", "recvfrom")
_WRITES = ("write", "pwrite64", "sendto")


@cache
def _detail_index() -> tuple[Ints, Ints]:
    """By call number: position of the argument that `_details` are of (-1: none), and its bits."""
    flags, command = argument_index(_K.OPEN_FLAGS), argument_index(_K.CMD)
    return np.where(flags >= 0, flags, command), np.where(flags >= 0, _ACCESS, 0xFFFFFFFF)


def _details(events: Events, rows: Ints, nr: Ints) -> Ints:
    """What tells calls of one number apart: how an open opens, which command an ioctl gives."""
    index, bits = _detail_index()
    return pick(events, rows, index) & bits[nr]


def key_codes(events: Events, rows: Ints, via: Ints) -> tuple[Ints, list[BodyKey]]:
    """Body calls of the events `rows`: codes, and what each code means."""
    nr = events.nr[rows]
    detail = _details(events, rows, nr)
    # The details as small numbers: what is left to number then has few bits.
    with_detail = np.flatnonzero(detail)
    kind = np.zeros(len(rows), dtype=np.int64)
    kind[with_detail] = dense(detail[with_detail])[0] + 1
    xattr = xattr_codes(events, rows)
    with_name = np.flatnonzero(xattr >= 0)  # such calls have no details
    kind[with_name] = xattr[with_name] + 1
    codes, first = dense(kind, nr, via)
    texts, named = events.path2.texts(rows[first]), (xattr[first] >= 0).tolist()
    names = [text if is_name else "" for text, is_name in zip(texts, named, strict=True)]
    columns = (nr[first].tolist(), via[first].tolist(), names, detail[first].tolist())
    return codes, [BodyKey(*key) for key in zip(*columns, strict=True)]


def word_of_command(annotated: Annotated, rows: Ints) -> Bools:
    """Which of the events name a path that is a word of their program's command line."""
    word_of, pairs = annotated.command_words
    word = word_of[annotated.events.path.codes[rows]]
    hits = np.flatnonzero((word >= 0) & (annotated.image[rows] >= 0))
    out = np.zeros(len(rows), dtype=bool)
    out[hits] = np.isin((annotated.image[rows[hits]] << 32) | word[hits], pairs)
    return out


def runs(*keys: Ints) -> Ints:
    """Number of the run of equal keys that each element is in."""
    return np.cumsum(starts(*keys)) - 1


def files(annotated: Annotated) -> Body | None:
    """Iterations: the calls on each file that was opened by its path, what was asked about the path
    right before, and what becomes of a file that was made: whether it gets another name, or is
    removed."""
    events = annotated.events
    root = annotated.root
    on_file = (root >= 0) & (fd_index(events.nr) >= 0) & events.own
    on_file &= is_one(events.nr, *OPENS)[root]
    on_file &= (events.ret != NO_RET) & ~events.path.nonempty
    is_open = np.zeros(len(events), dtype=bool)
    is_open[root[on_file]] = True
    named, maker = _named_again(annotated)
    is_open[maker] = True
    is_open &= events.own
    asked, answered = _asked_before(annotated, is_open)
    named, maker = np.append(named, asked), np.append(maker, answered)
    rows = np.flatnonzero(on_file | is_open)
    if not len(rows):
        return None
    opener = np.append(np.where(is_open[rows], rows, root[rows]), maker)
    by_path = np.append(is_open[rows], np.ones(len(named), dtype=bool))
    # The others are few: they are put between the rows, which are sorted.
    late = order(named)
    place = np.searchsorted(rows, named[late], side="right")
    by_time = np.insert(np.arange(len(rows)), place, len(rows) + late)
    rows = np.append(rows, named)
    sort = by_time[order(opener[by_time])]
    rows, opener, by_path = rows[sort], opener[sort], by_path[sort]
    codes, keys = key_codes(events, rows, np.where(by_path, int(Via.OTHER), int(Via.RESULT)))
    first = starts(opener)
    begin = opener[first]
    source = np.zeros(len(begin), dtype=np.int64)
    source[word_of_command(annotated, begin)] = ARGV
    source[annotated.via[begin] >= 0] = ENTRY
    return Body(
        over=Over.FILES,
        keys=keys,
        rows=rows,
        codes=codes,
        iteration=np.cumsum(first) - 1,
        instance=events.thread[begin],
        source=source,
        path=begin,
        whole=_read_whole(events, rows, first, by_path),
    )


def _named_again(annotated: Annotated) -> tuple[Ints, Ints]:
    """Calls that rename, link or remove a file that the process made, and the opens that made it.

    Of files that were made several times the last one counts.
    """
    events = annotated.events
    named = np.flatnonzero(is_one(events.nr, *_NAMES) & (events.ret == 0) & events.own)
    opens = np.flatnonzero(is_one(events.nr, *OPENS) & (events.ret >= 0) & events.own)
    flags = pick(events, opens, argument_index(_K.OPEN_FLAGS))
    opens = opens[(flags & _O_CREAT != 0) | is_one(events.nr[opens], "creat")]
    path, _ = dense(path_identity(annotated, np.append(opens, named)))
    key = (np.append(events.pid[opens], events.pid[named]) << 32) | path
    time = events.t_ns
    found = last_before(key[: len(opens)], time[opens], key[len(opens) :], time[named])
    known = found >= 0
    return named[known], opens[found[known]]


def _asked_before(annotated: Annotated, is_open: Bools) -> tuple[Ints, Ints]:
    """Calls that ask about a path, and the open of it that its thread names a path in next.

    Those about entries of directories that were read belong to the loops over them.
    """
    events = annotated.events
    asks = by_class(events.nr, syscalls.SyscallClass.PURE) & (events.ret >= 0)
    asks &= (argument_index(_K.PATH)[events.nr] >= 0) & (annotated.via < 0) & events.own
    rows = np.flatnonzero(events.path.nonempty & (asks | is_open))
    rows = rows[order(events.thread[rows])]
    before, after = rows[:-1], rows[1:]
    at = asks[before] & is_open[after] & (events.thread[before] == events.thread[after])
    before, after = before[at], after[at]
    same = path_identity(annotated, before) == path_identity(annotated, after)
    return before[same], after[same]


def _read_whole(events: Events, rows: Ints, first: Bools, by_path: Bools) -> Bools:
    """Which files were read to their end: a read returned 0, or as much was read as fstat said."""
    begin = np.flatnonzero(first)
    reads = is_one(events.nr[rows], "read", "pread64", "readv", "preadv", "preadv2")
    moved = np.where(reads & (events.ret[rows] > 0), events.ret[rows], 0)
    total = np.add.reduceat(moved, begin)
    ended = np.logical_or.reduceat(reads & (events.ret[rows] == 0), begin)
    size = np.maximum.reduceat(np.where(by_path, -1, events.st_size[rows]), begin)
    return ended | ((size > 0) & (total >= size))


def copies(annotated: Annotated) -> Body | None:
    """Iterations: a read, and the write of the same buffer, unchanged in length, to another object.

    Nothing is known of the bytes themselves: a program that changes them in place and writes as
    many looks the same.
    """
    events = annotated.events
    moved = is_one(events.nr, *_READS, *_WRITES) & (events.ret > 0) & events.own
    rows = np.flatnonzero(moved & (events.object >= 0))
    buffer, _ = dense(events.args[:, 1][rows].view(np.int64))
    thread = events.thread[rows]
    sort = order(thread, buffer)
    rows, buffer, thread = rows[sort], buffer[sort], thread[sort]
    is_read = is_one(events.nr[rows], *_READS)
    pair = is_read[:-1] & ~is_read[1:] & (buffer[1:] == buffer[:-1]) & (thread[1:] == thread[:-1])
    at = np.flatnonzero(pair)
    source, target = rows[at], rows[at + 1]
    copied = events.args[:, 2][target].astype(np.int64) == events.ret[source]
    copied &= events.object[target] != events.object[source]
    source, target = source[copied], target[copied]
    if not len(source):
        return None
    by_instance = order(events.object[source], events.object[target])
    source, target = source[by_instance], target[by_instance]
    both = np.stack([source, target], axis=1).ravel()
    codes, keys = key_codes(events, both, np.full(len(both), int(Via.FILE)))
    return Body(
        over=Over.UNTIL_EOF,
        keys=keys,
        rows=both,
        codes=codes,
        iteration=np.repeat(np.arange(len(source)), 2),
        instance=runs(events.object[source], events.object[target]),
    )
