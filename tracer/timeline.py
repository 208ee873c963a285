# SPDX-License-Identifier: MIT
"""A whole trace: the events of all threads, merged by time as they are read.

Events come in blocks, each from one place of one source. Blocks are read in the order of their
earliest event, so that never more is in memory than is asked for at a time and what a few blocks
reach beyond it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.events import (
    ALL_NRS,
    MAX_TIME,
    NR_PROCESS,
    Chunk,
    Ints,
    Mask,
    Words,
    by_time,
    join,
    merged,
)
from tracer.syscalls import by_name

FORKS = ("fork", "vfork", "clone", "clone3")
EXECS = ("execve", "execveat")
EXITS = ("exit", "exit_group")
BLOCK_EVENTS = 1536  # in a full one of the shim's
LATEST = int(np.iinfo(np.int64).max)


@dataclass
class Thread:
    """One thread within one program image."""

    pid: int
    tid: int
    ppid: int
    start_tsc: int
    start_ns: int
    now_tsc: int
    """Of a later moment, for the clock's rate."""
    now_ns: int
    lost_events: int = 0
    first_tsc: int = MAX_TIME
    """Of its first event, where that may be before start_tsc."""


@dataclass(frozen=True)
class End:
    """How a process ended, where somebody saw it; None: not known."""

    status: int | None = None
    """As wait(2) tells it."""
    cpu_ns: tuple[int, int] | None = None
    """User and system time of all its threads, none of its children."""
    at_ns: int | None = None
    """When that was noticed, CLOCK_MONOTONIC."""

    def filled(self, other: End) -> End:
        """Return the same with what `other` knows besides."""
        return End(
            other.status if self.status is None else self.status,
            self.cpu_ns or other.cpu_ns,
            self.at_ns or other.at_ns,
        )


def joined(first: Mapping[int, End], second: Mapping[int, End]) -> dict[int, End]:
    """Join what is known of processes; of the same one, what is in `first` comes first."""
    found = dict(second)
    for pid, end in first.items():
        found[pid] = end.filled(found.get(pid, End()))
    return found


@cache
def rare_calls() -> Mask:
    """By call number: what tells about processes."""
    rare = np.zeros(ALL_NRS, np.bool_)
    rare[[by_name()[name].nr for name in (*FORKS, *EXECS, *EXITS)]] = True
    rare[NR_PROCESS:] = True
    return rare


@cache
def system_calls() -> Mask:
    """By call number: what is none of the events that are no system calls."""
    return np.arange(ALL_NRS) < NR_PROCESS


class Source(ABC):
    """Where events come from; they lie in blocks that can be read again."""

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        """Whose events these are; `Chunk.file` of what load() returns is a position in here."""
        self.first = np.empty(0, np.int64)
        """By block: no event in it or in a later one is earlier."""
        self.sizes = np.empty(0, np.int64)
        """By block: how many events it may have."""
        self.n_calls = 0
        self.rare = join([])
        """The events that tell about processes, and all that are no system calls."""
        self.end_tsc = MAX_TIME
        """Later events are left out; to be set before scan()."""

    @abstractmethod
    def scan(self) -> None:
        """Look at every event once: count, and find `first` and `rare`."""

    @abstractmethod
    def load(self, begin: int, end: int) -> Chunk:
        """Return the system calls of these blocks."""

    def _noted(self, n_calls: int, low: Ints, sizes: npt.NDArray[Any], rare: list[Chunk]) -> None:
        """Take what scan() has found; `low`: the earliest event of each block."""
        self.n_calls = n_calls
        self.first = np.minimum.accumulate(low[::-1])[::-1]
        self.sizes = np.asarray(sizes, np.int64)
        self.rare = join(rare)


@dataclass
class RawTrace:
    """All sources of a recording, and the order of their events."""

    sources: Sequence[Source]
    broken: list[str]
    """Files that could not be read, a line each."""
    lost_elsewhere: int = 0
    """Events that were lost before they came into a file."""
    ends: dict[int, End] = field(default_factory=dict)
    """How processes ended, where a backend saw it."""
    thread_ends: dict[tuple[int, int], int] = field(default_factory=dict)
    """When threads ended, by process and thread, in ticks; where a backend saw it."""
    noticed: dict[tuple[int, int], int] = field(default_factory=dict)
    """The same, when somebody else came to know of it: some time later."""
    adopted: dict[bytes, str] = field(default_factory=dict)
    """Programs that other backends had to record, and why."""
    adopted_by: list[str] = field(default_factory=list)
    """Those backends."""

    def learn(self, ends: Mapping[int, End], threads: Mapping[tuple[int, int], int]) -> None:
        """Take what somebody else saw of ends; those of threads in ns of CLOCK_MONOTONIC."""
        self.ends = joined(self.ends, ends)
        ours = {(thread.pid, thread.tid) for thread in self.threads}
        self.noticed = {task: self.to_ticks(ns) for task, ns in threads.items() if task in ours}

    @cached_property
    def threads(self) -> list[Thread]:
        """All threads by the time of their start; what `Chunk.file` means."""
        every = [thread for source in self.sources for thread in source.threads]
        return sorted(every, key=lambda thread: thread.start_tsc)

    @cached_property
    def pids(self) -> npt.NDArray[np.int32]:
        """The process of each thread."""
        return np.array([thread.pid for thread in self.threads], np.int32)

    @cached_property
    def tids(self) -> npt.NDArray[np.int32]:
        """The number of each thread."""
        return np.array([thread.tid for thread in self.threads], np.int32)

    @cached_property
    def _numbers(self) -> list[npt.NDArray[np.int32]]:
        """By source: positions of its threads in `threads`."""
        at = {id(thread): index for index, thread in enumerate(self.threads)}
        return [np.array([at[id(t)] for t in s.threads], np.int32) for s in self.sources]

    def _renumbered(self, index: int, chunk: Chunk) -> Chunk:
        numbers = self._numbers[index]
        thread = np.full(len(chunk), numbers[0]) if len(numbers) == 1 else numbers[chunk.thread]
        return Chunk(chunk.words, thread, chunk.at, chunk.heap)

    @property
    def n_calls(self) -> int:
        """How many system calls were recorded."""
        return sum(source.n_calls for source in self.sources)

    @cached_property
    def rare(self) -> Chunk:
        """The events that tell about processes, and all that are no system calls, by time."""
        parts = [self._renumbered(i, source.rare) for i, source in enumerate(self.sources)]
        return by_time(join([part for part in parts if len(part)]))

    @property
    def lost_events(self) -> int:
        """How many events are known not to be here."""
        return sum(thread.lost_events for thread in self.threads) + self.lost_elsewhere

    @cached_property
    def clock(self) -> tuple[int, int, float]:
        """A TSC reading, CLOCK_MONOTONIC at that moment, and ns per tick.

        One line through the two readings that lie farthest apart serves all
        files: the TSC is the same on every CPU of the machines we run on.
        """
        if not self.threads:
            return 0, 0, 1.0
        first = min(self.threads, key=lambda t: t.start_tsc)
        last = max(self.threads, key=lambda t: max(t.now_tsc, t.start_tsc))
        tsc, ns = max((last.now_tsc, last.now_ns), (last.start_tsc, last.start_ns))
        if tsc > first.start_tsc and ns > first.start_ns:
            rate = (ns - first.start_ns) / (tsc - first.start_tsc)
        else:
            rate = 1000 / _cpu_mhz()
        return first.start_tsc, first.start_ns, rate

    def to_ns(self, tsc: Words) -> Ints:
        """Convert time stamps to ns of CLOCK_MONOTONIC."""
        zero, ns, rate = self.clock
        ticks = tsc.astype(np.int64) - zero
        ticked: Ints = np.rint(ticks * rate).astype(np.int64)
        return ticked + ns

    def to_ticks(self, ns: int) -> int:
        """Convert a moment of CLOCK_MONOTONIC to a time stamp."""
        tick, zero_ns, rate = self.clock
        return tick + round((ns - zero_ns) / rate)

    def ticks_to_ns(self, ticks: Words) -> Ints:
        """Convert a number of ticks to ns."""
        ns: Ints = np.rint(ticks * self.clock[2]).astype(np.int64)
        return ns

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield all system calls in the order of time, about `size` at a time."""
        at = [0] * len(self.sources)
        owner = np.repeat(np.arange(len(self.sources)), [len(s.first) for s in self.sources])
        first = np.concatenate([np.empty(0, np.int64), *(s.first for s in self.sources)])
        order = np.argsort(first, kind="stable")
        owner, first = owner[order], np.append(first[order], LATEST)
        sizes = np.concatenate([np.empty(0, np.int64), *(s.sizes for s in self.sources)])[order]
        bounds = np.flatnonzero(np.diff(np.cumsum(sizes) // size, append=-1))
        waiting: list[Chunk] = []
        done = 0
        for end in (bounds + 1).tolist():
            now, done = owner[done:end], end
            for index, blocks in zip(*np.unique(now, return_counts=True), strict=True):
                begin, at[index] = at[index], at[index] + int(blocks)
                found = self.sources[index].load(begin, at[index])
                waiting.append(by_time(self._renumbered(index, found)))
            until = np.uint64(first[end])
            ready, later = [], []
            for part in waiting:
                n = int(np.searchsorted(part.tsc, until))
                if n:
                    ready.append(part.take(slice(n)))
                if n < len(part):
                    later.append(part.take(slice(n, None)).alone() if n else part)
            calls, waiting = merged(ready), later
            if len(calls):
                yield calls


def _cpu_mhz() -> float:
    """Return the processor's clock rate, for a trace whose only thread was killed early."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return float(line.split(":")[1])
    return 1000.0


def merge(first: RawTrace, second: RawTrace) -> RawTrace:
    """Join two traces of one clock."""
    return RawTrace(
        [*first.sources, *second.sources],
        first.broken + second.broken,
        first.lost_elsewhere + second.lost_elsewhere,
        joined(first.ends, second.ends),
        first.thread_ends | second.thread_ends,
    )
