# SPDX-License-Identifier: MIT
"""Makes records (stream.py) of the plain lines of strace that strace_blocks.py found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer import dirents, kept
from tracer.events import DONE, EVENT_WORDS, Ints, Mask, Rows, Words
from tracer.strace_blocks import N_ARGS, Lines
from tracer.strace_words import entries, number, output, unescape
from tracer.stream import FIXED, PAD
from tracer.syscalls import ArgKind, Syscall

_MAX_FD = 1 << 20
_NESTED = np.frombuffer(b'"{[', np.uint8)
_QUOTE = ord('"')


class _Calls:
    """What is wanted of each call, as arrays by its number; the last row is for unknown ones."""

    def __init__(self, calls: Mapping[str, Syscall]) -> None:
        self.nr = {name.encode(): call.nr for name, call in calls.items()}
        size = max(self.nr.values()) + 2
        self.path, self.path2, self.out = (np.full(size, -1, np.int64) for _ in range(3))
        self.out_kind: dict[int, ArgKind | None] = {}
        for nr, what in kept.by_call().items():
            self.out_kind[nr] = what.out_kind
            pairs = ((self.path, what.path), (self.path2, what.path2), (self.out, what.out))
            for column, at in pairs:
                column[nr] = -1 if at is None or at >= N_ARGS else at
        self.returns_fd = np.zeros(size, np.bool_)
        self.takes_fd = np.zeros((N_ARGS, size), np.bool_)
        for call in calls.values():
            self.returns_fd[call.nr] = call.returns_fd
            for at, kind in enumerate(call.args[:N_ARGS]):
                self.takes_fd[at, call.nr] = kind in (ArgKind.FD, ArgKind.DIRFD)


@dataclass
class Records:
    """The records of plain lines, but for the process that each is of."""

    line: Rows
    """Which plain line each is of."""
    tid: Ints
    words: Words
    """Row by row, what a record begins with."""
    payloads: list[bytes]
    opened: dict[int, int]
    """Of descriptors that are not known: which plain line first returned them."""
    used: dict[int, tuple[int, bytes]]
    """The same for their use by the first task, with the word that names what they are."""

    def parts(self, pid: Ints) -> list[tuple[bytes, bytes, bytes]]:
        """Return the records, in three parts each."""
        self.words[:, 1] = self.tid << 32 | pid
        fixed = self.words.tobytes()
        size = self.words.shape[1] * 8
        return [
            (fixed[at * size : (at + 1) * size], payload, PAD[len(payload) % 8])
            for at, payload in enumerate(self.payloads)
        ]


class Maker:
    """Makes records of plain lines; `calls` are all there are, by name."""

    def __init__(self, calls: Mapping[str, Syscall]) -> None:
        self._calls = _Calls(calls)

    def records(self, found: Lines, tid: Ints, root: int, known: set[int]) -> Records:
        """Return the records of the good lines; those of unknown calls are good no more.

        `tid` has the task of each line, `root` is the first task, `known` are descriptors of which
        it is known already where they come from.
        """
        calls = self._calls
        rows = np.flatnonzero(found.good)
        begin, end = found.name
        nr = found.by_word(begin[rows], end[rows], lambda name: calls.nr.get(name, -1), np.int64)
        found.good[rows[nr < 0]] = False
        rows, nr = rows[nr >= 0], nr[nr >= 0]
        begin, end = found.begin[:, rows], found.end[:, rows]
        letter = np.where(begin >= 0, found.text[begin], 0)
        plain = (begin >= 0) & ~np.isin(letter, _NESTED)
        args = np.zeros(begin.shape, np.uint64)
        less = np.full(begin.shape, len(found.data))
        less[plain] = found.next(found.less, begin[plain])
        ends = np.minimum(less, end)
        args[plain] = found.by_word(begin[plain], ends[plain], number, np.uint64)
        strings = letter == _QUOTE
        pieces = [
            _strings(found, calls.path[nr], begin, strings),
            _strings(found, calls.path2[nr], begin, strings),
            self._outs(found, nr, found.ret[rows], begin, end),
        ]
        sizes = [np.fromiter(map(len, piece), np.int64, len(rows)) for piece in pieces]
        words = np.zeros((len(rows), 2 + EVENT_WORDS), np.uint64)
        words[:, 0] = FIXED + sizes[0] + sizes[1] + sizes[2]
        words[:, 2], words[:, 3] = found.t_ns[rows], found.dur_ns[rows]
        words[:, 4] = found.ret[rows].view(np.uint64)
        words[:, 5:11] = args.T
        words[:, 12] = nr | DONE << 16
        words[:, 13] = sizes[0] | sizes[1] << 16 | sizes[2] << 32
        named = plain & (less < end) & calls.takes_fd[:, nr] & (tid[rows] == root)
        at, of = np.nonzero(named.T)
        firsts = _firsts(args.T[at, of].astype(np.int64), known)
        used = {
            fd: (int(rows[at[i]]), found.data[begin[of[i], at[i]] : end[of[i], at[i]]])
            for fd, i in firsts.items()
        }
        makes = np.flatnonzero(calls.returns_fd[nr])
        made = _firsts(found.ret[rows[makes]], known)
        opened = {fd: int(rows[makes[i]]) for fd, i in made.items()}
        payloads = list(map(b"".join, zip(*pieces, strict=True)))
        return Records(rows, tid[rows], words, payloads, opened, used)

    def _outs(self, found: Lines, nr: Ints, ret: Ints, begin: Ints, end: Ints) -> list[bytes]:
        """Return what is kept of each call's result."""
        outs = [b""] * len(nr)
        slot = self._calls.out[nr]
        rows = np.flatnonzero((slot >= 0) & (ret >= 0))
        listed: list[tuple[int, list[tuple[bytes, int]]]] = []
        for row, k, call in zip(rows.tolist(), slot[rows].tolist(), nr[rows].tolist(), strict=True):
            if begin[k, row] < 0:
                continue
            word = found.data[begin[k, row] : end[k, row]]
            kind = self._calls.out_kind[call]
            if kind == ArgKind.DIRENTS_OUT:
                listed.append((row, entries(word)))
            else:
                outs[row] = output(kind, word)
        # All names of the block at once: each array has its price.
        hashes = dirents.hashes(pair for _, pairs in listed for pair in pairs).tobytes()
        done = 0
        for row, pairs in listed:
            outs[row] = hashes[done : done + 4 * len(pairs)]
            done += 4 * len(pairs)
        return outs


def _strings(found: Lines, slot: Ints, begin: Ints, strings: Mask) -> list[bytes]:
    """Return the string in this argument of each call, b"" where there is none."""
    texts = [b""] * len(slot)
    rows = np.flatnonzero(slot >= 0)
    rows = rows[strings[slot[rows], rows]]
    first = begin[slot[rows], rows] + 1
    last = found.next(found.quotes, first)
    for row, a, b in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
        texts[row] = unescape(found.data[a:b])
    return texts


def _firsts(values: npt.NDArray[np.int64], known: set[int]) -> dict[int, int]:
    """Return where each descriptor is first, if it is one and not known."""
    fds, first = np.unique(values, return_index=True)
    pairs = zip(fds.tolist(), first.tolist(), strict=True)
    return {fd: at for fd, at in pairs if 0 <= fd < _MAX_FD and fd not in known}
