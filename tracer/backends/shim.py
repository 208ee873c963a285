# SPDX-License-Identifier: MIT
"""Records a program with libcosy.so in its tracing mode.

docs/architecture.md, "How a process gets its orders", is the contract with shim/.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tracer import descriptors, elf, native
from tracer.run import Ended, find_program, run

if TYPE_CHECKING:
    from tracer.dataset import Dataset

NAME = "shim"
CLOCK = "tsc, CLOCK_MONOTONIC"
SHM = Path("/dev/shm")
SHM_ENOUGH_BYTES = 1 << 31
_SEPARATORS = set(": ;\n")


class ShimError(Exception):
    """Nothing can be recorded here; the message says what to do."""


def _raw_parent() -> str | None:
    """Return where raw files go: $TMPDIR if set, else memory if it is large, else /tmp."""
    if os.environ.get("TMPDIR"):
        return None
    try:
        free = os.statvfs(SHM)
        if os.access(SHM, os.W_OK) and free.f_bavail * free.f_frsize >= SHM_ENOUGH_BYTES:
            return str(SHM)
    except OSError:
        pass
    return None


class Recorder:
    """One recorded run; as a context manager it removes its raw files at the end."""

    def __init__(self, command: Sequence[str], env: Mapping[bytes, bytes]) -> None:
        """Prepare; raises CommandError, NativeFileError or ShimError."""
        self.command = list(command)
        self.program = find_program(self.command[0], env)
        self.native_reason = elf.why_native(self.program)
        """Why nothing will be recorded; None: all is well."""
        self.folder: Path | None = None
        self.broken: list[str] = []
        """After write(): raw files that could not be read, a line each."""
        self._inherited: dict[int, descriptors.Object] = {}
        self._env = dict(env)
        if self.native_reason is None:
            library = native.library()
            try:
                self.folder = Path(tempfile.mkdtemp(prefix="cosy-trace-", dir=_raw_parent()))
            except OSError as error:
                raise ShimError(f"no folder for raw files: {error}: set TMPDIR") from error
            self._env = with_orders(self._env, library, self.folder)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> Ended:
        """Run the program to its end; raises CommandError when it does not start."""
        self._inherited = descriptors.inherited()
        return run(self.program, self.command, self._env)

    def write(self, ended: Ended, path: Path, force: bool = False) -> Dataset:
        """Make the dataset of a run that has ended; raises ShimError, DatasetError or OSError."""
        from tracer.convert import write_dataset
        from tracer.dataset import Dataset, Writer
        from tracer.raw import read_folder

        assert self.folder, "nothing was recorded"
        raw = read_folder(self.folder)
        self.broken = raw.broken
        if not raw.files:
            raise ShimError(
                f"{self.program} could not write to {self.folder}: "
                "set TMPDIR to a folder with room, or lift `ulimit -f`"
            )
        with Writer(path, force) as writer:
            exits = {ended.pid: ended.status}
            write_dataset(raw, writer, self._meta(ended), self._inherited, exits)
        return Dataset(path)

    def _meta(self, ended: Ended) -> dict[str, Any]:
        return {
            "backend": NAME,
            "kernel": os.uname().release,
            "clock": CLOCK,
            "command": [word.encode("utf-8", "replace").decode() for word in self.command],
            "recorded": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "wall_ns": ended.wall_ns,
            "tool_version": _version(),
        }


def _version() -> str:
    try:
        return importlib.metadata.version("cosy")
    except importlib.metadata.PackageNotFoundError:
        return "source tree"


def with_orders(env: Mapping[bytes, bytes], library: Path, folder: Path) -> dict[bytes, bytes]:
    """Return the environment that makes a program record itself; raises ShimError."""
    for path in (library, folder):
        if _SEPARATORS & set(str(path)):
            raise ShimError(f"a path with a space, a colon or a semicolon: {path}: use another")
    orders = f"mode=trace;dir={folder}"
    try:
        cache = native.cache_folder()
        if not _SEPARATORS & set(str(cache)):
            orders += f";cache={cache}"
    except OSError:
        pass  # Without a cache every program start patches again: slower, nothing else.
    preload = env.get(b"LD_PRELOAD", b"")
    first = os.fsencode(library)
    return {
        **env,
        b"LD_PRELOAD": first + b":" + preload if preload else first,
        b"COSY_SHIM": os.fsencode(orders),
    }
