# SPDX-License-Identifier: MIT
"""Parts of the shim without a program around them: what the reckoning and the memory promise."""

from __future__ import annotations

import subprocess

from tests.conftest import ROOT, Compiler

FLAGS = (
    "-ffreestanding",
    "-fno-strict-aliasing",
    f"-I{ROOT / 'shim'}",
    f"-I{ROOT / 'kmod' / 'uapi'}",
    str(ROOT / "shim" / "sys.c"),
)


def lines_of(compiled: Compiler, program: str) -> list[str]:
    """What the program prints, which has the part that it is about in it."""
    done = subprocess.run([compiled(program, *FLAGS)], capture_output=True, check=True, text=True)
    return done.stdout.splitlines()


def test_what_is_lost(compiled: Compiler) -> None:
    """A depth-first walk leaves a large directory for a small one, and comes back. Looks cost."""
    assert lines_of(compiled, "account.c") == [
        "a third asked, the rest to come: 1",
        "a third asked, nothing to come: 0",
        "one asked, the rest never: 0",
        "one look in vain: 0",
        "nothing but looks: 1",
        "each fourth answered: 0",
        "none of a file's calls answered: 1, one: 0, one of many: 1",
        "everything asked: of 100 gain, of 1 too little",
        "next to nothing asked: of 100 waste, of 1 too little",
        "a walk that will come back: gain, from too much: waste",
        "more than may be lost: 0, after some were missed: 1, after all were answered: 1",
        "as much as that: 1, while the last is not paid for: 0",
        "a call takes 2980; if enough are left to the kernel 1000",
    ]


def test_results_are_their_own_directorys(compiled: Compiler) -> None:
    """Found of the first and the second of two directories; -1: the other's record."""
    assert lines_of(compiled, "results.c") == [
        "room for all: 52, 16",
        "the index is full in the middle of a page: 32, 16",
        "no room for the second page: 32, 16",
        "waiting: 10",
        "waiting when given up: 0",
        "in its place: 10, alone",
        "three asked before, six answered: both",
        "seven answered: alone",
        "in another epoch: 0",
    ]


def test_names_are_read_as_far_as_memory_goes(compiled: Compiler) -> None:
    assert lines_of(compiled, "name.c") == [
        "within a page: 255, up to its end: 255, across: 4845",
        "one byte too long: 0",
        "no names: 9, names: 8",
        "cut by memory that cannot be read: 19",
        "most names have a place of their own: 1",
        "nowhere: 0",
    ]


def test_what_is_known_of_memory(compiled: Compiler) -> None:
    """Only what a call may have changed is looked at again; what is gone is not used."""
    assert lines_of(compiled, "mem.c") == [
        "all: 128",
        "a page: 127 of 128 known",
        "part of two: 126 of 128 known",
        "nothing: 128 of 128 known",
        "more than a few: 0 of 128 known",
        "more than there is: 0 of 128 known",
        "gone: 0",
        "heap: 10, more: 12, asked: 12, less: 0, again: 4, cut: 0, interrupted: 0",
        "in the heap: 1 1, no more: 0",
        "known from an age ago: 0",
    ]


def test_a_firing_ends_when_its_compounds_time_is_over(compiled: Compiler) -> None:
    """An executor takes 1 ms each time and would never be done."""
    assert lines_of(compiled, "firing.c") == [
        "1 ns: 1 runs, of 1 to 1 ns",
        "1000000 ns: 1 runs, of 1000000 to 1000000 ns",
        "2500000 ns: 3 runs, of 2500000 to 500000 ns",
        "1000000000 ns: 20 runs, of 20000000 to 1000000 ns",
        # No more than the compound's chunk, of a directory of which nothing is known yet.
        "1000000000 ns: 8 runs, of 20000000 to 13000000 ns",
        # Later ones in the same directory reach further, up to the limit.
        "chunk 1, grow 2, at most 60000: 1 2 4 8",
        "chunk 2, grow 3, at most 60000: 2 6 18 20 the end",
        "chunk 1, grow 1048576, at most 12: 1 12 the end 1 12 the end",
    ]
