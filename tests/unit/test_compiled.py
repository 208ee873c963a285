# SPDX-License-Identifier: MIT
"""tracer/core/ against the same in plain Python, and against files that no writer would make."""

from __future__ import annotations

import posixpath
import random
import struct
from dataclasses import replace
from os import O_DIRECTORY
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.raw_builder import Event, RawBuilder, process, trace
from tests.unit.test_objects import AT_FDCWD, follow
from tracer import dirents
from tracer.convert import write_dataset
from tracer.dataset import META_KEYS, Dataset, Writer, path_text
from tracer.events import DONE, EVENT_WORDS, NO_RETURN, RAW_DIRENTS, Chunk, by_time, join, merged
from tracer.timeline import RawTrace

_HEAD = struct.Struct("<QqHB")


def written(raw: RawTrace, path: Path) -> pa.Table:
    with Writer(path) as writer:
        write_dataset(raw, writer, {**dict.fromkeys(META_KEYS - {"schema"}, 0), "command": []})
    return Dataset(path).events()


def buffer(*entries: tuple[bytes, int]) -> bytes:
    """What getdents64 returns."""
    found = b""
    for name, kind in entries:
        size = (_HEAD.size + len(name) + 8) // 8 * 8
        found += (_HEAD.pack(1, 0, size, kind) + name).ljust(size, b"\0")
    return found


def test_names_of_a_buffer_are_hashed_as_everywhere(tmp_path: Path) -> None:
    entries = [(b".", 4), (b"..", 4), (b"a", 8), (b"\xff" * 255, 10), (b".x", 4), (b"...", 8)]
    out = buffer(*entries)
    broken = out + _HEAD.pack(1, 0, 3, 8)
    lists = [out, b"", broken, out[:30]]
    flags = DONE | RAW_DIRENTS
    calls = [Event("getdents64", (3,), ret=len(b), out=b, flags=flags) for b in lists]
    raw = trace(tmp_path, RawBuilder(live=[process(b"/x", b"x"), *calls]))
    expected = dirents.hashes(entries[2:]).tolist()
    found = written(raw, tmp_path / "d")["names"].to_pylist()
    assert found == [expected, [], expected, []]


@pytest.mark.parametrize("cwd", [b"/home/u", b"/", b"//net", b"///a/b", b"(unreachable)/a", b"r"])
def test_paths_are_joined_as_python_does(tmp_path: Path, cwd: bytes) -> None:
    rng = random.Random(cwd)
    parts = (b"..", b".", b"", b"a", b"bc", b"...", b".d", b"..e")
    paths = [b"/".join(rng.choices(parts, k=rng.randrange(1, 8))) or b"x" for _ in range(400)]
    calls = [
        Event("openat", (AT_FDCWD, 0, O_DIRECTORY), ret=3 + i, path=path)
        for i, path in enumerate(paths)
    ]
    blocks = [[process(b"/bin/x", b"x", cwd=cwd)], *(calls[at : at + 8] for at in range(0, 400, 8))]
    found = follow(trace(tmp_path, RawBuilder(flushed=blocks)))
    expected = []
    for path in paths:
        whole = path if path[0:1] == b"/" else cwd + b"/" * (cwd != b"/") + path
        order = b"/." in whole or b"//" in whole
        expected.append(posixpath.normpath(whole) if order else whole)
    assert list(found.objects.paths)[1:] == expected


def test_payloads_that_lie_upon_another(tmp_path: Path) -> None:
    # Together they are longer than all that the file holds.
    builder = RawBuilder(live=[process(b"/x", b"x"), *[Event("open", path=b"")] * 6])
    file = builder.write(tmp_path)
    data = bytearray(file.read_bytes())
    text = b"abcdefghijklmnop" * 8
    data[4096 + 8 + 4 : 4096 + 16] = struct.pack("<I", 2000)
    heap = data.index(b"/x/home", 4096)
    data[heap + 100 : heap + 100 + len(text)] = text
    for i in range(1, 7):
        at = 4096 + 16 + i * 96
        data[at + 84 : at + 88] = struct.pack("<I", 100 + i)
        data[at + 88 : at + 96] = struct.pack("<HHI", 1500, 0, 0)
    file.write_bytes(data)
    path = written(trace(tmp_path), tmp_path / "d")["path"].to_pylist()
    assert len(path) == 6
    assert path[0] is not None
    assert path[0].startswith("bcdef")
    assert None in path


def test_no_size_or_number_is_too_odd(tmp_path: Path) -> None:
    """Events of random words: nothing crashes, and each is in the dataset or is told to be lost."""
    rng = random.Random(7)
    for turn in range(60):
        folder = tmp_path / str(turn)
        folder.mkdir()
        events = [Event("read", (3,)) for _ in range(7)]
        file = RawBuilder(live=[process(b"/x", b"x"), *events]).write(folder)
        data = bytearray(file.read_bytes())
        for _ in range(30):
            at = 4096 + 16 + rng.randrange(96, 8 * 96)
            data[at] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        file.write_bytes(data)
        raw = trace(folder)
        assert written(raw, folder / "d").num_rows == raw.n_calls


def test_names_of_all_kinds_and_lengths(tmp_path: Path) -> None:
    rng = random.Random(11)
    alphabet = [b"a", b"/", b"%", b"\xc3\xa9", b"\xff", b"\x01", b"&"]
    names = [bytes([65 + size % 26]) * size for size in range(1, 40)]
    names += [b"".join(rng.choices(alphabet, k=rng.randrange(1, 30))) for _ in range(2000)]
    rng.shuffle(names)
    names += names[:500]
    calls = [Event("newfstatat", (AT_FDCWD,), path=name) for name in names]
    blocks = [[process(b"/x", b"x")], *(calls[at : at + 8] for at in range(0, len(calls), 8))]
    found = written(trace(tmp_path, RawBuilder(flushed=blocks)), tmp_path / "d")
    assert found["path"].to_pylist() == [path_text(name) for name in names]


def test_bits_of_more_and_of_fewer_events_than_eight_at_a_time(tmp_path: Path) -> None:
    rng = random.Random(5)
    out = struct.pack("<QQQII", 1, 2, 3, 4, 5)
    for n in (1, 7, 8, 9, 511, 512, 513, 1025):
        calls = [
            rng.choice(
                [
                    Event("fstat", (3,), out=out),
                    Event("read", (3, 0, 9), ret=9),
                    Event("exit", flags=DONE | NO_RETURN),
                ]
            )
            for _ in range(n)
        ]
        calls = [replace(call) for call in calls]
        blocks = [[process(b"/x", b"x")], *(calls[at : at + 8] for at in range(0, n, 8))]
        folder = tmp_path / str(n)
        folder.mkdir()
        found = written(trace(folder, RawBuilder(flushed=blocks)), folder / "d")
        assert found["st_ino"].to_pylist() == [2 if c.nr == "fstat" else None for c in calls]
        assert found["ret"].to_pylist() == [None if c.nr == "exit" else c.ret for c in calls]


def chunk_of(rng: random.Random, thread: int, n: int, latest: int) -> Chunk:
    """Calls of one thread in the order of time, with a path that is different for each."""
    words = np.array([[rng.randrange(2**63) for _ in range(n)] for _ in range(EVENT_WORDS)], "u8")
    words = words.reshape(EVENT_WORDS, n)
    words[0] = sorted(rng.randrange(latest) for _ in range(n))
    words[EVENT_WORDS - 1] = 4
    heap = np.array([rng.randrange(256) for _ in range(4 * n)], np.uint8)
    return Chunk(words, np.full(n, thread, np.int32), np.arange(n, dtype=np.int64) * 4, heap)


@pytest.mark.parametrize("n_parts", [2, 3, 5, 40])
def test_threads_are_merged_as_they_are_sorted(n_parts: int) -> None:
    rng = random.Random(n_parts)
    for latest in (5, 300, 10**9):  # many at the same time, some, none
        sizes = [rng.randrange(120) for _ in range(n_parts)]
        sizes[rng.randrange(n_parts)] = 0
        parts = [chunk_of(rng, rng.randrange(4), n, latest) for n in sizes]
        # Part of a longer one, as what comes later is left out.
        parts[-1] = chunk_of(rng, 2, 50, latest).take(slice(20))
        expected, found = by_time(join(parts)), merged(parts)
        assert found.words.tolist() == expected.words.tolist()
        assert found.thread.tolist() == expected.thread.tolist()
        assert found.texts() == expected.texts()


def test_long_runs_of_one_thread_are_merged() -> None:
    rng = random.Random(3)
    parts = [chunk_of(rng, 0, 3000, 1000), chunk_of(rng, 1, 3000, 10**6), chunk_of(rng, 2, 1, 900)]
    expected, found = by_time(join(parts)), merged(parts)
    assert (found.words == expected.words).all()
    assert found.texts() == expected.texts()
