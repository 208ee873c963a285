# SPDX-License-Identifier: MIT
"""Who a process is, as /proc tells while it lives."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from tracer import elf


@dataclass
class Identity:
    """What /proc tells of a process; what it does not is empty."""

    ppid: int = 0
    exe: bytes = b""
    cwd: bytes = b""
    argv: list[bytes] = field(default_factory=list)
    modules: dict[int, bytes] = field(default_factory=dict)
    """Load address to file."""


def _link(pid: int, name: str) -> bytes:
    try:
        return os.readlink(f"/proc/{pid}/{name}".encode())
    except OSError:
        return b""


def _file(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _field(tid: int, name: bytes) -> int:
    for line in _file(tid, "status").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def tgid(tid: int) -> int:
    """Return the process that a task belongs to."""
    return _field(tid, b"Tgid:") or tid


def has_ended(tid: int) -> bool:
    """Whether a task is gone, be it that its parent has not asked for it yet."""
    state = _file(tid, "stat").rpartition(b")")[2].split()[:1]
    return not state or state[0] in (b"Z", b"X")


def parent(tid: int) -> int:
    """Return the process whose child a task is, 0: it is gone."""
    return _field(tid, b"PPid:")


def identify(pid: int) -> Identity:
    """Ask /proc who a process is."""
    argv = _file(pid, "cmdline")
    modules: dict[int, bytes] = {}
    for line in _file(pid, "maps").splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].startswith(b"/"):
            # The lowest mapping is the first: /proc lists them by address.
            start = int(words[0].split(b"-")[0], 16) - int(words[2], 16)
            if words[5] not in modules.values():
                modules[start] = words[5]
    exe = _link(pid, "exe")
    for start in [start for start, name in modules.items() if name == exe]:
        if elf.is_fixed(os.fsdecode(exe)):
            modules[0] = modules.pop(start)
    return Identity(
        ppid=parent(pid),
        exe=exe,
        cwd=_link(pid, "cwd"),
        argv=argv.removesuffix(b"\0").split(b"\0") if argv else [],
        modules=modules,
    )


def of_exec(path: bytes, argv: list[bytes], cwd: bytes) -> Identity:
    """Guess what a process became that exec'ed `path` and is gone."""
    for _ in range(elf.MAX_SCRIPTS):
        try:
            program = elf.inspect(os.fsdecode(path))
        except OSError:
            break
        if program.kind != "script" or not program.interpreter:
            break
        interpreter = os.fsencode(program.interpreter)
        path, argv = interpreter, [interpreter, path, *argv[1:]]
    exe = os.path.realpath(path)
    modules = {0: exe} if elf.is_fixed(os.fsdecode(exe)) else {}
    return Identity(exe=exe, cwd=cwd, argv=argv, modules=modules)


@dataclass(frozen=True)
class Call:
    """A system call that a task is in."""

    nr: int
    args: tuple[int, ...]
    site: int


def call(tid: int) -> Call | None:
    """Return the call that a task waits in; None: it is in none, or cannot be looked at."""
    words = _file(tid, "syscall").split()
    if len(words) != 9:  # "running", or gone
        return None
    return Call(int(words[0]), tuple(int(word, 16) for word in words[1:7]), int(words[8], 16))


def cpu_ns(pid: int) -> tuple[int, int]:
    """Return the user and system time of a process and the children that it waited for; 0: gone."""
    words = _file(pid, "stat").rpartition(b")")[2].split()
    if len(words) < 15:
        return 0, 0
    user, system, child_user, child_system = (int(word) for word in words[11:15])
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return (user + child_user) * tick_ns, (system + child_system) * tick_ns


def own_cpu_ns(pid: int) -> tuple[int, int] | None:
    """Return the user and system time of a process alone, until somebody has waited for it."""
    # clockid_t of another process: linux/posix-timers.h. No privileges are needed.
    ticks, user, run = ((~pid << 3) | which for which in (0, 1, 2))
    try:
        return adjusted(*(time.clock_gettime_ns(clock) for clock in (run, ticks, user)))
    except OSError:
        return None


def adjusted(run_ns: int, ticks_ns: int, user_ns: int) -> tuple[int, int]:
    """Divide time on a processor by what ticks found: as the kernel does for getrusage(2)."""
    user = run_ns * user_ns // ticks_ns if ticks_ns else run_ns
    return user, run_ns - user


def threads(pid: int) -> list[int]:
    """Return the tasks of a process; none: it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants, ancestors first; without us and ours."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(int(name)), []).append(int(name))
    found = [pid]
    own = os.getpid()
    for member in found:
        found += [child for child in children.get(member, []) if child != own]
    return found
