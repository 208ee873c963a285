# SPDX-License-Identifier: MIT
"""A dataset in the formats of other tools; each writer takes a dataset and an open file.

All but `folded` and `speedscope`, which are sums, are written as the events are read, so that
memory does not grow with the trace.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import IO, Any

import numpy as np

from tracer import insights
from tracer.columns import numbers
from tracer.dataset import Dataset, path_bytes
from tracer.syscalls import ArgKind, SyscallClass, by_nr, name_of

BATCH = 1 << 16
AT_FDCWD = 0xFFFFFF9C
_RESTARTS = {
    512: ("ERESTARTSYS", "To be restarted if SA_RESTART is set"),
    513: ("ERESTARTNOINTR", "To be restarted"),
    514: ("ERESTARTNOHAND", "To be restarted if no handler"),
    516: ("ERESTART_RESTARTBLOCK", "Interrupted by signal"),
}


def _rows(data: Dataset, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in data.batches(columns, BATCH):
        yield from batch.to_pylist()


def _programs(data: Dataset) -> dict[int, str]:
    """Return the last program of each process."""
    found: dict[int, str] = {}
    for image in data.processes().to_pylist():
        argv = image["argv"]
        name = image["exe"] or (argv[0] if argv else "?")
        found[image["pid"]] = os.path.basename(name) or name
    return found


def _error(ret: int) -> str | None:
    if not -4095 <= ret < 0:
        return None
    return errno.errorcode.get(-ret) or _RESTARTS.get(-ret, (f"E{-ret}",))[0]


# --- perfetto ------------------------------------------------------------------


def perfetto(data: Dataset, file: IO[str]) -> None:
    """Chrome's JSON trace format, which https://ui.perfetto.dev opens.

    One slice for each call, on the track of its thread; calls that do not return are instants.
    Times are in us from the first call on.
    """
    cls = {nr: str(call.cls) for nr, call in by_nr().items()}
    kinds = {o["object_id"]: o["path"] for o in data.objects().to_pylist()}
    file.write('{"displayTimeUnit":"ns","otherData":')
    known = ("backend", "command", "kernel", "lost_events", "recorded", "filter", "unread_lines")
    json.dump({key: str(data.meta[key]) for key in known if data.meta.get(key)}, file)
    file.write(',"traceEvents":[\n')
    comma = ""
    for pid, name in _programs(data).items():
        event = {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
        file.write(comma + json.dumps(event))
        comma = ",\n"
    first = None
    columns = ["t_ns", "dur_ns", "pid", "tid", "nr", "ret", "path", "path2", "object_id",
               "bytes_in", "bytes_out", "site"]  # fmt: skip
    for row in _rows(data, columns):
        first = row["t_ns"] if first is None else first
        args = {key: row[key] for key in ("ret", "path", "path2", "site") if row[key] is not None}
        args |= {key: row[key] for key in ("bytes_in", "bytes_out") if row[key]}
        if row["ret"] is not None and _error(row["ret"]):
            args["error"] = _error(row["ret"])
        if kinds.get(row["object_id"]):
            args["object"] = kinds[row["object_id"]]
        slice_ = {
            "name": name_of(row["nr"]),
            "cat": cls.get(row["nr"], str(SyscallClass.UNKNOWN)),
            "pid": row["pid"],
            "tid": row["tid"],
            "ts": (row["t_ns"] - first) / 1000,
            "args": args,
        }
        if row["ret"] is None:
            slice_ |= {"ph": "i", "s": "t"}
        else:
            slice_ |= {"ph": "X", "dur": row["dur_ns"] / 1000}
        file.write(comma + json.dumps(slice_))
        comma = ",\n"
    file.write("\n]}\n")


# --- strace ----------------------------------------------------------------------

_OPEN_FLAGS = {
    value: name
    for name in ("O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DSYNC",
                 "O_DIRECT", "O_DIRECTORY", "O_NOFOLLOW", "O_NOATIME", "O_CLOEXEC", "O_PATH")
    for value in [getattr(os, name)]
}  # fmt: skip
_AT_FLAGS = {0x100: "AT_SYMLINK_NOFOLLOW", 0x400: "AT_SYMLINK_FOLLOW", 0x800: "AT_NO_AUTOMOUNT",
             0x1000: "AT_EMPTY_PATH"}  # fmt: skip
_FCNTL = {getattr(fcntl, name): name for name in dir(fcntl) if name.startswith("F_")}


@lru_cache(maxsize=4096)
def _flags(value: int, names: tuple[tuple[int, str], ...], first: str = "") -> str:
    words = [first] if first else []
    for bit, name in names:
        if value & bit:
            words.append(name)
            value &= ~bit
    if value or not words:
        words.append(hex(value) if value else "0")
    return "|".join(words)


def _open_flags(value: int) -> str:
    modes = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
    return _flags(value & ~3 & ~0o100000, tuple(_OPEN_FLAGS.items()), modes[value & 3])


def _quoted(text: str) -> str:
    out = []
    for byte in path_bytes(text):
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append({"\n": "\\n", "\t": "\\t"}.get(char, f"\\{byte:03o}"))
    return f'"{"".join(out)}"'


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _argument(kind: ArgKind, value: int, row: dict[str, Any], paths: dict[int, str | None],
              first: bool) -> str:  # fmt: skip
    if kind == ArgKind.PATH and row["path"] is not None:
        return _quoted(row["path"])
    if kind in (ArgKind.PATH2, ArgKind.NAME) and row["path2"] is not None:
        return _quoted(row["path2"])
    if kind in (ArgKind.FD, ArgKind.DIRFD):
        path = paths.get(row["object_id"]) if first else None
        name = "AT_FDCWD" if value & 0xFFFFFFFF == AT_FDCWD else str(_signed(value))
        return f"{name}<{_quoted(path)[1:-1]}>" if path else name
    if kind == ArgKind.OPEN_FLAGS:
        return _open_flags(value)
    if kind == ArgKind.AT_FLAGS:
        return _flags(value, tuple(_AT_FLAGS.items()))
    if kind == ArgKind.MODE:
        return f"0{value & 0xFFFF:o}" if value else "0"
    if kind in (ArgKind.STAT_OUT, ArgKind.STATX_OUT) and row["st_mode"] is not None:
        x = "stx" if kind == ArgKind.STATX_OUT else "st"
        mode, size, ino = row["st_mode"], row["st_size"], row["st_ino"]
        return f"{{{x}_ino={ino}, {x}_mode={mode:#o}, {x}_size={size}, ...}}"
    if kind in (ArgKind.SIZE, ArgKind.COUNT, ArgKind.OFFSET):
        return str(value)
    if kind in (ArgKind.PID, ArgKind.INT, ArgKind.SIG):
        return str(_signed(value))
    return hex(value) if value else ("NULL" if "OUT" in kind.name or kind == ArgKind.PTR else "0")


def _result(row: dict[str, Any]) -> str:
    ret = row["ret"]
    if ret is None:
        return "0" if name_of(row["nr"]).startswith("exec") else "?"
    if -ret in _RESTARTS:
        name, text = _RESTARTS[-ret]
        return f"? {name} ({text})"
    error = _error(ret)
    if error:
        return f"-1 {error} ({os.strerror(-ret)})"
    return hex(ret) if ret > 1 << 31 else str(ret)


def strace(data: Dataset, file: IO[str]) -> None:
    """Text as `strace -f -ttt -T -y` prints it; `cosy-trace import` reads it.

    What lay behind pointers is not in a dataset, except for paths and attributes.
    """
    paths = {o["object_id"]: o["path"] for o in data.objects().to_pylist()}
    images: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for image in data.processes().to_pylist():
        images[image["pid"]].append(image)
    argv = {pid: [image["argv"] for image in of] for pid, of in images.items()}
    calls = by_nr()
    columns = ["t_ns", "dur_ns", "pid", "tid", "nr", "ret", "path", "path2", "object_id",
               "st_mode", "st_size", "st_ino", *(f"a{i}" for i in range(6))]  # fmt: skip
    for pid, of in list(images.items())[:1]:
        _executed(file, pid, of[0]["start_ns"], of[0]["exe"] or "", argv[pid].pop(0))
    for row in _rows(data, columns):
        call = calls.get(row["nr"])
        name = name_of(row["nr"])
        if row["ret"] is None and name == "execve" and len(argv.get(row["pid"], ())) > 0:
            words = argv[row["pid"]].pop(0)
            _executed(file, row["tid"], row["t_ns"], row["path"] or "", words)
            continue
        words = []
        seen = False
        for i, kind in enumerate(call.args if call else ()):
            is_fd = kind in (ArgKind.FD, ArgKind.DIRFD)
            words.append(_argument(kind, row[f"a{i}"], row, paths, is_fd and not seen))
            seen = seen or is_fd
        if name == "fcntl":
            words[1] = _FCNTL.get(row["a1"], words[1])
        elif name == "clone":
            words = [f"child_stack={row['a1']:#x}", f"flags={_clone_flags(row['a0'])}"]
        file.write(
            f"{row['tid']} {row['t_ns'] // 10**9}.{row['t_ns'] % 10**9 // 1000:06} "
            f"{name}({', '.join(words)}) = {_result(row)} <{row['dur_ns'] / 1e9:.6f}>\n"
        )


def _clone_flags(value: int) -> str:
    names = ((0x100, "CLONE_VM"), (0x4000, "CLONE_VFORK"), (0x10000, "CLONE_THREAD"))
    return _flags(value & 0x14100, names)


def _executed(file: IO[str], tid: int, t_ns: int, path: str, argv: list[str]) -> None:
    words = ", ".join(_quoted(word) for word in argv)
    file.write(
        f"{tid} {t_ns // 10**9}.{t_ns % 10**9 // 1000:06} "
        f"execve({_quoted(path)}, [{words}], 0x0) = 0 <0.000000>\n"
    )


# --- csv ---------------------------------------------------------------------------


def csv(data: Dataset, file: IO[str]) -> None:
    """Comma-separated values, a line for each call, with a header."""
    import csv as library

    objects = {o["object_id"]: o for o in data.objects().to_pylist()}
    symbol = {row["site"]: row["symbol"] for row in data.sites().to_pylist()}
    plain = ["t_ns", "dur_ns", "pid", "tid"]
    more = ["ret", "path", "path2", "bytes_in", "bytes_out", "site"]
    stats = ["st_mode", "st_size", "st_ino"]
    args = [f"a{i}" for i in range(6)]
    writer = library.writer(file, lineterminator="\n")
    head = [*plain, "call", *args, *more, "symbol", "error", "object", "object_path", *stats]
    writer.writerow(head)
    for row in _rows(data, [*plain, "nr", *args, *more, "object_id", *stats]):
        what = objects.get(row["object_id"], {})
        writer.writerow(
            [
                *(row[name] for name in plain),
                name_of(row["nr"]),
                *(row[name] for name in (*args, *more)),
                symbol.get(row["site"]),
                _error(row["ret"]) if row["ret"] is not None else None,
                what.get("kind"),
                what.get("path"),
                *(row[name] for name in stats),
            ]
        )


# --- stacks ------------------------------------------------------------------------


def _stacks(data: Dataset) -> dict[tuple[str, ...], int]:
    """Return ns by stack: programs from the first on, the call site's function, the call.

    A program's own time between calls is on the stack of its programs alone.
    """
    columns = ["pid", "tid", "nr", "t_ns", "dur_ns"]
    table = data.events([*columns, "site"])
    pid, tid, nr, start, duration = (numbers(table[name].combine_chunks()) for name in columns)
    tree = {
        process.pid: process
        for process in insights.processes(data, insights.by_number(pid, duration))
    }

    @cache
    def programs(member: int) -> tuple[str, ...]:
        process = tree.get(member)
        if process is None:
            return (str(member),)
        above = programs(process.ppid) if process.depth else ()
        return (*above, process.programs[-1].replace(";", ",")[:60])

    site = table["site"].to_pylist()
    symbol = {row["site"]: row["symbol"] for row in data.sites().to_pylist()}
    found: dict[tuple[str, ...], int] = defaultdict(int)
    for p, n, s, d in zip(pid.tolist(), nr.tolist(), site, duration.tolist(), strict=True):
        function = (symbol.get(s) or s or "").split("+0x")[0]
        found[(*programs(p), *([function] if function else []), name_of(n))] += d
    # Of a filtered trace, what lies between calls are others, too.
    for member in np.unique(tid).tolist() if not data.meta.get("filter") else ():
        of = tid == member
        own = insights.own_ns(tid[of], start[of], duration[of])
        found[programs(int(pid[of][0]))] += own
    return {stack: ns for stack, ns in found.items() if ns}


def folded(data: Dataset, file: IO[str]) -> None:
    """Folded stacks in us, as flamegraph.pl and inferno read them."""
    for stack, ns in sorted(_stacks(data).items()):
        if ns >= 500:
            file.write(f"{';'.join(stack)} {round(ns / 1000)}\n")


def speedscope(data: Dataset, file: IO[str]) -> None:
    """The file format of https://www.speedscope.app: the same stacks, weighed by ns."""
    stacks = sorted(_stacks(data).items())
    frames: dict[str, int] = {}
    samples = [[frames.setdefault(word, len(frames)) for word in stack] for stack, _ in stacks]
    weights = [ns for _, ns in stacks]
    profile = {
        "type": "sampled",
        "name": " ".join(data.meta["command"]),
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "cosy-trace",
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": [profile],
    }
    json.dump(document, file)
    file.write("\n")


WRITERS: dict[str, tuple[Callable[[Dataset, IO[str]], None], str]] = {
    "perfetto": (perfetto, ".perfetto.json"),
    "strace": (strace, ".strace.txt"),
    "csv": (csv, ".csv"),
    "folded": (folded, ".folded"),
    "speedscope": (speedscope, ".speedscope.json"),
}
"""By name: the writer, and how its files end."""
