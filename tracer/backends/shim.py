# SPDX-License-Identifier: MIT
"""Records a program with libcosy.so in its tracing mode, and children that it cannot follow.

docs/architecture.md, "How a process gets its orders", is the contract with shim/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tracer import elf, native
from tracer.backends import AFTER_HANDLERS, BackendError
from tracer.backends.adopt import Adopter
from tracer.drain import Drain
from tracer.events import NR_PROCESS
from tracer.raw import read_folder
from tracer.timeline import RawTrace, merge

NAME = "shim"
CLOCK = "tsc, CLOCK_MONOTONIC"
_SEPARATORS = set(": ;\n")


class Session:
    """One recorded run."""

    name = NAME
    clock = CLOCK
    restarts = AFTER_HANDLERS

    def __init__(self, folder: Path, env: Mapping[bytes, bytes], block: bool = False) -> None:
        """Prepare; raises NativeFileError or BackendError."""
        self._folder = folder
        self.env = with_orders(env, native.library(), folder, block)
        self.watcher = Adopter(folder)
        self._drain = Drain(folder)

    def close(self) -> None:
        """The program has ended."""
        self.watcher.close()
        self._drain.close()

    def raw(self) -> RawTrace:
        """Return what was recorded."""
        return read(self._folder)


def read(folder: Path) -> RawTrace:
    """Return what a folder holds, adopted children included."""
    stopped = folder / Adopter.STOPPED
    end_ns = stopped.read_text() if stopped.exists() else ""
    raw = read_folder(folder, int(end_ns) if end_ns else None)
    clock = raw.clock
    adopted: set[bytes] = set()
    by: list[str] = []
    for name, stream in Adopter.STREAMS.items():
        if (folder / stream).exists():
            from tracer.stream import read_stream

            others = read_stream(folder / stream, clock)
            raw = merge(raw, others)
            adopted |= set(others.rare.of(NR_PROCESS).texts())
            by += [name] if others.n_calls else []
    raw.adopted = {exe: _why(exe) for exe in sorted(adopted)}
    raw.adopted_by = by
    return raw


def _why(exe: bytes) -> str:
    return elf.why_native(os.fsdecode(exe)) or "was started by such a program"


def with_orders(
    env: Mapping[bytes, bytes], library: Path, folder: Path, block: bool = False
) -> dict[bytes, bytes]:
    """Return the environment that makes a program record itself; raises BackendError.

    `block`: where there is no room for events, programs wait for it.
    """
    for path in (library, folder):
        if _SEPARATORS & set(str(path)):
            raise BackendError(f"a path with a space, a colon or a semicolon: {path}: use another")
    orders = f"mode=trace;dir={folder}"
    if block:
        orders += ";block=1"
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
