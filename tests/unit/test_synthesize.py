# SPDX-License-Identifier: MIT
"""The synthesizer's decisions, on motif files as the miner writes them."""

from __future__ import annotations

import dataclasses

import pytest

from miner.cost import Calibration
from miner.motifs import (
    Arg,
    ArgKind,
    Call,
    Continuation,
    Kind,
    Loop,
    Motif,
    MotifFile,
    Over,
    Seen,
    TraceInfo,
    XattrSeen,
)
from synth import chunks
from synth.compile import compile_profile
from synth.image import read
from synth.language import print_profile
from synth.parser import parse
from synth.synthesize import synthesize, triggers
from tracer.syscalls import by_name

CHILDREN = 10
DIRECTORIES = 1000

# Cheap runs: the directories of these tests are small.
COSTS = Calibration(serve_ns=60.0, bpf_run_ns=1100.0, bpf_child_ns=330.0)


def call(name: str, *, count: int, types: dict[str, int] | None = None, **changes: object) -> Call:
    """A pure call on each entry; the kernel took 1.5 µs for it."""
    at = by_name()[name].args[0] == "dirfd"
    args = [Arg(ArgKind.DIR), Arg(ArgKind.NAME)] if at else [Arg(ArgKind.PATH)]
    made = Call(
        syscall=name,
        nr=by_name()[name].nr,
        sclass=str(by_name()[name].cls),
        args=args,
        flags=[Seen(0x100, count)] if at else [],
        mask=[],
        optional=False,
        share=1.0,
        per_iteration=1.0,
        count=count,
        time_ns=1500 * count,
        errors=0,
        error_names={},
        bytes_in=0,
        bytes_out=0,
        types=types or {"file": count - count // 10, "dir": count // 10},
        xattrs=[],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def continuation(goes_on: float = 1.0, children: int = CHILDREN) -> list[Continuation]:
    """Of all directories that had a call, the share `goes_on` visits all its children."""
    rows = []
    for n in (1, 2, 4, 8):
        reached = DIRECTORIES if n == 1 else int(DIRECTORIES * goes_on)
        if n > children or not reached:
            break
        going = int(DIRECTORIES * goes_on) if n < children else 0
        left = going * (children - n)
        rows.append(Continuation(n, 8, 15, reached, going, left, left, reached * children))
    return rows


def motif(calls: list[Call], rows: list[Continuation], name: str = "dirscan-stat") -> Motif:
    count = sum(c.count for c in calls)
    loop = Loop(
        Over.ENTRIES,
        instances=DIRECTORIES,
        iterations=DIRECTORIES * CHILDREN,
        per_instance={"max": 700.0},
        entries={"max": 700.0},
        scanned=DIRECTORIES,
    )
    return Motif(
        name=name,
        kind=Kind.LOOP,
        loop=loop,
        calls=calls,
        pure=True,
        crossings=count,
        time_ns=sum(c.time_ns for c in calls),
        bytes=0,
        share=0.5,
        instances_by_program={"/usr/bin/du": DIRECTORIES},
        build_ids={"/usr/bin/du": "ab" * 20},
        continuation=rows,
        continuation_files=[],
        example=[],
        predicted={},
        members=[name],
    )


def motif_file(*motifs: Motif) -> MotifFile:
    time_ns = 2 * sum(m.time_ns for m in motifs)
    trace = TraceInfo("du.cosytrace", ["du", "-s"], "shim", 12345, 0, time_ns, 0)
    return MotifFile([trace], COSTS.to_json(), list(motifs))


STATS = call("newfstatat", count=DIRECTORIES * CHILDREN)


def test_a_loop_of_stats_becomes_a_compound_that_verifies() -> None:
    profile, decisions = synthesize([motif_file(motif([STATS], continuation()))])
    (compound,) = profile.compounds
    family = ["newfstatat", "statx", "lstat", "stat"]
    assert [pattern.call for pattern in compound.triggers] == family
    assert [pattern.call for pattern in compound.serves] == family
    assert compound.scanned
    assert compound.child
    assert compound.leaf
    assert decisions[0].compound is compound
    assert "du" in compound.evidence[0]
    assert "50% of the time" in compound.evidence[0]
    image = read(compile_profile(profile, "test"))
    assert image.compounds[0].nth == compound.nth
    assert parse(print_profile(profile)) == profile


def test_all_children_visited_fires_early() -> None:
    profile, _ = synthesize([motif_file(motif([STATS], continuation()))])
    assert profile.compounds[0].nth <= 2


def test_programs_that_mostly_look_once_fire_later() -> None:
    rows = continuation(goes_on=0.15)
    early, *_ = triggers([motif([STATS], rows)], COSTS)
    assert early.nth == 1
    assert early.net_ns < 0
    profile, _ = synthesize([motif_file(motif([STATS], rows))])
    assert profile.compounds[0].nth >= 2


def test_programs_that_never_go_on_give_none() -> None:
    profile, (decision,) = synthesize([motif_file(motif([STATS], continuation(goes_on=0.0)))])
    assert profile.compounds == ()
    assert "not worth it" in decision.reason


def test_directories_that_are_too_small_are_left_alone() -> None:
    rows = continuation()
    small = [
        Continuation(1, 1, 1, 5000, 0, 0, 0, 5000),
        Continuation(1, 2, 3, 5000, 100, 100, 100, 12000),
    ]
    profile, _ = synthesize([motif_file(motif([STATS], [*small, *rows]))])
    assert profile.compounds[0].min_entries == 8


def test_find_name_gives_none() -> None:
    opens = call("openat", count=DIRECTORIES, flags=[])
    profile, (decision,) = synthesize([motif_file(motif([opens], continuation()))])
    assert profile.compounds == ()
    assert "no call in it asks for an entry's attributes by name (openat)" in decision.reason


def test_a_walk_that_asks_about_directories_only_gives_none() -> None:
    count = DIRECTORIES * CHILDREN
    walk = call("newfstatat", count=count, types={"dir": count})
    profile, (decision,) = synthesize([motif_file(motif([walk], continuation()))])
    assert profile.compounds == ()
    assert "directories only" in decision.reason


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (Over.UNTIL_EOF, "no fast executor runs that yet"),
        (Over.TANDEM, "no executor runs them in fewer crossings"),
    ],
)
def test_other_loops_give_none(over: Over, reason: str) -> None:
    other = motif([STATS], continuation())
    assert other.loop is not None
    other.loop.over = over
    profile, (decision,) = synthesize([motif_file(other)])
    assert profile.compounds == ()
    assert reason in decision.reason


def test_a_repeat_gives_none() -> None:
    repeat = motif([STATS], [])
    repeat.kind, repeat.loop = Kind.REPEAT, None
    profile, (decision,) = synthesize([motif_file(repeat)])
    assert profile.compounds == ()
    assert "without a loop" in decision.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": [Seen(0x1100, 1)]},  # AT_EMPTY_PATH
        {"mask": [Seen(0x800, 1)]},  # STATX_BTIME
        {"args": [Arg(ArgKind.DIR), Arg(ArgKind.UNKNOWN)]},
    ],
)
def test_calls_that_a_record_does_not_answer_count_for_nothing(changes: dict[str, object]) -> None:
    other = dataclasses.replace(STATS, **changes)  # type: ignore[arg-type]
    profile, (decision,) = synthesize([motif_file(motif([other], continuation()))])
    assert profile.compounds == ()
    assert "a scan answers none" in decision.reason


def test_absent_attributes_are_served_if_programs_ask_for_one() -> None:
    count = STATS.count
    selinux = call(
        "lgetxattr", count=count, xattrs=[XattrSeen("security.selinux", count, count, 0)]
    )
    profile, _ = synthesize([motif_file(motif([STATS, selinux], continuation()))])
    (compound,) = profile.compounds
    served = {(pattern.call, pattern.attribute) for pattern in compound.serves}
    assert ("lgetxattr", "security.selinux") in served
    assert ("getxattr", "system.posix_acl_access") in served
    assert all(body.optional for body in compound.body if body.name == "lgetxattr")
    compile_profile(profile, "test")


def test_loops_of_several_programs_are_one_compound() -> None:
    lstat = call("lstat", count=STATS.count)
    files = [
        motif_file(motif([STATS], continuation())),
        motif_file(motif([lstat], continuation(), name="dirscan-lstat")),
    ]
    profile, (decision,) = synthesize(files)
    assert len(profile.compounds) == 1
    assert decision.motifs == ("dirscan-stat", "dirscan-lstat")
    assert decision.trigger is not None
    assert decision.trigger.fired == 2 * DIRECTORIES


def test_limits_leave_room_for_larger_directories() -> None:
    """As large as a run gets through: how much of them is run over is another decision."""
    profile, _ = synthesize([motif_file(motif([STATS], continuation()))])
    limits = profile.compounds[0].limits
    assert limits.ops == chunks.MOST_ENTRIES
    assert limits.bytes >= limits.ops * 80
    assert limits.time_ns >= limits.ops * COSTS.bpf_child_ns * 0.95


def test_what_single_calls_waited_is_no_reason_against_a_compound() -> None:
    """Learnt on a busy machine: of a hundred times the usual time most was spent waiting."""
    waited = dataclasses.replace(STATS, time_ns=100 * STATS.time_ns, usual_ns=STATS.time_ns)
    usual, _ = synthesize([motif_file(motif([STATS], continuation()))])
    busy, (decision,) = synthesize([motif_file(motif([waited], continuation()))])
    assert decision.compound is not None, decision.reason
    assert busy.compounds[0].nth == usual.compounds[0].nth


def test_how_far_runs_reach_stands_in_the_compound() -> None:
    made = motif([STATS], continuation())
    profile, _ = synthesize([motif_file(made)])
    assert profile.compounds[0].limits.reach == chunks.choose([made], COSTS)


def test_evidence_is_one_printable_line_whatever_the_command() -> None:
    file = motif_file(motif([STATS], continuation()))
    file.traces[0].command = ["du", "a\nserve fork", "\udcff"]
    profile, _ = synthesize([file])
    assert parse(print_profile(profile)) == profile


@pytest.mark.parametrize(("asked", "calls"), [(1.0, 1), (2.0, 2), (3.0, 3), (700.0, 3)])
def test_the_body_holds_a_call_as_often_as_programs_ask(asked: float, calls: int) -> None:
    twice = dataclasses.replace(STATS, repeats={"p50": 1.0, "p99": asked, "max": 900.0})
    profile, _ = synthesize([motif_file(motif([twice], continuation()))])
    body = profile.compounds[0].body
    assert [c.name for c in body] == ["newfstatat"] * calls
    assert [c.optional for c in body] == [False] + [True] * (calls - 1)
    assert parse(print_profile(profile)) == profile


def test_a_compound_for_all_programs_answers_twice_at_most() -> None:
    """docs/consistency.md, rule 2: one program's habits are not everybody's."""
    often = dataclasses.replace(STATS, repeats={"p50": 3.0, "p99": 3.0, "max": 3.0})
    one = motif([often], continuation())
    other = dataclasses.replace(
        motif([STATS], continuation()), instances_by_program={"/usr/bin/ls": DIRECTORIES}
    )
    for motifs, times in (([one], 3), ([one, other], 2)):
        profile, _ = synthesize([motif_file(*motifs)])
        assert len(profile.compounds[0].body) == times
