# SPDX-License-Identifier: MIT
"""What every descriptor argument of a trace refers to.

The calls that change descriptor tables are replayed, process by process, in the order
in which they took effect: a call that returns a descriptor at its end, one that takes
a descriptor away at its entry. Everything else looks up which object its
descriptor had at its entry, all at once: a stable sort by (process, descriptor, time)
and a forward fill. So the replay is linear in the calls that change tables, and the
rest costs one sort.

An object is an open file description: each open makes a new one, dup and fork share.
The working directory of a process is kept like a descriptor, as AT_FDCWD.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracer.descriptors import Object, kind_of_mode
from tracer.processes import Image, Processes
from tracer.raw import ARGS_AT, NO_RETURN, NR_PROCESS, OUT_STAT, Chunk, Ints, RawTrace
from tracer.syscalls import ArgKind, by_name, by_nr

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
O_CREAT = 0o100
O_DIRECTORY = 0o200000
O_CLOEXEC = 0o2000000
SOCK_CLOEXEC = O_CLOEXEC
MFD_CLOEXEC = 1
F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC = 0, 2, 1030
FD_CLOEXEC = 1
FIONCLEX, FIOCLEX = 0x5450, 0x5451
CLOSE_RANGE_CLOEXEC = 4
_PAIR = struct.Struct("<ii")
NOTHING = -1
NO_FD = 255


@dataclass
class Objects:
    """The result of a replay."""

    objects: list[Object]
    of_call: npt.NDArray[np.int32]
    """Object of each call's first descriptor argument, by row; NOTHING: none known."""


_Table = dict[int, tuple[int, bool]]  # descriptor -> object, close-on-exec


@dataclass
class _Replay:
    """State of the replay, and what it leaves: who had which object from when on."""

    objects: list[Object] = field(default_factory=list)
    tables: dict[int, _Table] = field(default_factory=dict)
    table: list[int] = field(default_factory=list)
    fd: list[int] = field(default_factory=list)
    tsc: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def new(self, what: Object) -> int:
        self.objects.append(what)
        return len(self.objects) - 1

    def set(self, table: int, fd: int, object_id: int, cloexec: bool, tsc: int) -> None:
        self.tables[table][fd] = object_id, cloexec
        self._note(table, fd, object_id, tsc)

    def drop(self, table: int, fd: int, tsc: int) -> None:
        if self.tables[table].pop(fd, None):
            self._note(table, fd, NOTHING, tsc)

    def _note(self, table: int, fd: int, object_id: int, tsc: int) -> None:
        self.table.append(table)
        self.fd.append(fd)
        self.tsc.append(tsc)
        self.held.append(object_id)

    def copy(self, image: Image, tsc: int) -> None:
        """Start a process with a copy of its parent's table, or with its cwd alone."""
        parent = self.tables.get(image.parent.table) if image.parent else None
        table = self.tables.setdefault(image.table, {})
        for fd, (object_id, cloexec) in (parent or {}).items():
            table[fd] = object_id, cloexec
            self._note(image.table, fd, object_id, tsc)
        if AT_FDCWD not in table:
            cwd = self.new(Object("directory", image.cwd or None))
            self.set(image.table, AT_FDCWD, cwd, False, tsc)

    def exec(self, table: int, tsc: int) -> None:
        for fd, (_, cloexec) in list(self.tables[table].items()):
            if cloexec:
                self.drop(table, fd, tsc)

    def path(self, table: int, dirfd: int, path: bytes) -> bytes | None:
        """Join a path with what it is relative to."""
        if not path.startswith(b"/"):
            base = self.objects[self.tables[table].get(dirfd, (0, False))[0]].path
            if base is None or dirfd not in self.tables[table]:
                return None
            path = base.rstrip(b"/") + b"/" + path if path else base
        if b"/." in path or b"//" in path:
            path = posixpath.normpath(path)
        return path


def _signed(value: int) -> int:
    """A descriptor as the kernel takes it: the lower half of a register, signed."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class _Interpreter:
    """Applies one call after the other to a _Replay."""

    def __init__(self, replay: _Replay) -> None:
        self.replay = replay
        calls = by_name()
        self.nr = {name: call.nr for name, call in calls.items()}
        self.opens = {self.nr[n] for n in ("open", "openat", "openat2", "creat")}
        self.dups = {self.nr[n] for n in ("dup", "dup2", "dup3")}
        self.sockets = {self.nr[n] for n in ("socket", "accept", "accept4")}
        self.returns_fd = {call.nr for call in calls.values() if call.returns_fd}
        self.pairs = {self.nr[n] for n in ("pipe", "pipe2", "socketpair")}
        others = ("close", "close_range", "fcntl", "ioctl", "chdir", "fchdir", "execve", "execveat")
        self.watched = self.returns_fd | self.pairs | {self.nr[name] for name in others}
        # Where each call has its flags with O_CLOEXEC among them.
        self.flags_at = {
            call.nr: index
            for call in calls.values()
            if call.returns_fd
            for index in [call.index(ArgKind.OPEN_FLAGS, ArgKind.FLAGS)]
            if index is not None
        } | {self.nr["socket"]: 1}

    def effective(self, chunk: Chunk) -> Ints:
        """When each call takes effect, as TSC."""
        late = self.returns_fd | self.pairs | {self.nr["fcntl"]}
        at_end = np.isin(chunk.events["nr"], list(late))
        tsc = chunk.events["tsc"].astype(np.int64)
        return tsc + np.where(at_end, chunk.events["dur"].astype(np.int64), 0)

    def changes_tables(self, events: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Leave out the many calls of fcntl and ioctl that only ask."""
        nr, command = events["nr"], events["args"][:, 1].astype(np.uint32)
        asks = (nr == self.nr["fcntl"]) & ~np.isin(command, (F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC))
        asks |= (nr == self.nr["ioctl"]) & ~np.isin(command, (FIOCLEX, FIONCLEX))
        changes: npt.NDArray[np.bool_] = ~asks
        return changes

    def apply(
        self, table: int, nr: int, args: list[int], ret: int, tsc: int, path: bytes, row: int
    ) -> None:
        replay, name = self.replay, self.nr
        if nr == name["close"]:
            replay.drop(table, _signed(args[0]), tsc)
        elif nr in self.dups:
            cloexec = nr == name["dup3"] and bool(args[2] & O_CLOEXEC)
            if not (nr == name["dup2"] and _signed(args[0]) == ret):
                self._dup(table, _signed(args[0]), ret, cloexec, tsc)
        elif nr in self.returns_fd:
            self._open(table, nr, args, ret, tsc, path, row)
        elif nr == name["fcntl"]:
            self._fcntl(table, args, ret, tsc)
        elif nr == name["ioctl"]:
            if args[1] in (FIOCLEX, FIONCLEX):
                self._cloexec(table, _signed(args[0]), args[1] == FIOCLEX)
        elif nr == name["close_range"]:
            self._close_range(table, args, tsc)
        elif nr == name["fchdir"]:
            self._dup(table, _signed(args[0]), AT_FDCWD, False, tsc)
        elif nr == name["chdir"]:
            where = replay.path(table, AT_FDCWD, path)
            cwd = replay.new(Object("directory", where, event=row))
            replay.set(table, AT_FDCWD, cwd, False, tsc)

    def _open(
        self, table: int, nr: int, args: list[int], ret: int, tsc: int, path: bytes, row: int
    ) -> None:
        flags = args[self.flags_at[nr]] if nr in self.flags_at else 0
        kind, where = "other", None
        if nr in self.opens:
            relative = nr in (self.nr["openat"], self.nr["openat2"])
            dirfd = _signed(args[0]) if relative else AT_FDCWD
            where = self.replay.path(table, dirfd, path) if path else None
            kind = "directory" if flags & O_DIRECTORY else "file"
        elif nr in self.sockets:
            kind = "socket"
        cloexec = bool(flags & (MFD_CLOEXEC if nr == self.nr["memfd_create"] else O_CLOEXEC))
        if nr == self.nr["openat2"]:
            cloexec = True  # struct open_how is not recorded: nearly all callers set it
        opened = self.replay.new(Object(kind, where, event=row))
        self.replay.set(table, ret, opened, cloexec, tsc)

    def pair(self, table: int, nr: int, args: list[int], fds: bytes, tsc: int, row: int) -> None:
        """Apply a call that made two descriptors."""
        if len(fds) != _PAIR.size:
            return
        socket = nr == self.nr["socketpair"]
        flags = args[1] if nr != self.nr["pipe"] else 0
        for fd in _PAIR.unpack(fds):
            made = self.replay.new(Object("socket" if socket else "pipe", event=row))
            self.replay.set(table, fd, made, bool(flags & O_CLOEXEC), tsc)

    def _dup(self, table: int, old: int, new: int, cloexec: bool, tsc: int) -> None:
        known = self.replay.tables[table].get(old)
        if known:
            self.replay.set(table, new, known[0], cloexec, tsc)
        else:
            self.replay.drop(table, new, tsc)

    def _cloexec(self, table: int, fd: int, on: bool) -> None:
        known = self.replay.tables[table].get(fd)
        if known:
            self.replay.tables[table][fd] = known[0], on

    def _fcntl(self, table: int, args: list[int], ret: int, tsc: int) -> None:
        fd, command = _signed(args[0]), args[1] & 0xFFFFFFFF
        if command in (F_DUPFD, F_DUPFD_CLOEXEC):
            self._dup(table, fd, ret, command == F_DUPFD_CLOEXEC, tsc)
        elif command == F_SETFD:
            self._cloexec(table, fd, bool(args[2] & FD_CLOEXEC))

    def _close_range(self, table: int, args: list[int], tsc: int) -> None:
        first, last = args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF
        for fd in [fd for fd in self.replay.tables[table] if first <= fd <= last]:
            if args[2] & CLOSE_RANGE_CLOEXEC:
                self._cloexec(table, fd, True)
            else:
                self.replay.drop(table, fd, tsc)


def _replay_tables(raw: RawTrace, processes: Processes, inherited: Mapping[int, Object]) -> _Replay:
    replay = _Replay()
    interpreter = _Interpreter(replay)
    images = sorted(processes.images, key=lambda image: image.fork_tsc)
    started: set[int] = set()

    def start_until(tsc: int) -> None:
        while images and images[0].fork_tsc <= tsc:
            image = images.pop(0)
            if image.table not in started:
                started.add(image.table)
                replay.copy(image, image.fork_tsc)
                if image.parent is None:
                    for fd, what in inherited.items():
                        replay.set(image.table, fd, replay.new(what), False, image.fork_tsc)

    chunk = raw.select(interpreter.watched)
    execs = {interpreter.nr["execve"], interpreter.nr["execveat"]}
    events = chunk.events
    when = interpreter.effective(chunk)
    paths = chunk.texts()
    row_of = raw.rows(interpreter.watched)
    order = np.argsort(when, kind="stable")
    order = order[interpreter.changes_tables(events)[order]]
    lists = (
        when[order].tolist(),
        events["nr"][order].tolist(),
        events["ret"][order].tolist(),
        events["args"][order].tolist(),
        events["flags"][order].tolist(),
        [processes.of_file[i].table for i in chunk.file[order].tolist()],
        row_of[order].tolist(),
        [paths[at] for at in order.tolist()],
        order.tolist(),
    )
    for tsc, nr, ret, args, flags, table, row, path, at in zip(*lists, strict=True):
        if images:
            start_until(tsc)
        if nr in execs:
            if flags & NO_RETURN:
                replay.exec(table, tsc)
        elif ret >= 0 and nr in interpreter.pairs:
            interpreter.pair(table, nr, args, chunk.out(at), tsc, row)
        elif ret >= 0:
            interpreter.apply(table, nr, args, ret, tsc, path, row)
    start_until(1 << 63)
    return replay


def _fd_arguments() -> npt.NDArray[np.uint8]:
    """By call number: which argument is the descriptor, NO_FD: none.

    close_range's arguments are a range of descriptors.
    """
    where = np.full(1 << 16, NO_FD, np.uint8)
    for nr, call in by_nr().items():
        at = call.index(ArgKind.FD, ArgKind.DIRFD)
        if at is not None and call.name != "close_range":
            where[nr] = at
    return where


def _lookup(raw: RawTrace, processes: Processes, replay: _Replay) -> npt.NDArray[np.int32]:
    """Return the object of every call's descriptor."""
    calls = raw.calls
    result = np.full(len(calls), NOTHING, np.int32)
    fd_at = _fd_arguments()
    nrs = raw.nr[raw.nr < NR_PROCESS]
    tsc = np.concatenate([np.empty(0, np.uint64), *(file.tsc for file in raw.files)])
    rows = np.flatnonzero(fd_at[nrs] != NO_FD)
    tables = np.array([image.table for image in processes.of_file] or [0], np.int64)
    keys, times = [], []
    for start in range(0, len(rows), 1 << 20):
        part = rows[start : start + (1 << 20)]
        which = calls[part]
        places = ARGS_AT + 8 * fd_at[nrs[part]].astype(np.int64)
        fds = raw.words(which, places).astype(np.uint32).astype(np.int64)
        keys.append(tables[raw.file_of(which)] << 32 | fds)
        times.append(tsc[which].astype(np.int64))
    if not rows.size or not replay.fd:
        return result
    fds = np.array(replay.fd, np.int64) & 0xFFFFFFFF
    set_key = np.array(replay.table, np.int64) << 32 | fds
    key = np.concatenate([set_key, *keys])
    time = np.concatenate([np.array(replay.tsc, np.int64), *times])
    n_set = len(set_key)
    use = np.arange(len(key)) >= n_set
    # A call that frees a descriptor still uses it: at equal times uses come first.
    order = np.lexsort((~use, time, key))
    last_set = np.maximum.accumulate(np.where(order < n_set, np.arange(len(order)), -1))
    uses = order >= n_set
    source = last_set[uses]
    found = order[np.maximum(source, 0)]
    good = (source >= 0) & (key[found] == key[order[uses]])
    objects = np.where(good, np.array(replay.held, np.int32)[np.where(good, found, 0)], NOTHING)
    result[rows[order[uses] - n_set]] = objects
    return result


def _learn_from_stat(raw: RawTrace, found: Objects) -> None:
    """Take kind, device and inode from what fstat said of the objects."""
    calls = by_name()
    nrs = {calls[name].nr for name in ("fstat", "newfstatat", "statx")}
    chunk = raw.select(nrs)
    ids = found.of_call[raw.rows(nrs)]
    events = chunk.events
    empty = (events["path_len"] == 0) & (events["out_len"] == OUT_STAT.itemsize) & (ids >= 0)
    candidates = np.flatnonzero(empty)
    # The first answer for each object is enough.
    known, first = np.unique(ids[candidates], return_index=True)
    size = np.zeros(len(events), np.int64)
    size[candidates[first]] = OUT_STAT.itemsize
    # No path, so what the call returned is all of the payload, but in the order of time.
    joined, _ = chunk.payload(events["path2_len"].astype(np.int64), size)
    answers = joined.view(OUT_STAT)[np.argsort(np.argsort(candidates[first]))]
    modes, devs, inos = (answers[name].tolist() for name in ("mode", "dev", "ino"))
    for object_id, mode, dev, ino in zip(known.tolist(), modes, devs, inos, strict=True):
        what = found.objects[object_id]
        what.dev, what.ino, what.kind = dev, ino, kind_of_mode(mode, what.path)


def _learn_from_calls(raw: RawTrace, found: Objects) -> None:
    """A descriptor whose entries were read is a directory's."""
    calls = by_name()
    nrs = {calls["getdents64"].nr, calls["getdents"].nr, calls["fchdir"].nr}
    good = raw.select(nrs).events["ret"] >= 0
    for object_id in np.unique(found.of_call[raw.rows(nrs)[good]]).tolist():
        if object_id >= 0:
            found.objects[object_id].kind = "directory"


def replay(
    raw: RawTrace, processes: Processes, inherited: Mapping[int, Object] | None = None
) -> Objects:
    """Find the object of every call's descriptor.

    `inherited` says what the descriptors of the traced program were at its start.
    """
    state = _replay_tables(raw, processes, inherited or {})
    found = Objects(state.objects, _lookup(raw, processes, state))
    _learn_from_stat(raw, found)
    _learn_from_calls(raw, found)
    return found
