# SPDX-License-Identifier: MIT
"""What runs under cosy-auto measured of themselves: the records that `shim/runs.c` leaves.

`kmod/uapi/cosy_runs.h` is the definition; `docs/cosy-mine.md`, "What runs measured", says what is
in them and what is not.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Final

from tracer import native
from tracer.dataset import path_bytes

MAGIC: Final = b"COSYRUN\x01"
NAMES: Final = ("runs.old", "runs")  # oldest records first
HEAD: Final = struct.Struct("<8sIIQQQQQ20sI")
SUMS: Final = struct.Struct("<14Q8I")
_COMMAND_BYTES: Final = 4096
_EXECUTORS: Final = {0x4: "bpf", 0x8: "module"}
_CRC_END: Final = 12  # what lies behind it is checked


@dataclass(frozen=True, slots=True)
class Run:
    """One process. Times in ns; each as that process measured it."""

    build_id: str  # in hex
    command: int  # `command_key` of its arguments and working directory
    executor: str
    ended_ns: int  # Unix time
    cpu_ns: int  # of the process
    calls: int  # that a compound might have answered, as far as the shim looked at them
    attributes: int  # answered: stat and its like
    xattrs: int  # answered: getxattr and its like
    again: int  # of the answers: the kernel had to do what they saved after all
    declined: int  # calls for which there was a result that could not be used
    fired: int  # compounds
    runs: int  # of the executor
    records: int  # results of these
    run_ns: float  # all runs together
    native: int  # calls for attributes that the kernel answered, and that were timed
    native_ns: float  # mean of these
    native_xattrs: int  # the same for xattrs
    native_xattr_ns: float
    answer_ns: float  # mean of an answer; one of 64 is timed

    @property
    def answers(self) -> int:
        """Calls that never reached the kernel."""
        return self.attributes + self.xattrs

    @property
    def kernel_ns(self) -> float:
        """What the kernel would have taken for a call that was answered, on average, at the mean
        of those of its kind that it did answer in this run."""
        if not self.answers:
            return self.native_ns
        whole = self.attributes * self.native_ns + self.xattrs * self.native_xattr_ns
        return whole / self.answers

    @property
    def saved_ns(self) -> float | None:
        """What the kernel would have taken for the answered calls, without what answering took
        instead. None: what a call takes is not known.

        A few answers for xattrs of which that is not known count as if they had saved nothing.
        """
        if self.attributes and not self.native:
            return None
        native_ns = self.answers * self.kernel_ns - self.again * self.native_ns
        return native_ns - self.answers * self.answer_ns - self.run_ns


def _fnv1a(words: Iterable[bytes]) -> int:
    """The hash of G. Fowler, L. C. Noll and P. Vo, 64 bits."""
    return reduce(
        lambda key, byte: (key ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF,
        b"".join(words),
        0xCBF29CE484222325,
    )


def command_key(argv: Sequence[str], cwd: str | None) -> int:
    """What a record knows the command by: words and folder as in a dataset's processes."""
    words = b"\0".join(map(path_bytes, argv)) + b"\0"
    return _fnv1a([words[:_COMMAND_BYTES].rstrip(b"\0"), b"\0", path_bytes(cwd or "")])


def _run(record: bytes) -> Run | None:
    """A record; None: it is not whole, or of no executor that measures anything."""
    if zlib.crc32(record[_CRC_END:]) != int.from_bytes(record[8:_CRC_END], "little"):
        return None
    head = HEAD.unpack_from(record)
    _, _, executor, ended_ns, cpu_ns, wall_ns, wall_ticks, command, build_id, _ = head
    sums = SUMS.unpack_from(record, HEAD.size)
    calls, attributes, xattrs, again, fired, runs, run_ticks = sums[:7]
    records, natives, native_ticks, xattr_natives, xattr_ticks, timed, timed_ticks = sums[7:14]
    if executor not in _EXECUTORS or not wall_ticks:
        return None
    tick_ns = wall_ns / wall_ticks
    return Run(
        build_id=build_id.hex(),
        command=command,
        executor=_EXECUTORS[executor],
        ended_ns=ended_ns,
        cpu_ns=cpu_ns,
        calls=calls,
        attributes=attributes,
        xattrs=xattrs,
        again=again,
        declined=sum(sums[14:]),
        fired=fired,
        runs=runs,
        records=records,
        run_ns=run_ticks * tick_ns,
        native=natives,
        native_ns=native_ticks * tick_ns / max(natives, 1),
        native_xattrs=xattr_natives,
        native_xattr_ns=xattr_ticks * tick_ns / max(xattr_natives, 1),
        answer_ns=timed_ticks * tick_ns / max(timed, 1),
    )


def parse(data: bytes) -> Iterator[Run]:
    """The records of a file; a full disk may have cut some, the next one is found by its start."""
    size = HEAD.size + SUMS.size
    at = data.find(MAGIC)
    while 0 <= at <= len(data) - size:
        run = _run(data[at : at + size])
        if run:
            yield run
        at = data.find(MAGIC, at + (size if run else 1))


def folder() -> Path:
    """Where `cosy-auto` keeps them."""
    return native.cache_root() / "text"


def load() -> list[Run]:
    """All that is known on this machine, oldest first; what cannot be read counts as none."""
    found: list[Run] = []
    for name in NAMES:
        path = folder() / name
        try:
            # Opening a FIFO would wait for somebody to write.
            found += parse(path.read_bytes()) if path.is_file() else ()
        except OSError:
            continue
    return sorted(found, key=lambda run: run.ended_ns)
