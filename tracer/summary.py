# SPDX-License-Identifier: MIT
"""What a trace says at a glance: a table in the manner of `strace -c`, and sequences."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer import insights
from tracer.backends import AFTER_HANDLERS
from tracer.dataset import Dataset
from tracer.syscalls import SyscallClass, by_nr, name_of
from tracer.totals import BATCH, COLUMNS, MAX_TOKENS, Totals

WIDTH = 80
MAX_SEQUENCE = 8
N_SEQUENCES = 3
N_FILES = 5
N_SITES = 4
N_PROCESSES = 10
MIN_SHARE = 0.005  # of the time inside calls: less is not worth a line

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One system call's share of a trace."""

    call: str
    calls: int
    errors: int
    time_ns: int
    share: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class Sequence:
    """Calls that one thread makes in a row, again and again; `read+` is a run of reads."""

    calls: list[str]
    count: int
    calls_covered: float
    """Share of all calls that its occurrences hold."""
    time_covered: float


@dataclass(frozen=True)
class Summary:
    """Everything that is printed."""

    command: list[str]
    calls: int
    errors: int
    processes: int
    threads: int
    lost_events: int
    unread_lines: int
    """Lines of an imported text that nobody understood: calls that are not here, perhaps."""
    filter: dict[str, list[str] | None] | None
    """What was kept, "calls" and "paths"; null: all. Then nothing is said of what lies between."""
    unseen_programs: list[str]
    """Programs that ran unrecorded: statically linked, set-id, other ABI."""
    wall_ns: int
    inside_ns: int
    """Time inside calls, summed over threads."""
    waiting_ns: int
    """The part of inside_ns spent in calls that may wait for somebody else."""
    own_ns: int | None
    """The programs' own time between calls, summed over threads; null: not all calls were kept."""
    user_ns: int
    """CPU time as the kernel counts it, tracing included; 0: not known."""
    system_ns: int
    backend: str
    adopted_programs: list[str]
    """Programs that other backends had to record."""
    adopted_why: list[str]
    """Why, of each."""
    adopted_by: list[str]
    """Which backends these were."""
    interrupted: int
    """Calls that a signal ended (EINTR)."""
    restarted: int | None
    """Calls that the kernel began again after a signal; null: nobody looked."""
    restarts: str | None
    """Which of these are seen: "all", "after handlers" of the program; null: not known."""
    rows: list[Row]
    sequences: list[Sequence]
    """None of a filtered trace, whose calls did not follow one another."""
    sequences_of: int
    """How many calls were looked at for the sequences."""
    boundary: insights.Boundary
    processes_by_start: list[insights.Process]
    files: list[insights.File]
    sites: list[insights.Site]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        plain = asdict(self)
        plain["boundary"]["removable_ns"] = self.boundary.removable_ns
        return plain


def summarize(data: Dataset) -> Summary:
    """Read a dataset and sum it up, a part at a time."""
    found = Totals(data)
    for batch in data.batches(COLUMNS, BATCH):
        found.add(batch)
    sums, meta = found.by_nr, data.meta
    calls, inside = int(sums[0].sum()), int(sums[2].sum())
    rows = [
        Row(name, n, errors, time_ns, time_ns / inside if inside else 0.0, into, out)
        for name, (n, errors, time_ns, into, out) in (
            (name_of(number), sums[:, number].tolist())
            for number in np.flatnonzero(sums[0]).tolist()
        )
    ]
    rows.sort(key=lambda row: (-row.time_ns, row.call))
    waits = {call.name for call in by_nr().values() if call.cls == SyscallClass.SYNC} | {
        "wait4",
        "waitid",
    }
    filtered, restarts = meta.get("filter"), meta.get("restarts")
    # Older recordings of the shim do not tell, and hold none.
    known = restarts or meta["backend"] != "shim"
    sequences = [] if filtered else _sequences(*found.first())
    return Summary(
        command=meta["command"],
        calls=calls,
        errors=int(sums[1].sum()),
        processes=len(set(data.processes()["pid"].to_pylist())),
        threads=len(found.threads),
        lost_events=meta["lost_events"],
        unread_lines=meta.get("unread_lines", 0),
        filter=filtered,
        unseen_programs=meta.get("unseen_programs", []),
        wall_ns=meta["wall_ns"],
        inside_ns=inside,
        waiting_ns=sum(row.time_ns for row in rows if row.call in waits),
        own_ns=None if filtered else found.own.ns,
        user_ns=meta.get("user_ns", 0),
        system_ns=meta.get("system_ns", 0),
        backend=meta["backend"],
        adopted_programs=(adopted := meta.get("adopted_programs", [])),
        adopted_why=meta.get("adopted_why", ["static, ..."] * len(adopted)),
        adopted_by=meta.get("adopted_by", ["ptrace"]),
        interrupted=found.interrupted,
        restarted=found.restarted if known else found.restarted or None,
        restarts=restarts,
        rows=rows,
        sequences=sequences,
        sequences_of=min(calls, MAX_TOKENS),
        boundary=_boundary(sequences, calls, meta.get("crossing_ns")),
        processes_by_start=insights.processes(data, found.processes),
        files=found.files.best(N_FILES),
        sites=insights.sites(data, found.sites, N_SITES),
    )


def _boundary(sequences: list[Sequence], calls: int, measured_ns: int | None) -> insights.Boundary:
    removable = 0
    for found in sequences:
        share = insights.harmless(found.calls) / len(found.calls)
        covered = round(found.calls_covered * min(calls, MAX_TOKENS) * share)
        removable += max(0, covered - found.count)
    return insights.Boundary(measured_ns or insights.crossing_ns(), removable)


# --- sequences ---------------------------------------------------------------


def _sequences(tid: Ints, nr: Ints, duration: Ints) -> list[Sequence]:
    """Find the sequences in which the most time passes.

    Runs of one call are folded first. Then all windows of 2 to MAX_SEQUENCE tokens of a
    thread are counted. A window that begins as it ends (`a b a`) spans more than one
    turn of a loop and is left out; what remains cannot overlap itself, so counts are exact.
    Each further sequence is sought in what the ones before it left over.
    """
    if len(nr) < 2:
        return []
    tid, nr, duration = tid[:MAX_TOKENS], nr[:MAX_TOKENS], duration[:MAX_TOKENS]
    order = np.argsort(tid, kind="stable")
    tid, nr, duration = tid[order], nr[order], duration[order]
    first = np.flatnonzero(np.r_[True, (np.diff(nr) != 0) | (np.diff(tid) != 0)])
    run = np.diff(np.r_[first, len(nr)])
    token = nr[first] * 2 + (run > 1)
    calls = np.r_[0, np.cumsum(run)]
    time = np.r_[0, np.cumsum(np.add.reduceat(duration, first))]
    thread = tid[first]
    free = np.ones(len(token), np.bool_)
    chosen: list[Sequence] = []
    total = max(1, int(time[-1]))
    while len(chosen) < N_SEQUENCES:
        sizes = range(2, min(MAX_SEQUENCE, len(token)) + 1)
        best = max((_best_window(token, thread, free, time, n) for n in sizes), default=None)
        if best is None or best.time < total * MIN_SHARE:
            break
        at, n = best.at, best.size
        names = [name_of(t // 2) + "+" * (t % 2) for t in token[at[0] : at[0] + n].tolist()]
        n_calls = int((calls[at + n] - calls[at]).sum())
        chosen.append(Sequence(names, len(at), n_calls / len(nr), best.time / total))
        for k in range(n):
            free[at + k] = False
    return chosen


@dataclass(frozen=True, order=True)
class _Window:
    """The windows of one kind: where they start, how many tokens each holds."""

    time: int
    size: int
    at: Ints = field(compare=False)


def _best_window(
    token: Ints, thread: Ints, free: npt.NDArray[np.bool_], time: Ints, n: int
) -> _Window:
    """Return the windows of n free tokens in which the most time passes."""
    starts = len(token) - n + 1
    code = np.zeros(starts, np.uint64)
    good = thread[:starts] == thread[n - 1 :]
    for k in range(n):
        code = code * np.uint64(0x9E3779B97F4A7C15) + token[k : k + starts].astype(np.uint64)
        good &= free[k : k + starts]
    at = np.flatnonzero(good)
    none = _Window(0, n, at[:0])
    if not len(at):
        return none
    _, where, inverse, count = np.unique(
        code[at], return_index=True, return_inverse=True, return_counts=True
    )
    covered = np.bincount(inverse, time[at + n] - time[at]).astype(np.int64)
    for i in np.argsort(-covered).tolist():
        window = token[at[where[i]] : at[where[i]] + n].tolist()
        if count[i] > 1 and not any(window[:k] == window[-k:] for k in range(1, n)):
            return _Window(int(covered[i]), n, at[inverse == i])
    return none


# --- text --------------------------------------------------------------------


def _amount(n: int) -> str:
    """Return a number of bytes in at most 7 characters."""
    if n < 1000:
        return f"{n}"
    value = float(n)
    for unit in "kMGTPE":
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}"
    return f"{value:.0f} E"


def _counted(n: int, what: str, plural: str) -> str:
    return f"{n:,} {what if n == 1 else plural}"


def render(summary: Summary, rows: int | None = None) -> str:
    """Return the text for a terminal; of the table only the first `rows`, if given."""
    s = summary
    who = _counted(s.processes, "process", "processes")
    if s.threads > s.processes:
        who += f", {s.threads} threads"
    command = textwrap.shorten(shlex.join(s.command), 50, placeholder=" ...")
    head = f"{command}: {_counted(s.calls, 'call', 'calls')}, {who}, {s.wall_ns / 1e9:.3f} s"
    lines = [
        *textwrap.wrap(head, WIDTH),
        "",
        f"{'calls':>11} {'errors':>9} {'time s':>10} {'share':>8} {'in B':>8} {'out B':>8}  call",
        "-" * 59 + "  " + "-" * 19,
    ]
    shown = s.rows[:rows]
    for row in shown:
        lines.append(
            f"{row.calls:>11,} {row.errors or '':>9} {row.time_ns / 1e9:>10.6f} "
            f"{row.share:>8.1%} {_amount(row.bytes_in):>8} {_amount(row.bytes_out):>8}  {row.call}"
        )
    if len(shown) < len(s.rows):
        lines.append(f"{'':>59}  ... {len(s.rows) - len(shown)} more")
    lines += [
        "-" * 59 + "  " + "-" * 19,
        f"{s.calls:>11,} {s.errors or '':>9} {s.inside_ns / 1e9:>10.6f} {1:>8.1%} "
        f"{_amount(sum(r.bytes_in for r in s.rows)):>8} "
        f"{_amount(sum(r.bytes_out for r in s.rows)):>8}  total",
        "",
        _lost_line(s),
        *_filter_lines(s),
        *textwrap.wrap(_time_line(s), WIDTH),
        *textwrap.wrap(_boundary_line(s), WIDTH),
    ]
    if s.interrupted or s.restarted:
        again = "restarts are not seen" if s.restarted is None else f"{s.restarted:,} restarted"
        again += f" ({s.restarts} only)" if s.restarts == AFTER_HANDLERS else ""
        lines.append(f"signals: {s.interrupted:,} calls interrupted, {again}")
    if s.adopted_programs:
        pairs = zip(s.adopted_programs, s.adopted_why, strict=False)
        names = ", ".join(f"{name} ({why})" for name, why in pairs)
        text = f"watched by {', later '.join(s.adopted_by)}: {names}"
        lines += textwrap.wrap(text, WIDTH, break_on_hyphens=False)
    if s.unseen_programs:
        names = f"ran unrecorded (static, set-id, ...): {' '.join(s.unseen_programs)}"
        lines += textwrap.wrap(names, WIDTH, break_on_hyphens=False)
    if s.sequences:
        of = "" if s.sequences_of == s.calls else f" of the first {s.sequences_of:,} calls"
        lines.append(f"hottest sequences{of}, by thread (+: the call repeats):")
    for found in s.sequences:
        lead = f"{found.count:>9,} x  "
        text = f"{' '.join(found.calls)}  ({found.time_covered:.0%} of the time inside calls)"
        lines += textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))
    lines += [*_processes(s), *_files(s), *_sites(s)]
    return "\n".join(lines)


def _seconds(time_ns: int | None) -> str:
    return f"{'-' if time_ns is None else f'{time_ns / 1e9:.3f}':>8}"


def _cut(text: str, width: int) -> str:
    """Shorten in the middle: both ends of a path matter."""
    if len(text) <= width:
        return text
    return f"{text[: width // 3]}...{text[3 + width // 3 - width :]}"


def _processes(s: Summary) -> list[str]:
    """The tree, as far as it holds the processes with the most time, and their ancestors."""
    every = s.processes_by_start
    if len(every) < 2:
        return []
    best = sorted(every, key=lambda p: -p.time_ns)[:N_PROCESSES]
    of = {p.pid: p for p in every}
    shown: set[int] = set()
    for process in best:
        at: insights.Process | None = process
        while at and at.pid not in shown:
            shown.add(at.pid)
            at = of.get(at.ppid)
    lives = any(p.life_ns is not None or p.cpu_ns is not None for p in every)
    what = "calls, time inside them" + ", life, CPU time" * lives
    left_out = f"; {len(every) - len(shown):,} not shown" if len(shown) < len(every) else ""
    lines = [f"processes ({what}){left_out}:"]
    for process in every:
        if process.pid in shown:
            name = "  " * min(process.depth, 8) + " > ".join(process.programs)
            lead = f"{process.calls:>9,} {process.time_ns / 1e9:>10.6f}  "
            if lives:
                lead += f"{_seconds(process.life_ns)} {_seconds(process.cpu_ns)}  "
            lines.append(lead + _cut(name, WIDTH - len(lead)))
    return lines


def _files(s: Summary) -> list[str]:
    if not s.files:
        return []
    lines = ["files with the most time (calls, time, bytes):"]
    for file in s.files:
        lead = f"{file.calls:>9,} {file.time_ns / 1e9:>10.6f} {_amount(file.bytes):>8}  "
        lines.append(lead + _cut(file.path, WIDTH - len(lead)))
    return lines


def _sites(s: Summary) -> list[str]:
    if not s.sites:
        return []
    lines = ["call sites with the most time (calls, time):"]
    for site in s.sites:
        lead = f"{site.calls:>9,} {site.time_ns / 1e9:>10.6f}  "
        module = site.site.split("+0x")[0]
        name = f"{module}: {site.symbol}" if site.symbol else site.site
        lines.append(lead + _cut(name, WIDTH - len(lead)))
    return lines


def _lost_line(s: Summary) -> str:
    text = f"lost events: {s.lost_events:,}"
    return f"{text}; lines not understood: {s.unread_lines:,}" if s.unread_lines else text


def _filter_lines(s: Summary) -> list[str]:
    if not s.filter:
        return []
    calls, paths = s.filter.get("calls"), s.filter.get("paths")
    text = "filter: of these calls only: "
    text += "all" if calls is None else ", ".join(calls) or "none"
    if paths:
        text += f" on {', '.join(paths)}"
    return textwrap.wrap(textwrap.shorten(text, 3 * WIDTH, placeholder=" ..."), WIDTH)


def _boundary_line(s: Summary) -> str:
    b = s.boundary
    if not s.calls or not b.removable_calls:
        return f"an empty call takes {b.crossing_ns} ns here"
    share = b.removable_ns / max(s.wall_ns, 1)
    return (
        f"an empty call takes {b.crossing_ns} ns here: {b.removable_calls / s.calls:.0%} of the "
        f"calls lie in sequences that compounds could make in one crossing each, "
        f"{b.removable_ns / 1e9:.3f} s of crossings ({share:.1%} of the wall time)"
    )


def _time_line(s: Summary) -> str:
    wall = max(s.wall_ns, 1)
    these = "these calls" if s.filter else "calls"
    text = f"wall time {s.wall_ns / 1e9:.3f} s, inside {these} {s.inside_ns / 1e9:.3f} s"
    own = s.inside_ns - s.waiting_ns
    text += f" ({s.inside_ns / wall:.0%}"
    text += ", summed over threads)" if s.threads > 1 else ")"
    if s.waiting_ns > s.inside_ns / 100:
        text += f"; without calls that may wait for others {own / 1e9:.3f} s ({own / wall:.0%})"
    if s.own_ns is not None:
        text += f"; between calls {s.own_ns / 1e9:.3f} s"
    if s.user_ns or s.system_ns:
        text += f"; CPU {s.user_ns / 1e9:.3f} s user, {s.system_ns / 1e9:.3f} s system"
    return text
