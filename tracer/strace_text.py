# SPDX-License-Identifier: MIT
"""Reads what `strace -f -ttt -T -y` printed, line by line, into a stream of records.

Needs none of these options but understands them all, and `-v`, `-X raw`, `-tt`, `-r`, `-i`, `-n`
and `-Y`, with process numbers in front (`-o FILE`) or in brackets (standard error). Memory does not
grow with the length of the text.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from tracer import kept, strace_blocks
from tracer.descriptors import Object
from tracer.events import DONE, NO_RETURN
from tracer.strace_records import Maker, Records
from tracer.strace_words import CONSTANTS, FD, STRING, number, output, unescape
from tracer.stream import StreamWriter
from tracer.syscalls import ArgKind, Syscall, by_name
from tracer.timeline import End

LOOK_AHEAD_LINES = 5000  # in search of the working directory
BLOCK_LINES = 1 << 13
_TID = re.compile(rb"(\d+) +\d+\.")
_NO_TID = re.compile(rb"\d+\.\d+ ")
_ALONE = 1  # the task where lines do not name any
# As -r prints it, always padded: how long after the line before.
_RELATIVE = re.compile(rb"(?:\d+ |\[pid +\d+\] )? +\d{1,5}\.\d+ ")
# What -i, -n, -Y, and -r beside -t add: an address, the call's number, a process's name, a time.
_ADDED = re.compile(
    rb"(\[pid +\d+|\d+)?(?:<[^>]*>)?(\]? *(?:[\d.:]+ +)?)"
    rb"(?:\(\+ +[\d.]+\) )?(?:\[ *\d+\] )?(?:\[[0-9a-f?]{8,16}\] )?"
)
_HEAD = re.compile(
    rb"(?:\[pid +(\d+)\] |(\d+) +)? *"
    rb"(?:(\d+\.\d+) |(\d\d):(\d\d):(\d\d(?:\.\d+)?) )?"
    rb"(?:(\w+)\(|<\.\.\. (\w+) resumed>(?:,? ?)|(\+\+\+|---) )(.*)"
)
_END = re.compile(
    rb"\)? += +(\?|0x[0-9a-f]+|-?\d+)(?:<(?:[^>\\]|\\.)*>)?(?: ([A-Z][A-Z0-9_]*))?[^<]*"
    rb"(?:<(\d+\.\d+)>)?\s*$"
)
_UNFINISHED = b" <unfinished ...>"
_TOKEN = re.compile(
    rb'\{(?:[^{}"]++|"(?:[^"\\]|\\.)*+")*+\}'  # a structure in one go, where none is within it
    rb'|"(?:[^"\\]|\\.)*"(?:\.\.\.)?|/\*.*?\*/|<(?:->|[^<>\\]|\\.)*>|, |[\[\](){}]'
    rb'|[^"/<,\[\](){}]+|.'
)
# An argument that is one plain word, one string, or one structure with nothing nested in it.
_PLAIN = re.compile(
    rb'([^\[(){}"<,/]++(?:<(?:->|[^<>\\])*+>)?+|"[^"\\]*+"'
    rb'|\{(?:[^{}"]++|"(?:[^"\\]|\\.)*+")*+\})(?:, |$)'
)
_CWD = re.compile(rb"AT_FDCWD<((?:[^<>\\]|\\.)*)>")
_FLAGS = re.compile(rb"flags=([A-Z_0-9|x]+)")
_KILLED = re.compile(rb"(exited with|killed by) (\w+)( \(core dumped\))?")
_RESTARTS = {
    "ERESTARTSYS": 512,
    "ERESTARTNOINTR": 513,
    "ERESTARTNOHAND": 514,
    "ERESTART_RESTARTBLOCK": 516,
}
_EXECS = (b"execve", b"execveat")
_FORKS = ("fork", "vfork", "clone", "clone3")
_NEVER_PLAIN = frozenset((*_EXECS, *(name.encode() for name in _FORKS)))


def split(text: bytes) -> list[bytes]:
    """Return the arguments of a call, as printed."""
    if not text:
        return []
    if not any(c in text for c in (b'"', b"{", b"[", b"(", b"<")):
        return text.split(b", ")
    plain: list[bytes] = _PLAIN.findall(text)
    if sum(map(len, plain)) + 2 * len(plain) - 2 == len(text):
        return plain  # in half the time
    return split_nested(text)


def split_nested(text: bytes) -> list[bytes]:
    """The same for arguments with arguments of their own."""
    words: list[bytes] = []
    word = b""
    depth = 0
    for token in _TOKEN.findall(text):
        if token in b"[({":
            depth += 1
        elif token in b"])}":
            depth -= 1
        elif token == b", " and not depth:
            words.append(word)
            word = b""
            continue
        word += token
    words.append(word)
    return words


def _end(rest: bytes) -> re.Match[bytes] | None:
    """Find the result; nearly always it is behind the last " = ", which is found much faster."""
    at = len(rest[: rest.rfind(b" = ") + 1].rstrip(b" "))
    at -= rest[at - 1 : at] == b")"
    return _END.match(rest, at) or _END.search(rest)


def _without(line: bytes) -> bytes:
    """Return a line without what -i, -n, -Y, and -r beside -t, add in front of the call."""
    found = _ADDED.match(line)
    assert found  # it may match nothing
    return b"".join((found[1] or b"", found[2], line[found.end() :]))


@dataclass
class _Task:
    pid: int
    pending: tuple[str, int, bytes] | None = None
    """Name, time and text of a call that was not finished on its line."""


@dataclass
class Importer:
    """Turns lines into records; `finish` when there are no more."""

    writer: StreamWriter
    now_ns: int = 0
    first_ns: int | None = None
    last_ns: int = 0
    """When the last call ended that is known."""
    lines: int = 0
    unread: int = 0
    """Lines that are no strace output, or of calls that nobody knows."""
    command: list[str] = field(default_factory=list)
    inherited: dict[int, Object] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)
    _tasks: dict[int, _Task] = field(default_factory=dict)
    _cwd: bytes = b""
    _relative: bool = False
    """Times are those since the line before."""
    _added: bool = False
    """Lines hold more than we read."""
    _root: int = 0
    _tid: int = 0
    """The task of the last line that was looked at by itself."""
    _written: bool = False
    _opened: set[int] = field(default_factory=set)
    _calls: dict[str, Syscall] = field(default_factory=lambda: dict(by_name()))
    _maker: Maker = field(default_factory=lambda: Maker(by_name()))
    _kept: dict[int, kept.Kept] = field(default_factory=lambda: dict(kept.by_call()))

    @property
    def wall_ns(self) -> int:
        """Time from the first call's start to the last one's end."""
        return self.last_ns - (self.first_ns or 0)

    def read(self, lines: Iterable[bytes]) -> Iterator[int]:
        """Take all lines; yields now and then how many there were."""
        ahead: list[bytes] = []
        source = iter(lines)
        for line in source:
            ahead.append(line)
            found = _CWD.search(line)
            if found or len(ahead) >= LOOK_AHEAD_LINES:
                self._cwd = unescape(found[1]) if found else b""
                break
        first = next((line for line in ahead if _HEAD.match(_without(line))), b"")
        self._added = _without(first) != first
        self._relative = bool(_RELATIVE.match(first))
        every = chain(ahead, source)
        while block := list(islice(every, BLOCK_LINES)):
            self.lines += len(block)
            self._block(block)
            yield self.lines
        self._finish()

    def _block(self, lines: list[bytes]) -> None:
        """Take some lines: most of them at once, the others one by one, in their order."""
        self.writer.flush()
        # As strace ends them: some tools put a CR there, and the last one may be cut off.
        lines = [line.rstrip(b"\r\n") + b"\n" for line in lines]
        if self._added:
            lines = [_without(line) for line in lines]
        if self._relative:  # rare, and each depends on all before
            for line in lines:
                self._line(line)
            return
        alone = self._root in (0, _ALONE) and _NO_TID.match(lines[0])
        if alone and not any(line.startswith(b"[pid ") for line in lines):
            lines = [b"%d %b" % (_ALONE, line) for line in lines]
        found = strace_blocks.sort(lines, set(self._tasks), _NEVER_PLAIN, _HEAD.match)
        plain = strace_blocks.parse(found.plain)
        first = _TID.match(lines[0])
        root = self._root or int(first[1] if first else _ALONE)
        known = self._opened | set(self.inherited)
        records = self._maker.records(plain, np.array(found.tid, np.int64), root, known)
        at = np.array(found.at, np.int64)
        others: list[tuple[int, Callable[[], None]]] = [
            (place, partial(self._line, line)) for place, line in found.other
        ]
        for row in np.flatnonzero(~plain.good).tolist():
            others.append((found.at[row], partial(self._line, found.plain[row])))
        for row, word in records.used.values():
            others.append((found.at[row], partial(self._seen, word, root)))
        for fd, row in records.opened.items():
            others.append((found.at[row], partial(self._opened.add, fd)))
        if len(records.line):
            others.append((found.at[records.line[0]], self._began))
            end_ns = plain.t_ns[records.line] + plain.dur_ns[records.line]
            self.last_ns = max(self.last_ns, int(end_ns.max()))
        written: list[tuple[int, bytes]] = []
        tasks = [(tid, -1, task.pid) for tid, task in self._tasks.items()]
        for place, take in sorted(others, key=itemgetter(0)):
            take()
            if records_of_it := self.writer.take():
                written.append((place, records_of_it))
            task = self._tasks.get(self._tid)
            if task:
                tasks.append((self._tid, place, task.pid))
        self._write(records, at[records.line], written, tasks)

    def _began(self) -> None:
        self._written = True

    def _write(
        self,
        records: Records,
        at: npt.NDArray[np.int64],
        written: list[tuple[int, bytes]],
        tasks: list[tuple[int, int, int]],
    ) -> None:
        """Write the records of plain lines, which are at these places, between the others.

        `tasks`: from which place on a task is of which process.
        """
        table = np.array(sorted(set(tasks)), np.int64).reshape(-1, 3)
        since = table[:, 0] << 32 | table[:, 1] + 1
        pid = table[np.searchsorted(since, records.tid << 32 | at + 1) - 1, 2]
        parts = records.parts(pid)
        done = 0
        bounds = np.searchsorted(at, [place for place, _ in written])
        for bound, (_, others) in zip(bounds.tolist(), written, strict=True):
            self.writer.copy(b"".join(chain.from_iterable(parts[done:bound])))
            self.writer.copy(others)
            done = bound
        self.writer.copy(b"".join(chain.from_iterable(parts[done:])))

    def _line(self, line: bytes) -> None:
        line = line.rstrip(b"\n")
        head = _HEAD.match(line)
        if not head:
            self.unread += bool(line.strip()) and b"Process " not in line
            return
        pid_in, pid_at, epoch, hours, minutes, seconds, name, resumed, other, rest = head.groups()
        tid = self._tid = int(pid_in or pid_at or self._root or _ALONE)
        if epoch:
            whole, fraction = epoch.split(b".")
            time_ns = int(whole) * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9])
            self.now_ns = self.now_ns + time_ns if self._relative else time_ns
        elif hours:
            minute = int(hours) * 60 + int(minutes)
            self.now_ns = minute * 60_000_000_000 + round(float(seconds) * 1e9)
        else:
            self.now_ns += 1000
        if self.first_ns is None:
            self.first_ns = self.now_ns
        self.last_ns = max(self.last_ns, self.now_ns)
        task = self._tasks.get(tid) or self._new(tid, (name or resumed or b"") in _EXECS)
        if other:
            self._ended(tid, task, other, rest)
        elif resumed:
            if task.pending and task.pending[0] == resumed.decode():
                called, t_ns, text = task.pending
                task.pending = None
                self._call(tid, task, called, t_ns, text, rest)
            else:
                self.unread += 1
        elif rest.endswith(_UNFINISHED):
            task.pending = (name.decode(), self.now_ns, rest[: -len(_UNFINISHED)])
        else:
            self._call(tid, task, name.decode(), self.now_ns, b"", rest)

    def _new(self, tid: int, execs: bool) -> _Task:
        """A task has its first line: of which process, made by whom?"""
        makers = [
            (task.pending[1], task.pid, task.pending[2])
            for task in self._tasks.values()
            if task.pending and task.pending[0] in _FORKS
        ]
        parent, flags = 0, 0
        if makers:
            _, parent, text = max(makers)
            found = _FLAGS.search(text)
            flags = number(found[1]) if found else 0
        thread = bool(flags & CONSTANTS[b"CLONE_THREAD"])
        self._tasks[tid] = task = _Task(parent if thread else tid)
        if not thread:
            self._root = self._root or tid
            if execs and tid == self._root:
                return task  # it will say who it is
            self.writer.process(tid, self.now_ns, parent, b"", b"" if parent else self._cwd, [])
        return task

    def _ended(self, tid: int, task: _Task, kind: bytes, rest: bytes) -> None:
        found = _KILLED.match(rest) if kind == b"+++" else None
        if not found:
            return
        if task.pending:
            self._unfinished(tid, task)
        end = None
        if tid == task.pid:
            if found[1] == b"exited with":
                status = int(found[2]) << 8
            else:
                status = CONSTANTS.get(found[2], 0) | (0x80 if found[3] else 0)
            end = self.ends[tid] = End(status)
        self.writer.exit(task.pid, tid, self.now_ns, end)
        if len(self._tasks) > 1:
            self._tasks.pop(tid, None)

    def _unfinished(self, tid: int, task: _Task) -> None:
        assert task.pending
        name, t_ns, text = task.pending
        task.pending = None
        call = self._calls.get(name)
        if call:
            args, path, path2, _ = self._arguments(call, split(text), None, tid)
            self.writer.event(
                task.pid, tid, call.nr, t_ns, 0, 0, args, path, path2, flags=DONE | NO_RETURN
            )

    def _finish(self) -> None:
        for tid, task in self._tasks.items():
            if task.pending:
                self._unfinished(tid, task)

    def _call(self, tid: int, task: _Task, name: str, t_ns: int, begun: bytes, rest: bytes) -> None:
        call = self._calls.get(name)
        end = _end(rest) if call else None
        if not call or not end:
            self.unread += 1
            return
        value, error, duration = end.groups()
        flags, ret = DONE, 0
        if value == b"?":
            restart = _RESTARTS.get(error.decode() if error else "")
            flags, ret = (DONE, -restart) if restart else (DONE | NO_RETURN, 0)
        elif value == b"-1" and error:
            ret = -getattr(errno, error.decode(), 1)
        else:
            ret = int(value, 16 if value.startswith(b"0x") else 10)
        words = split(begun + rest[: end.start()].removesuffix(b")"))
        args, path, path2, out = self._arguments(call, words, ret, tid)
        if name in ("execve", "execveat") and ret == 0 and flags == DONE:
            flags |= NO_RETURN
        dur_ns = round(float(duration) * 1e9) if duration else max(0, self.now_ns - t_ns)
        self.last_ns = max(self.last_ns, t_ns + dur_ns)
        if ret >= 1 << 63:
            ret -= 1 << 64
        first = not self._written and tid == self._root and flags & NO_RETURN
        if not first or name not in ("execve", "execveat"):  # the tracer's own child made that one
            self._written = True
            self.writer.event(
                task.pid, tid, call.nr, t_ns, dur_ns, ret, args, path, path2, out, flags=flags
            )
        if name in ("execve", "execveat") and flags & NO_RETURN:
            self._executed(task, t_ns + dur_ns, path, words)
        elif name in _FORKS and ret > 0 and ret not in self._tasks:
            self._forked(task, t_ns, ret, begun + rest)
        if call.returns_fd and ret >= 0:
            self._opened.add(ret)

    def _executed(self, task: _Task, t_ns: int, path: bytes, words: list[bytes]) -> None:
        lists = [word for word in words if word[:1] == b"["]
        argv = [unescape(word) for word in STRING.findall(lists[0])] if lists else []
        if not self.command:
            self.command = [os.fsdecode(word) for word in argv]
        exe = path if path.startswith(b"/") else os.path.join(self._cwd, path)
        self.writer.process(task.pid, t_ns, 0, exe, self._cwd, argv)

    def _forked(self, task: _Task, t_ns: int, child: int, text: bytes) -> None:
        found = _FLAGS.search(text)
        flags = number(found[1]) if found else 0
        thread = bool(flags & CONSTANTS[b"CLONE_THREAD"])
        self._tasks[child] = _Task(task.pid if thread else child)
        if not thread:
            self.writer.process(child, t_ns, task.pid, b"", b"", [])

    def _arguments(
        self, call: Syscall, words: list[bytes], ret: int | None, tid: int
    ) -> tuple[list[int], bytes, bytes, bytes]:
        what = self._kept.get(call.nr)
        args = [0] * 6
        path = path2 = out = b""
        if call.name == "clone":
            found = _FLAGS.search(b", ".join(words))
            args[0] = number(found[1]) if found else 0
            return args, path, path2, out
        for i, word in enumerate(words[:6]):
            if word[:1] in b'"[{' and word:
                string = STRING.match(word)
                if not string or not what:
                    continue
                if i == what.path:
                    path = unescape(string[1])
                elif i == what.path2:
                    path2 = unescape(string[1])
                continue
            args[i] = number(word)
            if i < len(call.args) and call.args[i] in (ArgKind.FD, ArgKind.DIRFD):
                self._seen(word, tid)
        if what and what.out is not None and what.out < len(words) and ret is not None and ret >= 0:
            out = output(what.out_kind, words[what.out])
        return args, path, path2, out

    def _seen(self, word: bytes, tid: int) -> None:
        """With -y: a descriptor that nobody opened was there before."""
        found = FD.match(word)
        if not found or found[2] is None or tid != self._root:
            return
        fd = int(found[1])
        if fd in self._opened or fd in self.inherited or fd < 0:
            return
        name = unescape(found[2])
        kind = "pipe" if name.startswith(b"pipe:") else "socket" if b":[" in name else "file"
        if name.startswith((b"/dev/pts/", b"/dev/tty")):
            kind = "tty"
        elif name.startswith(b"/dev/"):
            kind = "device"
        self.inherited[fd] = Object(kind, name if name.startswith(b"/") else None)
