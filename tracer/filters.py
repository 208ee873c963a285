# SPDX-License-Identifier: MIT
"""Which calls of a trace are kept: `-e trace=SET` and `-P PATH`, as strace has them.

What a descriptor means is worked out before anything is left out, so that a filtered trace still
says which file each `read` read.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracer.dataset import path_text
from tracer.events import Chunk, Mask
from tracer.syscalls import ArgKind, Syscall, SyscallClass, by_name

_NETWORK = {
    "socket",
    "connect",
    "accept",
    "accept4",
    "bind",
    "listen",
    "shutdown",
    "socketpair",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
}
# Which strace takes without a % as well.
_OLD_CLASSES = ("file", "desc", "process", "network", "memory", "signal")
_MEMORY = {
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "brk",
    "madvise",
    "msync",
    "mincore",
    "mlock",
    "munlock",
    "mlock2",
    "mlockall",
    "munlockall",
    "membarrier",
    "pkey_mprotect",
}


class FilterError(Exception):
    """A filter makes no sense; the message says what would."""


def _in_class(call: Syscall, name: str) -> bool:
    kinds = set(call.args)
    tests = {
        "file": bool(kinds & {ArgKind.PATH, ArgKind.PATH2}),
        "desc": bool(kinds & {ArgKind.FD, ArgKind.DIRFD}) or call.returns_fd,
        "process": call.cls == SyscallClass.PROCESS or call.name in ("wait4", "waitid"),
        "network": call.name in _NETWORK,
        "memory": call.name in _MEMORY,
        "signal": ArgKind.SIG in kinds or call.name.startswith("rt_sig"),
        "stat": bool(kinds & {ArgKind.STAT_OUT, ArgKind.STATX_OUT}),
        **{str(cls): call.cls == cls for cls in SyscallClass},
    }
    if name not in tests:
        raise FilterError(f"no class of calls: %{name}: one of {' '.join(f'%{t}' for t in tests)}")
    return tests[name]


def parse_calls(expression: str) -> frozenset[int]:
    """Return the call numbers of `[trace=][!]NAME|%CLASS|all|none[,...]`; raises FilterError."""
    kind, _, words = expression.rpartition("=")
    if kind not in ("", "trace", "t"):
        raise FilterError(f"cannot filter by {kind}: -e trace=CALL,... is all there is")
    negated = words.startswith("!")
    chosen: set[int] = set()
    for word in words.removeprefix("!").split(","):
        if word.startswith("%"):
            chosen |= {call.nr for call in by_name().values() if _in_class(call, word[1:])}
        elif word == "all":
            chosen |= {call.nr for call in by_name().values()}
        elif word in by_name():
            chosen.add(by_name()[word].nr)
        elif word in _OLD_CLASSES:
            chosen |= {call.nr for call in by_name().values() if _in_class(call, word)}
        elif word != "none":
            raise FilterError(f"no system call: {word}: names as in syscalls(2), or %file, %desc")
    every = {call.nr for call in by_name().values()}
    return frozenset(every - chosen if negated else chosen)


@dataclass(frozen=True)
class Filter:
    """What to keep; an empty one keeps all."""

    calls: frozenset[int] | None = None
    paths: frozenset[bytes] = frozenset()
    """Absolute: calls that name one of these, or have it open."""

    def describe(self) -> dict[str, list[str] | None]:
        """Return what meta.json says of it; no calls: all of them."""
        from tracer.syscalls import name_of

        calls = None if self.calls is None else sorted(name_of(nr) for nr in self.calls)
        return {"calls": calls, "paths": sorted(path_text(path) for path in self.paths)}

    def mask(
        self, chunk: Chunk, object_ids: npt.NDArray[np.int32], paths: Sequence[bytes | None]
    ) -> Mask:
        """Return which events of a chunk are kept; `paths` are those of the objects."""
        keep = np.ones(len(chunk), np.bool_)
        if self.calls is not None:
            keep &= np.isin(chunk.nr, sorted(self.calls))
        if not self.paths:
            return keep
        used, which = np.unique(object_ids, return_inverse=True)
        open_here = [i >= 0 and paths[i] in self.paths for i in used.tolist()]
        touches = np.array(open_here, np.bool_)[which]
        rows = np.flatnonzero(keep & ~touches & (chunk.path_len > 0))
        for row in rows.tolist():
            base = paths[object_ids[row]] if object_ids[row] >= 0 else None
            touches[row] = bool(self.paths & {_joined(base, chunk.text(row)), *_second(chunk, row)})
        keep &= touches
        return keep


def _joined(base: bytes | None, path: bytes) -> bytes:
    return posixpath.normpath(os.path.join(base or b"", path))


def _second(chunk: Chunk, row: int) -> list[bytes]:
    text = chunk.text(row, True)
    return [posixpath.normpath(text)] if text.startswith(b"/") else []


def make(expressions: Sequence[str], paths: Sequence[str]) -> Filter | None:
    """Return a filter of command line words, None: keep all; raises FilterError."""
    if not expressions and not paths:
        return None
    calls: frozenset[int] | None = None
    for expression in expressions:
        found = parse_calls(expression)
        calls = found if calls is None else calls | found
    return Filter(calls, frozenset(os.fsencode(os.path.abspath(path)) for path in paths))
