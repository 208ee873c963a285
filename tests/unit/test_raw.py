# SPDX-License-Identifier: MIT
"""The reader of raw files: what is whole is read, what is not is left out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.raw_builder import LIVE_SIZE, Event, RawBuilder, trace
from tracer.events import DONE
from tracer.raw import PAGE, TAKEN, RawError, RawFile, read_folder
from tracer.timeline import RawTrace


def numbers(raw: RawTrace) -> list[int]:
    return [number for chunk in raw.chunks(1000) for number in chunk.args[0].tolist()]


def events(first: int, n: int) -> list[Event]:
    return [Event("close", (i,), path=b"p%d" % i) for i in range(first, first + n)]


def test_flushed_and_live_blocks_join(tmp_path: Path) -> None:
    builder = RawBuilder(flushed=[events(0, 5), events(5, 3)], live=events(8, 4))
    raw = trace(tmp_path, builder)
    assert numbers(raw) == list(range(12))
    (chunk,) = raw.chunks(10000)
    assert [chunk.text(i) for i in range(12)] == [b"p%d" % i for i in range(12)]


def test_threads_interleave_by_time(tmp_path: Path) -> None:
    one = RawBuilder(tid=1, live=[Event("close", (i,), tsc=2000 + i) for i in (0, 2, 4)])
    two = RawBuilder(tid=2, live=[Event("close", (i,), tsc=2000 + i) for i in (1, 3, 5)])
    raw = trace(tmp_path, one, two)
    assert numbers(raw) == [0, 1, 2, 3, 4, 5]


def test_time_is_linear_in_the_tsc(tmp_path: Path) -> None:
    live = [Event("close", tsc=5000, dur=7), Event("close", tsc=5500, dur=0)]
    raw = trace(tmp_path, RawBuilder(live=live))
    chunk = next(raw.chunks(10))
    assert raw.to_ns(chunk.tsc).tolist() == [10000, 11000]
    assert raw.ticks_to_ns(chunk.dur).tolist() == [14, 0]


def test_killed_between_flush_and_reset(tmp_path: Path) -> None:
    # The same block twice: once flushed, once still live.
    same = events(0, 5)
    raw = trace(tmp_path, RawBuilder(flushed=[same], live=same, live_seq=0))
    assert numbers(raw) == list(range(5))


def test_a_slot_that_was_taken_but_not_written_holds_nothing_new(tmp_path: Path) -> None:
    # The writer clears the flags of all slots when a block begins anew.
    old = Event("close", (2,), tsc=1200, flags=0)
    raw = trace(tmp_path, RawBuilder(flushed=[events(0, 5)], live=[*events(5, 2), old]))
    assert sorted(numbers(raw)) == list(range(7))


def test_blocks_that_a_recorder_took_join(tmp_path: Path) -> None:
    builder = RawBuilder(flushed=[events(0, 5)], taken=[events(5, 5), events(10, 2)])
    builder.live = events(12, 4)
    assert numbers(trace(tmp_path, builder)) == list(range(16))


def test_a_block_in_three_places_counts_once(tmp_path: Path) -> None:
    first, second = events(0, 5), events(5, 5)
    builder = RawBuilder(flushed=[first, second], live=events(10, 2), live_seq=2)
    builder.ring = [(1, second), (0, [])]
    path = builder.write(tmp_path)
    path.with_suffix(TAKEN).write_bytes(b"".join(builder.block(1, second)))
    assert numbers(read_folder(tmp_path)) == list(range(12))


def test_of_a_block_that_was_half_taken_the_live_one_counts(tmp_path: Path) -> None:
    builder = RawBuilder(flushed=[events(0, 5)], live=events(5, 5))
    path = builder.write(tmp_path)
    whole = b"".join(builder.block(1, builder.live))
    for size in range(0, len(whole), 50):
        path.with_suffix(TAKEN).write_bytes(whole[:size])
        assert numbers(read_folder(tmp_path)) == list(range(10))


def test_half_written_events_are_left_out_and_counted(tmp_path: Path) -> None:
    live = [*events(0, 2), Event("close", (2,), flags=0), *events(3, 1)]
    raw = trace(tmp_path, RawBuilder(live=live, lost=4))
    assert numbers(raw) == [0, 1, 3]
    assert raw.lost_events == 5


def test_a_hole_in_the_sequence_is_no_end(tmp_path: Path) -> None:
    # A flush that failed was counted by the shim; later blocks are good.
    builder = RawBuilder()
    first, second = builder.block(0, events(0, 2)), builder.block(2, events(2, 2))
    builder.flushed = [[]]
    data = builder.data()[: PAGE + LIVE_SIZE] + b"".join(first) + b"".join(second)
    flushed = len(data) - PAGE - LIVE_SIZE
    data = data[:80] + flushed.to_bytes(8, "little") + data[88:]
    data = data[:PAGE] + (3).to_bytes(8, "little") + data[PAGE + 8 :]
    path = tmp_path / "1.1.0000000000000001.raw"
    path.write_bytes(data)
    assert numbers(read_folder(tmp_path)) == [0, 1, 2, 3]


def test_bytes_behind_the_last_whole_block_do_not_count(tmp_path: Path) -> None:
    path = RawBuilder(flushed=[events(0, 3)], live=events(3, 2)).write(tmp_path)
    path.write_bytes(path.read_bytes() + RawBuilder().block(1, events(9, 3))[0])
    assert numbers(read_folder(tmp_path)) == [0, 1, 2, 3, 4]


def test_every_truncation_is_survived(tmp_path: Path) -> None:
    whole = RawBuilder(flushed=[events(0, 3), events(3, 3)], live=events(6, 2)).data()
    path = tmp_path / "1.1.0000000000000001.raw"
    for size in range(0, len(whole), 31):
        path.write_bytes(whole[:size])
        found = numbers(read_folder(tmp_path))
        assert set(found) <= set(range(8))
        assert len(found) == len(set(found))
        if size >= PAGE + 16 + 2 * 96 and size >= PAGE + LIVE_SIZE:
            assert {6, 7} <= set(found)


def test_every_damage_is_survived(tmp_path: Path) -> None:
    whole = bytearray(RawBuilder(flushed=[events(0, 6)], live=events(6, 6)).data())
    path = tmp_path / "1.1.0000000000000001.raw"
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(data)) if rng.random() < 0.3 else rng.randrange(PAGE + 900)
            data[at] = rng.randrange(256)
        path.write_bytes(data)
        raw = read_folder(tmp_path)
        for chunk in raw.chunks(5):
            for row in range(len(chunk)):
                assert len(chunk.text(row)) <= len(data)
                chunk.out(row)


def test_what_is_no_raw_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.1.0000000000000001.raw").write_bytes(b"\x7fELF".ljust(9000, b"\0"))
    (tmp_path / "2.2.0000000000000001.raw").write_bytes(b"short")
    with pytest.raises(RawError, match="not a raw trace file"):
        RawFile(tmp_path / "1.1.0000000000000001.raw")
    RawBuilder(live=events(0, 2)).write(tmp_path)
    raw = read_folder(tmp_path)
    assert len(raw.broken) == 2
    assert numbers(raw) == [0, 1]


def test_an_empty_folder_is_an_empty_trace(tmp_path: Path) -> None:
    raw = read_folder(tmp_path)
    assert (raw.n_calls, raw.lost_events, list(raw.chunks(10))) == (0, 0, [])


def test_events_written_late_are_sorted_in(tmp_path: Path) -> None:
    # A signal handler's calls are written before the call that it interrupted.
    live = [Event("close", (1,), tsc=3000), Event("poll", (0,), tsc=2500, dur=900)]
    raw = trace(tmp_path, RawBuilder(live=live))
    assert numbers(raw) == [0, 1]
    assert all((chunk.flags == DONE).all() for chunk in raw.chunks(10))
