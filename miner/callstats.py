# SPDX-License-Identifier: MIT
"""What is known of one call of a motif's body: additive over traces, ends as `motifs.Call`."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miner import motifs
from miner.annotate import TYPE_NAMES, Via
from miner.descriptors import DESCRIPTORS, positions
from miner.events import Ints
from miner.histogram import Histogram, add_counts
from miner.joins import AT_FDCWD
from miner.motifs import Arg, ArgKind
from miner.tokens import BodyKey
from tracer import syscalls

CONST_SHARE = 0.99  # of the observations that a value or a relation must explain
OPTIONAL_SHARE = 0.98  # a call in fewer iterations is optional
_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_ADDRESSES = (1 << 32, 1 << 47)  # of user memory: what looks constant is a stack or a buffer
_FREE = Arg(ArgKind.UNKNOWN)
AS_FIRST = "as the first"  # a second descriptor argument means what the first one does
INHERITED = "inherited"  # it was open before the trace began
_STAT_BYTES, _STATX_BYTES = 144, 256

_K = syscalls.ArgKind
POINTERS = {_K.BUF_IN, _K.BUF_OUT, _K.IOV_IN, _K.IOV_OUT, _K.PTR, _K.DIRENTS_OUT}
_FLAGS = {_K.AT_FLAGS, _K.OPEN_FLAGS, _K.FLAGS}


def table_entry(nr: int) -> syscalls.Syscall:
    """The call's line in the table; an unknown number gets one of six plain integers."""
    found = syscalls.by_nr().get(nr)
    if found:
        return found
    kinds = (_K.INT,) * 6
    return syscalls.Syscall(
        nr, syscalls.name_of(nr), syscalls.SyscallClass.UNKNOWN, kinds, False, None
    )


@dataclass
class CallStats:
    """Sums over the observations of one body call."""

    key: BodyKey
    count: int = 0
    time_ns: int = 0
    usual_ns: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    iterations: int = 0  # that have it at least once
    rank_sum: int = 0  # of its first position within each iteration
    errors: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    values: dict[int, Counter[int]] = field(default_factory=dict)  # by argument; pointers: is NULL
    size_of: Counter[tuple[int, int]] = field(default_factory=Counter)  # (argument, addend)
    mode_of: Counter[int] = field(default_factory=Counter)  # by argument: as the last st_mode
    next_of: Counter[int] = field(default_factory=Counter)  # by argument: goes on where it ended
    repeats: Histogram = field(default_factory=Histogram)  # calls per iteration that has it
    to_end: int = 0  # iterations whose last one returned 0
    listed: bool = False  # its path is an item of the list that the loop runs over
    same: dict[int, Arg] = field(default_factory=dict)  # by argument: provenance that is known
    opener: BodyKey | None = None  # that made the descriptor of a RESULT call
    # Second descriptor arguments: by the call of the iteration that opened them, or as below.
    second: Counter[BodyKey | str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """Name of the system call."""
        return syscalls.name_of(self.key.nr)

    def add_types(self, types: Ints) -> None:
        """Add the entry types (indices into TYPE_NAMES) of the children."""
        counts = np.bincount(types, minlength=len(TYPE_NAMES))
        self.types.update({TYPE_NAMES[i]: int(c) for i, c in enumerate(counts) if c})

    def merge(self, other: CallStats) -> None:
        """Add what another trace says of the same call."""
        for name in (
            *("count", "time_ns", "usual_ns", "bytes_in", "bytes_out", "iterations"),
            "rank_sum",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        add_counts(self.errors, other.errors)
        add_counts(self.types, other.types)
        add_counts(self.size_of, other.size_of)
        add_counts(self.mode_of, other.mode_of)
        add_counts(self.next_of, other.next_of)
        add_counts(self.second, other.second)
        self.repeats.merge(other.repeats)
        self.to_end += other.to_end
        for i, values in other.values.items():
            add_counts(self.values.setdefault(i, Counter()), values)

    def _share(self, count: int) -> float:
        return round(count / self.count, 6) if self.count else 0.0

    def _most(self, i: int) -> tuple[int, float]:
        values = self.values.get(i)
        if not values:
            return 0, 0.0
        value, count = values.most_common(1)[0]
        return value, self._share(count)

    def _where(self, kind: syscalls.ArgKind, index: Mapping[BodyKey, int]) -> Arg:
        """Provenance of a descriptor or path argument."""
        via = self.key.via
        if self.listed and kind is _K.PATH:
            return Arg(ArgKind.ITEM)
        if self.listed and kind is _K.DIRFD:
            value, share = self._most(self._position(kind))
            return Arg(ArgKind.CONST, value=value, share=share) if share >= CONST_SHARE else _FREE
        if via == Via.RESULT and kind in (_K.FD, _K.DIRFD):
            # Others (pipe2, socketpair) give two descriptors, through a pointer.
            gives = self.opener is not None and table_entry(self.opener.nr).returns_fd
            call = index.get(self.opener) if self.opener and gives else None
            return Arg(ArgKind.RESULT, call=call) if call is not None else Arg(ArgKind.UNKNOWN)
        if via == Via.RESULT and kind is _K.PATH:
            return Arg(ArgKind.STRING, text="")  # AT_EMPTY_PATH
        if via == Via.FILE and kind in (_K.FD, _K.DIRFD):
            return Arg(ArgKind.FILE)
        if kind is _K.DIRFD:
            if via in (Via.PATH, Via.CWD):
                return Arg(ArgKind.CONST, value=AT_FDCWD)
            return Arg(ArgKind.DIR if via == Via.NAME else ArgKind.UNKNOWN)
        if kind is _K.PATH and via in (Via.NAME, Via.CWD):
            return Arg(ArgKind.NAME)
        return Arg(ArgKind.PATH if kind is _K.PATH and via == Via.PATH else ArgKind.UNKNOWN)

    def _second(self, i: int, index: Mapping[BodyKey, int]) -> Arg:
        """Provenance of the second descriptor argument, which is argument i."""
        value, share = self._most(i)
        if share >= CONST_SHARE and (
            value < 0 or self._share(self.second[INHERITED]) >= CONST_SHARE
        ):
            return Arg(ArgKind.CONST, value=value, share=share)
        for what, count in self.second.most_common(1):
            share = self._share(count)
            if share < CONST_SHARE:
                break
            if what == AS_FIRST:
                first = positions(self.key.nr)[0]
                kind = table_entry(self.key.nr).args[first]
                return self.same.get(first) or self._where(kind, index)
            if isinstance(what, BodyKey) and what in index:
                return Arg(ArgKind.RESULT, call=index[what], share=share)
        return _FREE

    def _plain(self, i: int, stat_call: int | None) -> Arg:
        """Provenance of a number: constant, size of the file, or not explained."""
        value, share = self._most(i)
        following = self._share(self.next_of[i])
        if following >= CONST_SHARE:
            return Arg(ArgKind.NEXT, share=following)
        if share >= CONST_SHARE and not _ADDRESSES[0] <= value < _ADDRESSES[1]:
            return Arg(ArgKind.CONST, value=value, share=share)
        copied = self._share(self.mode_of[i])
        if copied >= CONST_SHARE:
            return Arg(ArgKind.STAT, field="st_mode", share=copied)
        for addend in (0, 1):
            hits = self._share(self.size_of[i, addend])
            if hits >= CONST_SHARE and stat_call is not None:
                return Arg(ArgKind.FIELD, call=stat_call, field="st_size", value=addend, share=hits)
        return Arg(ArgKind.UNKNOWN, value=value, share=share)

    def _argument(
        self, i: int, kind: syscalls.ArgKind, index: Mapping[BodyKey, int], stat_call: int | None
    ) -> Arg:
        if i in self.same:
            return self.same[i]
        if kind in DESCRIPTORS:
            places = positions(self.key.nr)
            if i in places:
                return self._second(i, index) if i in places[1:] else self._where(kind, index)
        if kind is _K.PATH:
            return self._where(kind, index)
        if kind is _K.NAME:
            return Arg(ArgKind.STRING, text=self.key.xattr)
        if kind is _K.STAT_OUT:
            return Arg(ArgKind.OUT, value=_STAT_BYTES)
        if kind is _K.STATX_OUT:
            return Arg(ArgKind.OUT, value=_STATX_BYTES)
        if kind in POINTERS:
            is_null, share = self._most(i)
            if is_null:
                return Arg(ArgKind.CONST if share >= CONST_SHARE else ArgKind.UNKNOWN, value=0)
            if kind in (_K.BUF_IN, _K.IOV_IN, _K.PTR):
                return Arg(ArgKind.UNKNOWN)
            size = self._size_after(i)
            return Arg(ArgKind.OUT, value=size, share=share)
        if kind is _K.MODE and self._never_creates():
            return Arg(ArgKind.NONE)
        if kind in _FLAGS:
            value, share = self._most(i)
            return Arg(ArgKind.CONST, value=value, share=share)
        return self._plain(i, stat_call)

    def _position(self, kind: syscalls.ArgKind) -> int:
        i = table_entry(self.key.nr).index(kind)
        return -1 if i is None else i

    def _size_after(self, i: int) -> int | None:
        """The constant size of the buffer in argument i, from the size argument behind it."""
        kinds = table_entry(self.key.nr).args
        for j in range(i + 1, len(kinds)):
            if kinds[j] is _K.SIZE:
                value, share = self._most(j)
                return value if share >= CONST_SHARE else None
        return None

    def _never_creates(self) -> bool:
        i = table_entry(self.key.nr).index(_K.OPEN_FLAGS)
        return i is not None and not any(
            flags & _O_CREAT or flags & _O_TMPFILE == _O_TMPFILE for flags in self.values.get(i, ())
        )

    def _seen(self, *kinds: syscalls.ArgKind) -> list[motifs.Seen]:
        i = table_entry(self.key.nr).index(*kinds)
        if i is None:
            return []
        return [motifs.Seen(v, c) for v, c in self.values.get(i, Counter()).most_common(16)]

    def to_call(
        self,
        iterations: int,
        index: Mapping[BodyKey, int],
        stat_call: int | None,
        where: Mapping[int, Arg] | None = None,
    ) -> motifs.Call:
        """The call in the form of the motif file; `index`: position of each call of the body.

        where: by argument, the provenance of the descriptors, paths and data of sequences.
        """
        entry = table_entry(self.key.nr)
        args = [self._argument(i, kind, index, stat_call) for i, kind in enumerate(entry.args)]
        if where is not None:
            places = positions(self.key.nr)
            for i, kind in enumerate(entry.args):
                if i in where or i in places or kind is _K.PATH:
                    args[i] = where.get(i, _FREE)
        args += [Arg(ArgKind.NONE)] * (6 - len(args))
        share = self.iterations / iterations if iterations else 0.0
        xattrs = []
        if self.key.xattr:
            missing, unsupported = self.errors[errno.ENODATA], self.errors[errno.EOPNOTSUPP]
            xattrs = [motifs.XattrSeen(self.key.xattr, self.count, missing, unsupported)]
        return motifs.Call(
            syscall=entry.name,
            nr=self.key.nr,
            sclass=str(entry.cls),
            args=args,
            flags=self._seen(*_FLAGS),
            mask=self._seen(_K.STATX_MASK),
            optional=share < OPTIONAL_SHARE,
            share=round(share, 6),
            per_iteration=round(self.count / self.iterations, 4) if self.iterations else 0.0,
            count=self.count,
            time_ns=self.time_ns,
            errors=sum(self.errors.values()),
            error_names={errno.errorcode.get(e, str(e)): c for e, c in self.errors.most_common()},
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            types=dict(self.types.most_common()),
            xattrs=xattrs,
            repeats=self.repeats.quantiles(),
            usual_ns=self.usual_ns,
            to_end=round(self.to_end / self.iterations, 6) if self.iterations else 0.0,
        )


def assemble(
    name: str, loop: motifs.Loop | None, calls: list[motifs.Call], boundary_ns: int, **rest: Any
) -> motifs.Motif:
    """A motif of these calls, with the sums over them; `rest`: its other fields."""
    time_ns = sum(c.time_ns for c in calls)
    fields: dict[str, Any] = {
        "crossings": sum(c.count for c in calls),
        "continuation": [],
        "continuation_files": [],
        "predicted": {},
        "members": [name],
    }
    return motifs.Motif(
        name=name,
        kind=motifs.Kind.LOOP if loop else motifs.Kind.REPEAT,
        loop=loop,
        calls=calls,
        pure=all(c.sclass == syscalls.SyscallClass.PURE for c in calls if c.share >= 0.5),
        time_ns=time_ns,
        bytes=sum(c.bytes_in + c.bytes_out for c in calls),
        share=round(time_ns / boundary_ns, 6) if boundary_ns else 0.0,
        **(fields | rest),
    )
