# SPDX-License-Identifier: MIT
"""One recording, whatever the backend: from a command to a dataset."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tracer import backends, descriptors, identity, rawfolder
from tracer.backends import BackendError
from tracer.run import Ended, Watcher, find_program, run, watch

if TYPE_CHECKING:
    from tracer.dataset import Dataset
    from tracer.filters import Filter
    from tracer.taskstats import Listener
    from tracer.timeline import End, RawTrace


class Session(Protocol):
    """What a backend does for one recording."""

    name: str
    clock: str
    restarts: str
    env: dict[bytes, bytes]

    @property
    def watcher(self) -> Watcher | None:
        """Who looks on while the program runs."""

    def close(self) -> None:
        """The program has ended, or enough was seen."""

    def raw(self) -> RawTrace:
        """Return what was recorded."""


@dataclass(frozen=True)
class Options:
    """How to record."""

    backend: str = backends.AUTO
    ring_bytes: int | None = None
    """Size of bcc's ring buffer, a power of two; None: backends.RING_BYTES."""
    block: bool = False
    """Shim: programs wait for room instead of losing events."""
    duration_s: float | None = None


def _session(name: str, folder: Path, env: Mapping[bytes, bytes], options: Options) -> Session:
    if name == backends.SHIM:
        from tracer.backends import shim

        return shim.Session(folder, env, options.block)
    if name == backends.PTRACE:
        from tracer.backends import ptrace

        return ptrace.Session(folder, env)
    from tracer.backends import bcc

    return bcc.Session(folder, env, options.ring_bytes or backends.RING_BYTES)


class Recorder:
    """One recorded run; as a context manager it removes its raw files at the end."""

    def __init__(
        self, command: Sequence[str], env: Mapping[bytes, bytes], options: Options | None = None
    ) -> None:
        """Prepare; raises CommandError, NativeFileError or BackendError."""
        self.command = list(command)
        self.options = options or Options()
        self.program = find_program(self.command[0], env)
        self.choice = backends.choose(self.program, self.options.backend)
        self.folder: Path | None = None
        self.broken: list[str] = []
        """After write(): raw files that could not be read, a line each."""
        self.keep_raw = False
        self._attached = False
        self._lock: int | None = None
        self._listener: Listener | None = None
        self._session: Session | None = None
        self._inherited: dict[int, descriptors.Object] = {}
        self._env = dict(env)
        if self.choice.name:
            self._prepare(self.choice.name)

    @classmethod
    def attached(cls, pid: int, options: Options) -> Recorder:
        """Return a recording of a process that runs already; raises BackendError."""
        self = cls.__new__(cls)
        who = identity.identify(pid)
        if not who.argv and not who.exe:
            raise BackendError(_why_nobody(pid))
        self.command = [os.fsdecode(word) for word in who.argv] or [os.fsdecode(who.exe)]
        self.options = options
        self.program = os.fsdecode(who.exe)
        self.choice = backends.choose_attached(options.backend)
        self.folder = None
        self.broken = []
        self.keep_raw = False
        self._attached = True
        self._lock = None
        self._listener = None
        self._session = None
        self._env = {}
        self._inherited = descriptors.of_process(pid)
        assert self.choice.name
        self._prepare(self.choice.name)
        return self

    def _prepare(self, name: str) -> None:
        try:
            self.folder = rawfolder.make()
        except OSError as error:
            raise BackendError(f"no folder for raw files: {error}: set TMPDIR") from error
        try:
            self._session = _session(name, self.folder, self._env, self.options)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def useless(self) -> str | None:
        """Return which option does nothing under the backend that was chosen, None: none."""
        name = self.choice.name or "no backend"
        if self.options.block and name != backends.SHIM:
            return f"--block is for the shim, and this is recorded by {name}: leave it out"
        if self.options.ring_bytes and name != backends.BCC:
            return f"--ring-size is for bcc, and this is recorded by {name}: leave it out"
        return None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self.folder and not self.keep_raw:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> Ended:
        """Run the program to its end; raises CommandError when it does not start."""
        self._inherited = descriptors.inherited()
        if self._session is None:
            return run(self.program, self.command, self._env)
        self._note()
        self._listener = _listener()
        try:
            return run(
                self.program,
                self.command,
                self._session.env,
                self._session.watcher,
                self.options.duration_s,
            )
        finally:
            self._close()

    def _close(self) -> None:
        assert self._session
        self._session.close()
        if self._listener:
            self._listener.close()

    def look_at(self, pid: int) -> Ended:
        """Watch a running process until it ends, somebody says stop, or the time is up."""
        assert self._session
        self._note()
        session: Any = self._session
        self._listener = _listener()
        try:
            return watch(pid, session.watcher, session.attach, self.options.duration_s)
        finally:
            self._close()

    def write(
        self, ended: Ended, path: Path, force: bool = False, kept: Filter | None = None
    ) -> Dataset:
        """Make the dataset of a run; raises BackendError, DatasetError or OSError."""
        from tracer.insights import crossing_ns
        from tracer.timeline import End

        assert self.folder, "nothing was recorded"
        assert self._session
        raw = self._session.raw()
        if not raw.threads:
            raise BackendError(self._why_nothing(ended.status))
        meta = {
            **self._meta(),
            "wall_ns": ended.wall_ns,
            "user_ns": ended.user_ns,
            "system_ns": ended.system_ns,
            "crossing_ns": crossing_ns(),
        }
        ends = {ended.pid: End(ended.status, ended.own_ns, ended.at_ns)} if ended.at_ns else {}
        if self._listener:
            raw.learn(self._listener.ends, self._listener.threads)
        self.broken = raw.broken
        return _write(raw, path, force, meta, self._inherited, ends, kept)

    def _why_nothing(self, status: int | None) -> str:
        if self._attached:
            return "it ended, or made no call, while it was looked at"
        if status is not None and os.WIFSIGNALED(status):
            return f"a signal ended it before its first call: {signal.strsignal(status & 0x7F)}"
        return (
            f"{self.program} could not write to {self.folder}: "
            "set TMPDIR to a folder with room, or lift `ulimit -f`"
        )

    def _meta(self) -> dict[str, Any]:
        assert self._session
        return {
            "backend": self._session.name,
            "backend_why": self.choice.why,
            "kernel": os.uname().release,
            "clock": self._session.clock,
            "restarts": self._session.restarts,
            "command": [word.encode("utf-8", "replace").decode() for word in self.command],
            "recorded": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "tool_version": version(),
        }

    def _note(self) -> None:
        """Leave in the folder what recover() needs, should we be killed."""
        assert self.folder
        inherited = {
            fd: {**asdict(what), "path": what.path.hex() if what.path else None}
            for fd, what in self._inherited.items()
        }
        note = {"meta": self._meta(), "inherited": inherited}
        self._lock = rawfolder.note(self.folder, json.dumps(note))


def _listener() -> Listener | None:
    from tracer import taskstats

    return taskstats.listener()


def _why_nobody(pid: int) -> str:
    """Why a number names no process whose calls could be seen."""
    if not os.path.exists(f"/proc/{pid}"):
        return f"no such process: {pid}: see `ps`"
    if not all(identity.has_ended(tid) for tid in identity.threads(pid)):
        if identity.has_ended(pid):
            return f"its first thread has ended: {pid}: the others cannot be looked at alone"
        return f"no program: {pid}: threads of the kernel make no calls"
    return f"it has ended: {pid}: its parent has not asked how, see `ps`"


def recover(folder: Path, path: Path, force: bool = False, kept: Filter | None = None) -> Dataset:
    """Make a dataset of what a killed cosy-trace left behind; raises BackendError or OSError."""
    try:
        note = json.loads((folder / rawfolder.NOTE).read_text())
        meta = {**note["meta"], "wall_ns": 0, "user_ns": 0, "system_ns": 0}
        inherited = {
            int(fd): descriptors.Object(
                **{**what, "path": bytes.fromhex(what["path"]) if what["path"] else None}
            )
            for fd, what in note["inherited"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"no recording: {folder}: expected a folder that cosy-trace left behind"
        ) from error
    from tracer.backends import shim
    from tracer.stream import read_stream
    from tracer.timeline import merge

    raw: RawTrace = shim.read(folder)
    for name in ("ptrace", "bcc"):
        if (folder / f"{name}.stream").exists():
            raw = merge(raw, read_stream(folder / f"{name}.stream"))
    if not raw.threads:
        raise BackendError(f"nothing was recorded: {folder}: remove it")
    first = min(thread.start_ns for thread in raw.threads)
    meta["wall_ns"] = max(thread.now_ns for thread in raw.threads) - first
    return _write(raw, path, force, meta, inherited, {}, kept)


def _write(
    raw: RawTrace,
    path: Path,
    force: bool,
    meta: Mapping[str, Any],
    inherited: Mapping[int, descriptors.Object],
    ends: Mapping[int, End],
    kept: Filter | None,
) -> Dataset:
    from tracer.convert import write_dataset
    from tracer.dataset import Dataset, Writer
    from tracer.progress import Progress

    with Writer(path, force) as writer, Progress("events written") as progress:
        write_dataset(raw, writer, meta, inherited, ends, kept, progress)
    return Dataset(path)


def version() -> str:
    """Return what this program is, for meta.json."""
    try:
        return importlib.metadata.version("cosy")
    except importlib.metadata.PackageNotFoundError:
        return "source tree"
