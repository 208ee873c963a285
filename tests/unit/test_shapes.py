# SPDX-License-Identifier: MIT
"""Motifs of every shape as compounds: from the mined datasets' own forms, or a reason why not."""

from __future__ import annotations

import dataclasses

import pytest

from miner.motifs import Arg, ArgKind, Call, Continuation, Kind, Loop, Motif, Over, PathSeen, Seen
from synth import language as lang
from synth.compile import compile_profile
from synth.constants import AT_FDCWD
from synth.shapes import UnsuitableError, compound_of, unique
from tracer.syscalls import by_name

RESULT = Arg(ArgKind.RESULT, call=0)
FDCWD = Arg(ArgKind.CONST, value=-100)
NONE = Arg(ArgKind.NONE)
OUT = Arg(ArgKind.OUT)


def call(name: str, *args: Arg, flags: int | None = None, **changes: object) -> Call:
    padded = [*args, *[NONE] * (6 - len(args))]
    made = Call(
        syscall=name,
        nr=by_name()[name].nr,
        sclass=str(by_name()[name].cls),
        args=padded,
        flags=[] if flags is None else [Seen(flags, 100)],
        mask=[],
        optional=False,
        share=1.0,
        per_iteration=1.0,
        count=100,
        time_ns=1000,
        errors=0,
        error_names={},
        bytes_in=0,
        bytes_out=0,
        types={},
        xattrs=[],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def open_of(path: Arg, dirfd: Arg = FDCWD, flags: int = 0o2000000) -> Call:
    return call("openat", dirfd, path, Arg(ArgKind.CONST, value=flags), flags=flags)


FSTAT = call("newfstatat", RESULT, Arg(ArgKind.STRING, text=""), OUT, flags=0x1000)
READ = call("read", RESULT, OUT, Arg(ArgKind.UNKNOWN), to_end=1.0)
CLOSE = call("close", RESULT)
ITEM = Arg(ArgKind.ITEM)


def motif(over: Over | None, *calls: Call, name: str = "shape", **changes: object) -> Motif:
    loop = Loop(over, instances=10, iterations=100, per_instance={"max": 10.0}) if over else None
    if loop:
        loop = dataclasses.replace(loop, **changes)  # type: ignore[arg-type]
    return Motif(
        name=name,
        kind=Kind.LOOP if loop else Kind.REPEAT,
        loop=loop,
        calls=list(calls),
        pure=True,
        crossings=400,
        time_ns=1,
        bytes=0,
        share=0.5,
        instances_by_program={"/usr/bin/x": 10},
        build_ids={},
        continuation=[],
        continuation_files=[],
        example=[],
        predicted={},
        members=[name],
    )


def verified(compound: lang.Compound) -> lang.Compound:
    compile_profile(lang.Profile((compound,)), "test")
    return compound


def test_the_order_of_dependence_and_what_is_answered() -> None:
    made = verified(compound_of(motif(Over.FILES, open_of(ITEM), FSTAT, READ, CLOSE)))
    assert [c.name for c in made.body] == ["openat", "newfstatat", "read", "close"]
    assert made.body[2].until
    assert made.body[2].conditions == (lang.Condition("type", 1, "==", 0o100000),)
    assert not made.loop
    assert made.triggers == (lang.Pattern("openat", (), 0o2000000),)
    assert [(p.call, p.flags) for p in made.serves] == [("newfstatat", 0x1000), ("read", None)]


def test_what_writes_is_left_out() -> None:
    with pytest.raises(UnsuitableError, match="nothing in it can be made ahead"):
        compound_of(motif(Over.FILES, open_of(ITEM, flags=0o1101), CLOSE))


def test_directories_are_not_opened_ahead() -> None:
    with pytest.raises(UnsuitableError):
        compound_of(motif(Over.FILES, open_of(ITEM, flags=0o200000), FSTAT, CLOSE))


def test_a_loop_over_entries_needs_more_to_follow_than_not() -> None:
    stat = call("newfstatat", Arg(ArgKind.DIR), Arg(ArgKind.NAME), OUT, flags=0x100)
    loop = motif(Over.ENTRIES, stat, entries={"max": 100.0}, coverage={"file": 1.0, "dir": 1.0})
    loop.continuation = [Continuation(1, 8, 15, 10, 9, 90, 90, 100)]
    made = verified(compound_of(loop))
    assert (made.loop, made.nth, made.min_entries) == (True, 2, 4)
    loop.continuation = [Continuation(1, 8, 15, 10, 1, 1, 1, 100)]
    with pytest.raises(UnsuitableError, match="were about to stop"):
        compound_of(loop)


def test_links_are_read_only_where_they_are_links() -> None:
    stat = call("newfstatat", Arg(ArgKind.DIR), Arg(ArgKind.NAME), OUT, flags=0x100)
    link = call("readlinkat", Arg(ArgKind.DIR), Arg(ArgKind.NAME), OUT, Arg(ArgKind.UNKNOWN))
    loop = motif(Over.ENTRIES, stat, link, coverage={"file": 1.0})
    loop.continuation = [Continuation(1, 8, 15, 10, 9, 90, 90, 100)]
    made = verified(compound_of(loop))
    assert lang.Condition("type", 0, "==", 0o120000) in made.body[1].conditions


def test_a_list_that_changes_is_refused() -> None:
    stat = call("newfstatat", FDCWD, ITEM, OUT, flags=0)
    paths = [PathSeen("/a", 3, 3), PathSeen("/b", 3, 0)]
    made = verified(compound_of(motif(Over.PATHS, stat, known=0.9, paths=paths)))
    assert made.paths == ("/a", "/b")
    assert made.listed
    assert made.body[0].args[0] == lang.Number(AT_FDCWD, "FDCWD")
    with pytest.raises(UnsuitableError, match="3% was met before"):
        compound_of(motif(Over.PATHS, stat, known=0.03, paths=paths))


def test_reads_until_the_end_are_of_regular_files() -> None:
    read = call("read", Arg(ArgKind.FILE), OUT, Arg(ArgKind.UNKNOWN))
    made = verified(compound_of(motif(Over.UNTIL_EOF, read)))
    assert made.regular
    assert made.body[0].until
    with pytest.raises(UnsuitableError, match="only read, alone and of a regular file"):
        compound_of(motif(Over.UNTIL_EOF, call("getdents64", Arg(ArgKind.FILE), OUT)))


def test_sequences_have_no_trigger() -> None:
    for over in (None, Over.TANDEM):
        with pytest.raises(UnsuitableError, match="brk: only the program itself can make these"):
            compound_of(motif(over, call("brk", Arg(ArgKind.UNKNOWN))))
        with pytest.raises(UnsuitableError, match=r"\(stat, brk\): none says what the next"):
            compound_of(
                motif(over, call("stat", Arg(ArgKind.PATH), OUT), call("brk", Arg(ArgKind.UNKNOWN)))
            )


def test_what_opening_alone_answers() -> None:
    """Programs open files themselves: a directory, or one of which nothing else is asked."""
    with pytest.raises(UnsuitableError, match=r"only an open can be made ahead \(openat, close\)"):
        compound_of(motif(Over.FILES, open_of(ITEM), call("ioctl", RESULT), call("close", RESULT)))


def test_variants_are_put_together() -> None:
    one = compound_of(motif(Over.FILES, open_of(ITEM), FSTAT, READ, CLOSE))
    other = dataclasses.replace(
        one, triggers=(lang.Pattern("openat", (), 0o400000),), evidence=("two",)
    )
    last = compound_of(motif(Over.FILES, open_of(ITEM), FSTAT, CLOSE))
    merged = unique([one, other, last])
    assert [c.name for c in merged] == ["shape", "shape-v2"]
    assert merged[0].triggers == (lang.Pattern("openat", (), 0o2400000),)
    assert merged[0].evidence == ("two",)
