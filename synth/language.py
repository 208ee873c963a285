# SPDX-License-Identifier: MIT
"""The compound language: its abstract syntax and its canonical printed form.

`synth.parser.parse` reads the text, `print_profile` writes it; parsing what was printed gives the
same tree. docs/compound-language.md is the reference for people.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from synth.constants import spell

SUBJECTS: Final = ("D", "name", "path")
EXECUTORS: Final = ("inline", "ahead", "bpf", "module")

TIME_UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
SIZE_UNITS: Final = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}


@dataclass(frozen=True, slots=True)
class Number:
    """A constant; `family` ("AT", "STATX") says whose names spell it, "" a plain number."""

    value: int
    family: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A constant string."""

    value: str


@dataclass(frozen=True, slots=True)
class Directory:
    """`D`: the directory of the triggering call, as a dirfd."""


@dataclass(frozen=True, slots=True)
class Name:
    """`e.name` inside a loop, `name` (the trigger's) outside."""


@dataclass(frozen=True, slots=True)
class Path:
    """`D/e.name` or `D/name`: the directory joined with the name."""


@dataclass(frozen=True, slots=True)
class Out:
    """`out(N)`: a buffer of N bytes that the executor provides."""

    size: int


@dataclass(frozen=True, slots=True)
class Result:
    """`result(K)`: the return value of the compound's call number K, counted from 0."""

    index: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """`trigger(K)`: argument K of the triggering call, counted from 0."""

    index: int


Argument = Number | Text | Directory | Name | Path | Out | Result | Trigger


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a body. Output buffers may be left out: lowering adds them."""

    name: str
    args: tuple[Argument, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which calls trigger a compound (`on`) or are answered by it (`serve`).

    `subjects` names the arguments that matter, as written (`D`, `name`, `path`); `flags` and `mask`
    are the bits that a matching call may have (None: not stated); `attribute` is an xattr's name.
    """

    call: str
    subjects: tuple[str, ...] = ()
    flags: int | None = None
    mask: int | None = None
    attribute: str | None = None

    @property
    def bare(self) -> bool:
        """Only the call's name: everything else as in the trigger of the same call."""
        return self == Pattern(self.call)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use: calls answered, bytes of results held, nanoseconds in the executor."""

    ops: int = 65536
    bytes: int = 16 << 20
    time_ns: int = 20_000_000


@dataclass(frozen=True, slots=True)
class Compound:
    """A trigger, a body and the calls that the body's results answer.

    `leaf`: only once calls of this kind have met something else than directories; `nth`: fires at
    the nth matching call within one directory; `min_entries`: and only where D has at least so
    many; `depth`: levels of subdirectories that may ride along; `executors` None: all that can.
    """

    name: str
    triggers: tuple[Pattern, ...]
    body: tuple[Call, ...]
    serves: tuple[Pattern, ...]
    loop: bool = True
    depth: int = 0
    scanned: bool = True
    child: bool = True
    leaf: bool = False
    nth: int = 1
    min_entries: int = 0
    limits: Limits = field(default_factory=Limits)
    executors: tuple[str, ...] | None = None
    explicit: bool = False
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of compounds; `build_id` (hex) of the program they come from, "" for any program."""

    compounds: tuple[Compound, ...] = ()
    build_id: str = ""
    comments: tuple[str, ...] = ()


def print_profile(profile: Profile) -> str:
    """The canonical text of a profile, ending in a newline unless it is empty."""
    blocks: list[list[str]] = []
    if profile.comments:
        blocks.append([_comment(line) for line in profile.comments])
    if profile.build_id:
        blocks.append([f"program {profile.build_id}"])
    blocks.extend(_compound(compound) for compound in profile.compounds)
    return "\n\n".join("\n".join(block) for block in blocks) + ("\n" if blocks else "")


def print_call(call: Call, *, loop: bool = True) -> str:
    """A call as it stands in a body, without its keyword."""
    return f"{call.name}({', '.join(_argument(arg, loop) for arg in call.args)})"


def print_pattern(pattern: Pattern) -> str:
    """A pattern as it stands in an `on` or `serve` line."""
    words = list(pattern.subjects)
    if pattern.attribute is not None:
        words.append(quote(pattern.attribute))
    if pattern.flags is not None:
        words.append(f"flags within {spell('AT', pattern.flags)}")
    if pattern.mask is not None:
        words.append(f"mask within {spell('STATX', pattern.mask)}")
    return f"{pattern.call}({', '.join(words)})" if words else pattern.call


def quote(text: str) -> str:
    """A string literal: `\\` and `"` escaped, everything outside printable ASCII as \\xNN of UTF-8.

    Bytes that are no UTF-8 are carried as surrogates (PEP 383), as file names are in Python.
    """
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char in '\\"':
            out.append("\\" + char)
        elif 0x20 <= byte < 0x7F:
            out.append(char)
        else:
            out.append(f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'


def print_size(value: int) -> str:
    """Bytes in the largest unit that divides them."""
    for unit, factor in SIZE_UNITS.items():
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def print_time(value_ns: int) -> str:
    """Nanoseconds in the largest unit that divides them."""
    for unit, factor in TIME_UNITS.items():
        if value_ns % factor == 0 and (value_ns or unit == "ns"):
            return f"{value_ns // factor}{unit}"
    raise AssertionError("the last unit is 1 ns")


def _comment(text: str) -> str:
    return f"# {text}" if text else "#"


def _argument(arg: Argument, loop: bool) -> str:
    name = "e.name" if loop else "name"
    match arg:
        case Number(value, family):
            return spell(family, value)
        case Text(value):
            return quote(value)
        case Directory():
            return "D"
        case Name():
            return name
        case Path():
            return f"D/{name}"
        case Out(size):
            return f"out({size})"
        case Result(index):
            return f"result({index})"
        case Trigger(index):
            return f"trigger({index})"


def _clause(keyword: str, text: str, indent: int = 2) -> str:
    return f"{' ' * indent}{keyword:<{11 - indent}}{text}"


def _compound(compound: Compound) -> list[str]:
    lines = [f"{'explicit ' if compound.explicit else ''}compound {compound.name}"]
    lines += [f"  {_comment(line)}" for line in compound.evidence]
    lines += [_clause("on", print_pattern(pattern)) for pattern in compound.triggers]
    guards = ["scanned(D)"] * compound.scanned + ["child(D, name)"] * compound.child
    guards += ["leaf(name)"] * compound.leaf
    if guards:
        lines.append(_clause("where", " and ".join(guards)))
    lines.append(_clause("when", f"nth {compound.nth}, entries {compound.min_entries}"))
    depth = f", depth {compound.depth}" if compound.depth else ""
    lines.append(f"  each e in entries(D){depth}" if compound.loop else "  once")
    for call in compound.body:
        keyword = "maybe" if call.optional else "call"
        lines.append(_clause(keyword, print_call(call, loop=compound.loop), indent=4))
    limits = compound.limits
    size, time = print_size(limits.bytes), print_time(limits.time_ns)
    lines.append(_clause("limit", f"ops {limits.ops}, bytes {size}, time {time}"))
    lines += [_clause("serve", print_pattern(pattern)) for pattern in compound.serves]
    if compound.executors is not None:
        lines.append(_clause("executor", ", ".join(compound.executors)))
    return lines
