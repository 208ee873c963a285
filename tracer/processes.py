# SPDX-License-Identifier: MIT
"""Who ran: program images, how they came to be, and the libraries they had mapped.

What a trace calls a thread is one thread of one program image. A process is one image
after the other: exec replaces it, fork and vfork start a new process with a copy.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tracer import elf
from tracer.events import NR_MODULE, NR_PROCESS
from tracer.syscalls import by_name
from tracer.timeline import EXECS, EXITS, RawTrace

CLONE_THREAD = 0x10000
# Children of one process whose numbers lie further apart were numbered before and after a wrap.
PIDS_IN_A_ROW = 16384


@dataclass
class Image:
    """One program image of one process."""

    pid: int
    ppid: int
    start_tsc: int
    table: int
    """Number of the process: images that exec'ed one another share it."""
    exe: bytes = b""
    cwd: bytes = b""
    argv: list[bytes] = field(default_factory=list)
    modules: dict[int, bytes] = field(default_factory=dict)
    """Load address to file name."""
    parent: Image | None = None
    """Of the process, when it was traced as well."""
    fork_tsc: int = 0
    """When its descriptor table was copied from the parent's."""
    replaced: bool = False
    """An exec of this image succeeded."""
    exit: int | None = None
    """As wait(2) tells it, or None: not known."""
    unseen: bytes = b""
    """The program that replaced this image, when that one could not be recorded."""


@dataclass
class Processes:
    """All images of a trace, by time, and which thread belongs to which."""

    images: list[Image]
    of_thread: list[Image]
    """In the order of RawTrace.threads."""


@dataclass
class _Forks:
    """What the events of one process tell about its children and its end."""

    tsc: list[int] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    """The same of calls that were seen to return, by the number of the child."""
    clone3_tsc: list[int] = field(default_factory=list)
    """Those of tsc that may as well have been threads."""
    exec_tsc: list[int] = field(default_factory=list)
    exec_path: bytes = b""
    exit_code: int | None = None

    def was_thread(self, start_tsc: int) -> None:
        """Leave out the call that made a thread: clone3's flags are not in its registers."""
        at = bisect_right(self.clone3_tsc, start_tsc)
        if at:
            self.tsc.remove(self.clone3_tsc.pop(at - 1))


_Announcements = list[list[tuple[int, bytes, bytes, bytes]]]


def _announced(raw: RawTrace, nr: int) -> _Announcements:
    """Return, by thread, the announcements of this kind: address, path, path2, output."""
    found: _Announcements = [[] for _ in raw.threads]
    chunk = raw.rare.of(nr)
    for row, (thread, address) in enumerate(
        zip(chunk.thread.tolist(), chunk.args[0].tolist(), strict=True)
    ):
        what = (address, chunk.text(row), chunk.text(row, True), chunk.out(row))
        found[thread].append(what)
    return found


def _forks(raw: RawTrace) -> dict[int, _Forks]:
    calls = by_name()
    execs = {calls[name].nr for name in EXECS}
    exit_nr, exit_group_nr = (calls[name].nr for name in EXITS)
    found: dict[int, _Forks] = defaultdict(_Forks)
    chunk = raw.rare.take(np.flatnonzero(raw.rare.nr < NR_PROCESS))
    fields = (chunk.thread, chunk.nr, chunk.tsc, chunk.args[0], chunk.ret, chunk.returned)
    rows = zip(*(column.tolist() for column in fields), strict=True)
    for row, (thread, nr, tsc, first, ret, returned) in enumerate(rows):
        of = found[raw.threads[thread].pid]
        if nr in execs:
            if not returned:
                of.exec_tsc.append(tsc)
                of.exec_path = chunk.text(row)
        elif nr == exit_nr:
            continue  # of a thread
        elif nr == exit_group_nr:
            of.exit_code = (first & 0xFF) << 8
        elif returned:
            of.known[ret] = tsc
        elif nr != calls["clone"].nr or not first & CLONE_THREAD:
            of.tsc.append(tsc)
            if nr == calls["clone3"].nr:
                of.clone3_tsc.append(tsc)
    return found


def _numbered_before(one: Image, other: Image) -> bool:
    """Whether a process came into being before another, by their numbers, which may begin again."""
    return -PIDS_IN_A_ROW < one.pid - other.pid < 0 or one.pid - other.pid > PIDS_IN_A_ROW


def _fork_times(children: list[Image], forks: list[int]) -> None:
    """Set fork_tsc of the children of one process, given in the order of their start.

    The shim notes the call before it is made, so it cannot name the child. Calls and process
    numbers come in the same order; the children's own first steps may not. Where both calls
    came before the first of two children was seen, their numbers decide. Where some are missing
    (threads by clone3, children that were never seen), the latest call before the child's start is
    taken.
    """
    if len(children) == len(forks):
        order: list[Image] = []
        for child in children:
            at = len(order)
            while at and forks[at] < order[at - 1].start_tsc:
                if not _numbered_before(child, order[at - 1]):
                    break
                at -= 1
            order.insert(at, child)
        for child, tsc in zip(order, forks, strict=True):
            child.fork_tsc = min(tsc, child.start_tsc)
        return
    left = list(forks)
    pids = [child.pid for child in children]
    if max(pids) - min(pids) < PIDS_IN_A_ROW:
        children = sorted(children, key=lambda child: child.pid)
    for child in children:
        at = bisect_right(left, child.start_tsc)
        child.fork_tsc = left.pop(at - 1) if at else child.start_tsc


def find(raw: RawTrace) -> Processes:
    """Find the images of a trace."""
    announced, modules = _announced(raw, NR_PROCESS), _announced(raw, NR_MODULE)
    forks = _forks(raw)
    images: list[Image] = []
    of_thread: list[Image] = []
    current: dict[int, Image] = {}
    children: dict[int, list[Image]] = defaultdict(list)
    tables = 0
    for index, thread in enumerate(raw.threads):
        image = current.get(thread.pid)
        who = announced[index]
        if image is None or who:
            before = image
            image = Image(thread.pid, thread.ppid, thread.start_tsc, table=tables)
            of = forks.get(thread.pid, _Forks())
            if before and bisect_right(of.exec_tsc, thread.start_tsc):
                before.replaced = True
                image.table, image.parent = before.table, before.parent
                image.fork_tsc = before.fork_tsc
            else:
                tables += 1
                image.parent = current.get(thread.ppid)
                image.fork_tsc = thread.start_tsc
                if image.parent:
                    children[thread.ppid].append(image)
                    image.modules = dict(image.parent.modules)
            current[thread.pid] = image
            images.append(image)
            _describe(image, who)
        elif thread.tid not in (image.pid, raw.threads[index - 1].tid) and thread.pid in forks:
            forks[thread.pid].was_thread(thread.start_tsc)
        for address, path, _, _ in modules[index]:
            image.modules[address] = path or image.exe
        of_thread.append(image)
    for ppid, born in children.items():
        known = forks[ppid].known if ppid in forks else {}
        for child in born:
            child.fork_tsc = min(known.get(child.pid, child.fork_tsc), child.start_tsc)
        unknown = [child for child in born if child.pid not in known]
        if unknown:
            _fork_times(unknown, forks[ppid].tsc)
    for pid, image in current.items():
        of = forks.get(pid, _Forks())
        image.exit = of.exit_code
        if of.exec_tsc and of.exec_tsc[-1] > image.start_tsc:
            image.unseen, image.exit = of.exec_path, None
    return Processes(images, of_thread)


def _describe(image: Image, who: list[tuple[int, bytes, bytes, bytes]]) -> None:
    if who:
        _, image.exe, image.cwd, argv = who[0]
        image.argv = argv.rstrip(b"\0").split(b"\0") if argv else []
    if image.parent and not image.exe:
        # A child until it execs: it still is its parent.
        image.exe, image.cwd = image.parent.exe, image.parent.cwd
        image.argv = image.parent.argv


class Modules:
    """Turns call sites into `module+0xoffset`, for one image."""

    def __init__(self, image: Image) -> None:
        self._names = image.modules
        self._bases = sorted(image.modules)

    def add(self, base: int, path: bytes) -> None:
        """Note a library that was mapped later."""
        if base not in self._names:
            self._names[base] = path
            self._bases = sorted(self._names)

    def where(self, address: int) -> tuple[str, int]:
        """Return the file that a call site lies in and its address there, "": none is known."""
        at = bisect_right(self._bases, address)
        if not at:
            return "", address
        base = self._bases[at - 1]
        path = os.fsdecode(self._names[base])
        span = elf.span(path)
        return ("", address) if span and address - base > span else (path, address - base)


def build_id(exe: bytes) -> str | None:
    """Return the build-id of a program file, None when it has none or is gone."""
    try:
        return elf.inspect(os.fsdecode(exe)).build_id if exe else None
    except OSError:
        return None
