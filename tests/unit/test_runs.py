# SPDX-License-Identifier: MIT
"""Records of runs: read as the shim writes them, whatever a full disk made of the file."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tracer import runs

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "kmod" / "uapi" / "cosy_runs.h"
BPF = 4
SUMS = ("calls", "attributes", "xattrs", "again", "fired", "runs", "run_ticks", "records")
SUMS += ("native", "native_ticks", "native_xattrs", "native_xattr_ticks", "timed", "timed_ticks")

C_NAMES = {"attributes": "answers[0]", "xattrs": "answers[1]"}


def record(build_id: str = "ab" * 20, command: int = 7, ended_ns: int = 1, **sums: int) -> bytes:
    """A record of a run in which a tick was half a nanosecond."""
    values = [sums.get(name, 0) for name in SUMS] + [sums.get("absent", 0)] + [0] * 7
    rest = struct.pack(
        "<IQQQQQ20sI", BPF, ended_ns, 5000, 1000, 2000, command, bytes.fromhex(build_id), 1
    )
    rest += runs.SUMS.pack(*values)
    return runs.MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest


def test_the_layout_is_that_of_the_header(tmp_path: Path) -> None:
    names = ("crc", "executor", "ended_ns", "cpu_ns", "wall_ns", "wall_ticks", "command")
    names += (
        "build_id",
        "pid",
        *(f"sums.{C_NAMES.get(name, name)}" for name in SUMS),
        "sums.declined",
    )
    prints = "".join(f'printf("%zu\\n", offsetof(struct cosy_run, {name}));' for name in names)
    source = f'#include <stdio.h>\n#include <stddef.h>\n#include "{HEADER}"\n'
    source += f'int main(void) {{ {prints} printf("%zu\\n", sizeof(struct cosy_run)); }}\n'
    program = tmp_path / "layout"
    subprocess.run(["cc", "-x", "c", "-o", str(program), "-"], input=source, text=True, check=True)
    found = [int(n) for n in subprocess.check_output([str(program)], text=True).split()]
    sums = [72 + 8 + 8 * i for i in range(len(SUMS))]
    assert found == [8, 12, 16, 24, 32, 40, 48, 56, 76, *sums, sums[-1] + 8, len(record())]


def test_what_a_run_saved() -> None:
    (run,) = runs.parse(
        record(
            attributes=100, xattrs=50, again=10, run_ticks=20_000,
            native=4, native_ticks=8000, native_xattrs=2, native_xattr_ticks=2000,
            timed=3, timed_ticks=600, absent=5,
        )
    )  # fmt: skip
    assert (run.native_ns, run.native_xattr_ns, run.answer_ns, run.run_ns) == (1000, 500, 100, 1e4)
    assert run.saved_ns == 90 * 1000 + 50 * 500 - 150 * 100 - 10_000
    assert (run.executor, run.answers, run.declined) == ("bpf", 150, 5)


def test_what_is_not_known_is_not_made_up() -> None:
    (run,) = runs.parse(record(attributes=100, run_ticks=20_000))
    assert run.saved_ns is None
    (run,) = runs.parse(record(fired=1, run_ticks=20_000))
    assert run.saved_ns == -10_000


def test_cut_and_spoilt_records_cost_only_themselves() -> None:
    good = [record(calls=n) for n in range(5)]
    spoilt = bytearray(record(calls=9))
    spoilt[-1] ^= 1
    data = good[0] + good[1][:100] + good[2] + bytes(spoilt) + b"COSYRUN" + good[3] + good[4][:-1]
    assert [run.calls for run in runs.parse(data)] == [0, 2, 3]
    assert list(runs.parse(b"")) == list(runs.parse(b"\0" * 4096)) == []


def test_a_command_is_known_by_its_words_and_its_folder() -> None:
    key = runs.command_key(["du", "-s", "/a"], "/home")
    others: list[tuple[list[str], str]] = [
        (["du", "-s", "/b"], "/home"), (["du", "-s", "/a"], "/"), (["du", "-s/a"], "/home")
    ]  # fmt: skip
    assert key not in [runs.command_key(*other) for other in others]
    # Zeros at the end are not in what the kernel tells, and long commands are cut.
    assert runs.command_key(["a", ""], "/") == runs.command_key(["a"], "/")
    assert runs.command_key(["x" * 5000], "/") == runs.command_key(["x" * 6000], "/")


def test_old_records_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runs.load() == []
    folder = tmp_path / "cosy" / "text"
    folder.mkdir(parents=True)
    parts: dict[str, Any] = {"runs": (3, 2), "runs.old": (1,)}
    for name, times in parts.items():
        (folder / name).write_bytes(b"".join(record(ended_ns=n) for n in times))
    assert [run.ended_ns for run in runs.load()] == [1, 2, 3]
