# SPDX-License-Identifier: MIT
"""Watches programs with eBPF, by bcc: as root; static and set-id programs, running ones.

bcc is Debian's python3-bpfcc, which is found from a virtual environment too (the package of that
name in Python's index is something else). Its programs are tracepoint programs, so that any
installed kernel headers will do, were they made for another kernel.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tracer import identity, kept
from tracer.backends import ALL, BackendError
from tracer.events import DONE, NO_RETURN, NR_EXIT, NR_PROCESS, RAW_DIRENTS
from tracer.stream import BUSY, LENGTH, StreamWriter, read_stream
from tracer.syscalls import ArgKind, by_name
from tracer.timeline import RawTrace

NAME = "bcc"
CLOCK = "CLOCK_MONOTONIC"
SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"
HEADERS = Path("/usr/src")
TRACEFS = Path("/sys/kernel/tracing")
TRACEFS_PLACES = (TRACEFS, Path("/sys/kernel/debug/tracing"))
POLL_S = 0.001
MAX_THREADS = 1 << 16
NR_ARGV = 0xFFF5  # words of an exec, between the program and us only
MAX_WORDS, MAX_WORD = 20, 200
# Of a task in the program's table.
WAITING, FOLLOWED, NO_CALL = 0, 2, 0xFFFF
_PAGE = mmap.PAGESIZE
_KINDS = {ArgKind.STAT_OUT: 1, ArgKind.STATX_OUT: 2, ArgKind.DIRENTS_OUT: 3, ArgKind.PTR: 4}
_NR_WORD = (8 + 8 + 80) // 4  # where a record says which call it is, in 32-bit words
_PAYLOAD = 8 + 8 + 96


def _bcc() -> ModuleType:
    """Return the module bcc; raises ImportError."""
    try:
        found = importlib.import_module("bcc")
    except ImportError:
        sys.path.append(SYSTEM_PACKAGES)
        try:
            found = importlib.import_module("bcc")
        finally:
            sys.path.remove(SYSTEM_PACKAGES)
    if not hasattr(found, "BPF"):
        raise ImportError("the installed package bcc is not the BPF Compiler Collection")
    return found


def _has_own_headers() -> bool:
    """Whether bcc finds headers by itself."""
    if os.environ.get("BCC_KERNEL_SOURCE"):
        return True
    return (
        Path(f"/lib/modules/{os.uname().release}/build").exists()
        or Path("/sys/kernel/kheaders.tar.xz").exists()
    )


def _installed_headers() -> tuple[Path, Path] | None:
    """Return the newest pair of header folders, for one architecture and for all."""
    for own in sorted(HEADERS.glob("linux-headers-*-amd64"), reverse=True):
        common = own.with_name(own.name.removesuffix("-amd64") + "-common")
        if common.is_dir():
            return own, common
    return None


def why_not() -> str | None:
    """Return why this backend cannot work here, and what to do; None: it can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        _bcc()
    except ImportError:
        return "python3-bpfcc is missing: apt-get install python3-bpfcc"
    if not _has_own_headers() and not _installed_headers():
        return "kernel headers are missing: apt-get install linux-headers-amd64"
    return None


def _mount_tracefs() -> None:
    """Mount it where nobody did, for good: bcc reads the fields of tracepoints there."""
    if any((place / "events").is_dir() for place in TRACEFS_PLACES):
        return
    command = ["mount", "-t", "tracefs", "tracefs", str(TRACEFS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{' '.join(command)}: {done.stderr.strip()}: use --backend ptrace")


@contextlib.contextmanager
def _headers() -> Iterator[None]:
    """Let bcc find headers: both of Debian's folders in one, as links, if it has none."""
    pair = None if _has_own_headers() else _installed_headers()
    if pair is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="cosy-headers-") as name:
        for folder in (".", "include", "arch", "arch/x86", "arch/x86/include"):
            (Path(name) / folder).mkdir(exist_ok=True)
            for source in pair:
                for path in (source / folder).iterdir():
                    link = Path(name) / folder / path.name
                    nested = os.path.relpath(link, name) in ("include", "arch", "arch/x86",
                                                              "arch/x86/include")  # fmt: skip
                    if not nested and not link.is_symlink():
                        link.symlink_to(path)
        os.environ["BCC_KERNEL_SOURCE"] = name
        try:
            yield
        finally:
            del os.environ["BCC_KERNEL_SOURCE"]


def _definitions(ring_bytes: int) -> list[str]:
    calls = by_name()
    values = {
        "RING_PAGES": ring_bytes // _PAGE,
        "CPUS": os.sysconf("SC_NPROCESSORS_CONF"),
        "MAX_THREADS": MAX_THREADS,
        "MAX_PATH_LEN": kept.MAX_PATH_LEN,
        "MAX_OUT": kept.MAX_DIRENTS,
        "MAX_WORDS": MAX_WORDS,
        "MAX_WORD": MAX_WORD,
        "DONE": DONE,
        "NO_RETURN": NO_RETURN,
        "RAW_DIRENTS": RAW_DIRENTS,
        "NR_PROCESS": NR_PROCESS,
        "EVENT_EXIT": NR_EXIT,
        "NR_ARGV": NR_ARGV,
        "WAITING": WAITING,
        "FOLLOWED": FOLLOWED,
        "NO_CALL": NO_CALL,
        "OUT_STAT": _KINDS[ArgKind.STAT_OUT],
        "OUT_STATX": _KINDS[ArgKind.STATX_OUT],
        "OUT_DIRENTS": _KINDS[ArgKind.DIRENTS_OUT],
        **{f"NR_{n.upper()}": calls[n].nr for n in ("execve", "execveat", "exit", "exit_group")},
    }
    return [f"-D{name}={value}" for name, value in values.items()]


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what bcc's compiler prints; it becomes the list's one member."""
    said: list[str] = []
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            log.seek(0)
            said.append(log.read().decode(errors="replace"))


def _compile(ring_bytes: int) -> Any:
    """Return the loaded programs; raises BackendError."""
    _mount_tracefs()
    text = Path(__file__).with_name("bcc_program.c").read_text()
    bcc = _bcc()
    with _headers(), _quiet() as said:
        try:
            return bcc.BPF(text=text, cflags=["-Wno-everything", *_definitions(ring_bytes)])
        except Exception as error:
            problem = error
    lines = [line for line in said[0].splitlines() if "error" in line.lower()]
    why = lines[0] if lines else f"{problem}"
    if os.environ.get("COSY_DEBUG"):
        why += "\n" + said[0]
    raise BackendError(f"bcc cannot load its programs: {why}: use --backend ptrace")


class _Ring:
    """A BPF ring buffer, taken as a whole: all that is there goes to a stream file at once."""

    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._consumer = mmap.mmap(fd, _PAGE, offset=0)
        self._position = memoryview(self._consumer).cast("Q")
        # The kernel maps the data twice, so that no record is cut at the end.
        self._shared = mmap.mmap(fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
        self._words = memoryview(self._shared).cast("I")
        self._longs = memoryview(self._shared).cast("Q")

    def take(self, writer: StreamWriter, special: Mapping[int, Any]) -> int:
        """Append what there is; records of these calls go to their functions instead."""
        words, mask = self._words, self._size - 1
        begin = at = self._position[0]
        end = self._longs[0]
        while at < end:
            word = (_PAGE + (at & mask)) >> 2
            head = words[word]
            if head & BUSY:
                break
            after = at + (((head & LENGTH) + 15) & ~7)
            handle = special.get(words[word + _NR_WORD] & 0xFFFF)
            if handle:
                self._copy(writer, begin, at)
                first = _PAGE + (at & mask)
                handle(self._shared[first : first + 8 + (head & LENGTH)])
                begin = after
            at = after
        self._copy(writer, begin, at)
        self._position[0] = at
        return at - begin

    def _copy(self, writer: StreamWriter, begin: int, end: int) -> None:
        while begin < end:
            first = begin & (self._size - 1)
            size = min(end - begin, self._size)
            writer.copy(self._shared[_PAGE + first : _PAGE + first + size])
            begin += size


class Bcc:
    """Follows processes and their descendants; a run.Watcher."""

    signal: int | None = None

    def __init__(self, writer: StreamWriter, ring_bytes: int) -> None:
        self._writer = writer
        self._bpf = _compile(ring_bytes)
        self._threads = self._bpf["threads"]
        self._fill()
        self._ring = _Ring(self._bpf["ring"].map_fd, ring_bytes)
        self._argv: dict[int, list[bytes]] = {}
        self._cwd: dict[int, bytes] = {}
        self._exe: dict[int, bytes] = {}
        self._path: bytes = b""
        self._found_in: dict[int, tuple[int, identity.Call]] = {}
        """Tasks that were in a call when they were found: since when that is known, and which."""
        self._ended = threading.Event()
        self._consumer: threading.Thread | None = None
        self._special = {NR_PROCESS: self._process, NR_ARGV: self._words}

    def _fill(self) -> None:
        table = self._bpf["kept"]
        for nr, what in kept.by_call().items():
            places = [0 if at is None else at + 1 for at in (what.path, what.path2, what.out)]
            kind = _KINDS[what.out_kind] if what.out_kind else 0
            packed = places[0] | places[1] << 4 | places[2] << 8 | kind << 12
            table[table.Key(nr)] = table.Leaf(packed)

    # --- whom to follow ----------------------------------------------------------

    def hold(self, pid: int) -> None:
        """Follow a process from its next exec on."""
        own = os.getpid()
        self._cwd[own] = os.getcwdb()
        self._add(pid, WAITING, own)
        self._consume()

    def attach(self, pid: int) -> None:
        """Follow a running process with all its threads and descendants."""
        known: set[int] = set()
        while new := [task for task in self._tasks(pid) if task[0] not in known]:
            for tid, member in new:
                known.add(tid)
                if tid == member:
                    self._announce(member, time.monotonic_ns(), identity.identify(member))
                if call := identity.call(tid):
                    self._found_in[tid] = time.monotonic_ns(), call
                self._add(tid, FOLLOWED, identity.parent(member))
        self._consume()

    def take_over(self, tid: int, pid: int) -> None:
        """Follow a task that another watcher has stopped outside any call, and announced."""
        who = identity.identify(pid)
        self._cwd[pid], self._exe[pid], self._argv[pid] = who.cwd, who.exe, who.argv
        self._add(tid, FOLLOWED, who.ppid)
        if self._consumer is None:
            self._consume()

    def _tasks(self, pid: int) -> Iterator[tuple[int, int]]:
        """Yield the tasks of a tree that are not followed, with their processes.

        Tasks that a followed one has made are followed from their start: a tree that makes new ones
        faster than anybody can look must not keep us looking.
        """
        for member in identity.tree(pid):
            for tid in identity.threads(member):
                if self._threads.Key(tid) not in self._threads:
                    yield tid, member

    def _add(self, tid: int, state: int, ppid: int) -> None:
        leaf = self._threads.Leaf()
        leaf.state, leaf.ppid, leaf.nr = state, ppid, NO_CALL
        self._threads[self._threads.Key(tid)] = leaf

    def stop(self) -> None:
        """Look no longer."""
        if self._consumer is None:
            return
        for probe in ("sys_enter", "sys_exit"):
            self._bpf.detach_raw_tracepoint(probe)
        self._ended.set()
        self._consumer.join()
        self._consumer = None
        self._write_unended()
        lost = sum(leaf.value for leaf in self._bpf["lost"].values())
        if lost:
            self._writer.lost(0, time.monotonic_ns(), lost)
        self._writer.flush()
        self._bpf.cleanup()

    def _write_unended(self) -> None:
        """Write the calls that still go on, up to now: their records would come at their end."""
        now_ns = time.monotonic_ns()
        for key, leaf in self._threads.items():
            tid = int(key.value)
            if leaf.state != FOLLOWED:
                continue
            start_ns, call = int(leaf.start_ns), identity.Call(leaf.nr, (*leaf.args,), leaf.site)
            if not start_ns and tid in self._found_in and identity.call(tid):
                # It has made none since it was found, so it is in that one still.
                start_ns, call = self._found_in[tid]
            elif leaf.nr == NO_CALL:
                continue
            self._writer.event(
                identity.tgid(tid), tid, call.nr, start_ns, now_ns - start_ns, 0, call.args,
                site=call.site, flags=DONE | NO_RETURN,
            )  # fmt: skip

    # --- what they do -------------------------------------------------------------

    def changed(self, pid: int, status: int) -> int | None:  # noqa: ARG002
        """Nothing here comes by wait(2)."""
        return status

    def signalled(self) -> None:
        """No signal is ours."""

    def _consume(self) -> None:
        self._consumer = threading.Thread(target=self._run, daemon=True)
        self._consumer.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            if not self._ring.take(self._writer, self._special):
                self._writer.flush()
                time.sleep(POLL_S)
        self._ring.take(self._writer, self._special)

    def _words(self, record: bytes) -> None:
        (tid,) = struct.unpack_from("<I", record, 12)
        words = record[_PAYLOAD:].split(b"\0")[:-1]
        self._argv[tid] = words

    def _process(self, record: bytes) -> None:
        pid, tid = struct.unpack_from("<II", record, 8)
        t_ns, ppid, by_exec = (struct.unpack_from("<Q", record, at)[0] for at in (16, 40, 48))
        path_len = struct.unpack_from("<H", record, 104)[0]
        path = record[_PAYLOAD : _PAYLOAD + path_len]
        # By now it may be another program, or gone: what /proc says must fit what we know.
        who = identity.identify(pid)
        if by_exec:
            cwd = self._cwd.get(pid, self._cwd.get(ppid, b""))
            known = identity.of_exec(os.path.join(cwd, path), self._argv.pop(tid, []), cwd)
        elif ppid in self._exe:
            known = identity.Identity(
                exe=self._exe[ppid], cwd=self._cwd[ppid], argv=self._argv.get(ppid, [])
            )
        else:
            known = who
        if who.exe != known.exe:
            who = known
        who.ppid = ppid or who.ppid
        self._announce(pid, t_ns, who)

    def _announce(self, pid: int, t_ns: int, who: identity.Identity) -> None:
        self._cwd[pid], self._exe[pid], self._argv[pid] = who.cwd, who.exe, who.argv
        self._writer.process(pid, t_ns, who.ppid, who.exe, who.cwd, who.argv)
        for address, name in who.modules.items():
            self._writer.module(pid, t_ns, address, name)


class Session:
    """One recorded run, or a look at a process that runs already."""

    name = NAME
    clock = CLOCK
    restarts = ALL

    def __init__(self, folder: Path, env: Mapping[bytes, bytes], ring_bytes: int) -> None:
        """Compile and load; raises BackendError."""
        lacks = why_not()
        if lacks:
            raise BackendError(f"backend bcc: {lacks}")
        self._stream = folder / "bcc.stream"
        self._writer = StreamWriter(self._stream)
        self.env = dict(env)
        self.watcher = Bcc(self._writer, ring_bytes)

    def attach(self, pid: int) -> None:
        """Begin to follow a process; raises BackendError."""
        if identity.has_ended(pid):
            raise BackendError(f"it has ended: {pid}: see `ps`")
        self.watcher.attach(pid)

    def close(self) -> None:
        """The program has ended, or enough was seen."""
        self.watcher.stop()
        self._writer.close()

    def raw(self) -> RawTrace:
        """Return what was recorded."""
        return read_stream(self._stream)
