# SPDX-License-Identifier: MIT
"""Reads many plain lines of `strace -f -ttt` at once.

A block of lines is looked at as one array of bytes: where its quotes, brackets and commas are tells
where arguments begin and end. Words that repeat are turned into numbers once. What is not plain
(a call that makes or replaces a process, a task's first line, an end, anything odd) is handed
back, to be read line by line (strace_text.py), and both give the same records.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.columns import binary
from tracer.events import Bytes, Ints, Mask, cut

N_ARGS = 6
UNFINISHED = b" <unfinished ...>\n"
_RESUMED = b" resumed>"
_QUOTE, _OPEN, _CLOSE, _COMMA, _LESS, _MORE, _END = range(1, 8)
_LONGEST_NAME = 40  # of a call, or an error
_MAX_GAP = 60  # columns between the arguments and the result
_BEHIND = b" " * 16
_DURATION = 10  # bytes of "<0.000012>"


def _specials() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for code, letters in enumerate(('"', "{[(", "}])", ",", "<", ">", "\n"), _QUOTE):
        table[[ord(letter) for letter in letters]] = code
    return table


_SPECIAL = _specials()


@dataclass
class Sorted:
    """The lines of a block: plain ones as they were or joined, and the others."""

    plain: list[bytes]
    at: list[int]
    """Of each plain line: its number in the block."""
    tid: list[int]
    other: list[tuple[int, bytes]]
    """Number and text of the lines that are not plain."""


def sort(
    lines: Sequence[bytes],
    known: set[int],
    slow: frozenset[bytes],
    is_line: Callable[[bytes], object],
) -> Sorted:
    """Tell plain lines from others, and join calls that strace cut in two.

    `known` are the tasks that had a line before; `slow` are names of calls that are never plain;
    `is_line` tells what makes a task known.
    """
    found = Sorted([], [], [], [])
    begun: dict[int, tuple[int, bytes]] = {}
    known = set(known)
    for number, line in enumerate(lines):
        try:
            word, rest = line.split(b" ", 1)
            tid = int(word)
        except ValueError:
            found.other.append((number, line))
            continue
        cut_in_two = rest.find(_RESUMED, 18, 80)
        if cut_in_two < 0:
            plain = tid in known and rest.find(b"(", 18, 80) > 0 and b"." in rest[10:17]
        else:
            plain = tid in begun and line.endswith(b">\n")
        if plain:
            begin = rest.find(b" ", 12) + 1
            plain = rest[begin : rest.find(b"(", begin)] not in slow
        if line.endswith(UNFINISHED):
            if plain:
                begun[tid] = number, line
                continue
        elif cut_in_two > 0 and plain:
            _, first = begun.pop(tid)
            name = rest[rest.find(b"<... ") + 5 : cut_in_two]
            if first.find(b" " + name + b"(") > 0:
                tail = rest[cut_in_two + len(_RESUMED) :]
                line = first[: -len(UNFINISHED)] + tail.removeprefix(b",").removeprefix(b" ")
            else:
                found.other += [(number, first), (number, line)]
                continue
        elif cut_in_two > 0 and tid in begun:
            found.other.append(begun.pop(tid))
        if plain:
            found.plain.append(line)
            found.at.append(number)
            found.tid.append(tid)
        else:
            if b" +++ " in line[:40]:
                known.discard(tid)
                if tid in begun:
                    found.other.append(begun.pop(tid))
            elif tid not in known and is_line(line):
                known.add(tid)
            found.other.append((number, line))
    found.other += begun.values()
    found.other.sort(key=lambda pair: pair[0])
    return found


@dataclass
class Lines:
    """What stands in plain lines; arrays run in parallel, `good` says where the rest holds."""

    data: bytes
    text: Bytes
    good: Mask
    t_ns: Ints
    name: tuple[Ints, Ints]
    """Where the names of the calls are: first byte, and behind the last."""
    ret: Ints
    dur_ns: Ints
    begin: Ints
    """By argument and line, where it begins; -1: there is none."""
    end: Ints
    quotes: Ints
    """Where the quotes are, but those within strings."""
    less: Ints
    """Where the "<" are, but those within strings."""

    def words(self, first: Ints, end: Ints) -> pa.DictionaryArray:
        """Return parts of the text, each different one once."""
        size = end - first
        ends = np.zeros(len(size) + 1, np.int64)
        np.cumsum(size, out=ends[1:])
        return binary(cut(self.text, first, size), ends).dictionary_encode()

    def by_word(
        self, first: Ints, end: Ints, meaning: Callable[[bytes], int], kind: Any
    ) -> npt.NDArray[Any]:
        """Return what parts of the text mean, each different one looked at once."""
        found = self.words(first, end)
        values = np.array([meaning(word) for word in found.dictionary.to_pylist()], kind)
        codes = np.frombuffer(found.indices.buffers()[1], np.int32, len(found))
        return values[codes] if len(values) else np.empty(0, kind)

    def next(self, places: Ints, at: Ints) -> Ints:
        """Return the first of these places that is not before `at`; the end: there is none."""
        found = np.searchsorted(places, at)
        return np.append(places, len(self.data))[found]


def _digits(a: Bytes, at: Ints, most: int) -> tuple[Ints, Ints]:
    """Read decimal numbers of at most so many digits; returns them, and where they end."""
    value = np.zeros(len(at), np.int64)
    at = at.copy()
    for _ in range(most):
        digit = a[at] - np.uint8(48)
        there = digit < 10
        if not there.any():
            break
        value = np.where(there, value * 10 + digit, value)
        at += there
    return value, at


def _hex(a: Bytes, at: Ints) -> tuple[Ints, Ints]:
    """The same of hexadecimal numbers, of at most 15 digits."""
    value = np.zeros(len(at), np.int64)
    at = at.copy()
    for _ in range(15):
        byte = a[at]
        digit = np.where(byte < 58, byte - np.uint8(48), byte - np.uint8(87))
        there = (digit < 10) & (byte < 58) | (digit >= 10) & (digit < 16) & (byte > 96)
        value = np.where(there, value * 16 + digit, value)
        at += there
    return value, at


def _unescaped(a: Bytes, at: Ints) -> Mask:
    """Tell which of these bytes are not behind an odd number of backslashes."""
    run = np.zeros(len(at), np.int64)
    rows = np.flatnonzero(a[at - 1] == ord("\\"))
    while len(rows):
        run[rows] += 1
        rows = rows[a[at[rows] - 1 - run[rows]] == ord("\\")]
    plain: Mask = run % 2 == 0
    return plain


def parse(plain: Sequence[bytes]) -> Lines:
    """Find everything in lines that sort() found plain."""
    # So that there is always a byte before a place, and some behind it.
    data = b"".join((b"\n", *plain, _BEHIND))
    a = np.frombuffer(data, np.uint8)
    n = len(plain)
    place = np.flatnonzero(_SPECIAL[a])
    code = _SPECIAL[a[place]]
    line = np.cumsum(code == _END) - 1
    line[code == _END] -= 1
    newline = place[code == _END]
    start, end = newline[:-1] + 1, newline[1:]
    place, code, line = place[1:], code[1:], line[1:]
    good = np.ones(n, np.bool_)
    # Which are within strings, and which within <...>.
    quote = (code == _QUOTE) & _unescaped(a, place)
    before = _within(quote.astype(np.int64), line, n)
    inside = (before & 1) == 1
    good[line[(code == _END) & inside]] = False
    arrow = (code == _MORE) & (a[place - 1] == ord("-"))
    less, more = (code == _LESS) & ~inside, (code == _MORE) & ~inside & ~arrow
    angle = _within(less.astype(np.int64) - more, line, n)
    good[line[(angle < 0) | (angle > 1) | (code == _END) & (angle != 0)]] = False
    free = ~inside & (angle == 0)
    up, down = (code == _OPEN) & free, (code == _CLOSE) & free
    depth = _within(up.astype(np.int64) - down, line, n)
    # The head: a process, the time, a name.
    _, at = _digits(a, start, 10)
    for _ in range(6):
        at += a[at] == ord(" ")
    seconds, at = _digits(a, at, 11)
    good &= a[at] == ord(".")
    fraction, behind = _digits(a, at + 1, 6)
    good &= (behind == at + 7) & (a[behind] == ord(" "))
    name = behind + 1
    opened = _first(place, line, up & (depth == 0), n)
    closed = _first(place, line, down & (depth == 1), n)
    good &= (opened > name) & (opened < name + _LONGEST_NAME) & (closed > opened)
    # The result, behind " = ".
    equals = np.flatnonzero((a[1:-1] == ord("=")) & (a[:-2] == ord(" ")) & (a[2:] == ord(" "))) + 1
    result = np.append(equals, len(a) - 1)[np.searchsorted(equals, closed)]
    good &= (result - closed < _MAX_GAP) & (result < end)
    blanks = np.flatnonzero(a == ord(" "))
    between = np.searchsorted(blanks, result) - np.searchsorted(blanks, closed)
    good &= (a[closed] == ord(")")) & (between == result - closed - 1)
    comma = (code == _COMMA) & free & (depth == 1)
    found = Lines(
        data,
        a,
        good,
        seconds * 1_000_000_000 + fraction * 1000,
        (name, opened),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        *_arguments(a, opened, closed, place[comma], line[comma]),
        place[quote],
        place[less],
    )
    _results(found, np.where(good, result + 2, 1), end, blanks)
    return found


def _within(steps: Ints, line: Ints, n: int) -> Ints:
    """Return the sum of the steps before each place, within its line."""
    before = np.cumsum(steps) - steps
    first = np.searchsorted(line, np.arange(n))
    found: Ints = before - before[first][line] if n else before
    return found


def _first(place: Ints, line: Ints, which: Mask, n: int) -> Ints:
    """Return the first of these places in each line; -1: there is none."""
    found = np.full(n, -1, np.int64)
    lines = line[which][::-1]
    found[lines] = place[which][::-1]
    return found


def _arguments(a: Bytes, opened: Ints, closed: Ints, commas: Ints, of: Ints) -> tuple[Ints, Ints]:
    """Return where the first arguments of each call begin and end; `of`: the commas' lines."""
    n = len(opened)
    spaced = a[commas + 1] == ord(" ")
    commas, of = commas[spaced], of[spaced]
    first = np.searchsorted(of, np.arange(n + 1))
    count = np.diff(first)
    begin, end = np.full((N_ARGS, n), -1, np.int64), np.full((N_ARGS, n), -1, np.int64)
    some = closed > opened + 1
    begin[0, some] = opened[some] + 1
    for k in range(N_ARGS):
        has = some & (count >= k)
        more = has & (count > k)
        end[k, has] = closed[has]
        end[k, more] = commas[first[:-1][more] + k]
        if k + 1 < N_ARGS:
            begin[k + 1, more] = end[k, more] + 2
    return begin, end


def _results(found: Lines, at: Ints, end: Ints, blanks: Ints) -> None:
    """Read results and durations; takes from `good` the lines that have others."""
    a, good = found.text, found.good
    sign, second = a[at], a[at + 1]
    failed = (sign == ord("-")) & (second == ord("1")) & (a[at + 2] == ord(" "))
    failed &= a[at + 3] == ord("E")
    coded = (sign == ord("0")) & (second == ord("x"))
    value, behind = _digits(a, at, 18)
    good &= failed | (sign - np.uint8(48) < 10)
    rows = np.flatnonzero(coded)
    value[rows], behind[rows] = _hex(a, at[rows] + 2)
    good &= failed | np.isin(a[behind], np.frombuffer(b" <\n", np.uint8))
    rows = np.flatnonzero(failed & good)
    word = at[rows] + 3
    ends = np.minimum(found.next(blanks, word), end[rows])
    value[rows] = found.by_word(
        word, ends, lambda name: -getattr(errno, name.decode("latin-1"), 1 << 20), np.int64
    )
    good &= value > -(1 << 20)
    found.ret[:] = value
    timed = (a[end - 1] == ord(">")) & (a[end - 8] == ord(".")) & (a[end - _DURATION] == ord("<"))
    fraction, behind = _digits(a, end - 7, 6)
    timed &= (behind == end - 1) & (a[end - 9] - np.uint8(48) < 10)
    good &= timed | (a[end - 1] != ord(">"))
    whole = (a[end - 9] - np.uint8(48)).astype(np.int64)
    found.dur_ns[:] = np.where(timed, whole * 1_000_000_000 + fraction * 1000, 0)
