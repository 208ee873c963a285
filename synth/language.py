# SPDX-License-Identifier: MIT
"""The compound language: its abstract syntax and its canonical printed form.

`synth.parser.parse` reads the text, `print_profile` writes it; parsing what was printed gives the
same tree. docs/compound-language.md is the reference for people.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from synth.constants import flag_family, spell, spell_value

SUBJECTS: Final = ("D", "name", "path", "F")
EXECUTORS: Final = ("inline", "ahead", "bpf", "module", "reference")
FIELDS: Final = ("ret", "errno", "type", "mode", "size")
RELATIONS: Final = ("==", "!=", "<=", ">=")

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
    """`e.name` inside a loop, `name` (the trigger's) outside; `/"suffix"` may follow."""

    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """`D/e.name` or `D/name`: the directory joined with the name; `/"suffix"` may follow."""

    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """`p`: the path of this iteration of a loop over paths; `/"suffix"` may follow."""

    suffix: str = ""


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
    """`trigger(K)`: argument K of the triggering call, counted from 0; `/"suffix"` behind a path"""

    index: int
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """`size(K)` or `size(K)+N`: the size of the file that call K of the body told of, plus N."""

    index: int
    addend: int = 0


Argument = Number | Text | Directory | Name | Path | Item | Out | Result | Trigger | Size


@dataclass(frozen=True, slots=True)
class Condition:
    """`field(K) relation value`: what must hold of call K's result for another call to run.

    `field` is one of FIELDS, `relation` one of RELATIONS; `value` has 64 bits, signed for `ret`.
    """

    field: str
    index: int
    relation: str
    value: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a body. Output buffers may be left out: lowering adds them.

    `optional`: not every iteration of the mined loop had it; `until`: again and again, until it
    returns 0 or fails; `conditions`: all of these must hold for it to run.
    """

    name: str
    args: tuple[Argument, ...] = ()
    optional: bool = False
    until: bool = False
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which calls trigger a compound (`on`) or are answered by it (`serve`).

    `subjects` names the arguments that matter, as written (see SUBJECTS); `flags` and `mask`
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
class Reach:
    """How far into a directory a loop over its entries goes; see `synth.chunks`.

    At first over `chunk` entries; each time calls about one in `miss` of those that the next would
    reach went unanswered, `grow` times as far.
    """

    chunk: int = 1024
    grow: int = 1024
    miss: int = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use: calls answered, bytes of results held, nanoseconds in the executor.

    `reach`: of a loop over entries; None where it is not said (then `Reach()`), and elsewhere.
    """

    ops: int = 65536
    bytes: int = 16 << 20
    time_ns: int = 20_000_000
    reach: Reach | None = None


@dataclass(frozen=True, slots=True)
class Compound:
    """A trigger, a body and the calls that the body's results answer.

    `loop`: the body runs for each entry of D; `paths`: for each of these; neither: once.
    `leaf`: only once calls of this kind have met something else than directories; `regular`: the
    call's descriptor is a regular file's; `listed`: its path is one of `paths`. `nth`: fires at
    the nth matching call (with `child`: within one directory); `min_entries`: and only where D has
    at least so many; `executors` None: all that can.
    """

    name: str
    triggers: tuple[Pattern, ...]
    body: tuple[Call, ...]
    serves: tuple[Pattern, ...]
    loop: bool = True
    paths: tuple[str, ...] = ()
    scanned: bool = True
    child: bool = True
    leaf: bool = False
    regular: bool = False
    listed: bool = False
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


GUARDS: Final = {
    "scanned": "scanned(D)",
    "child": "child(D, name)",
    "leaf": "leaf(name)",
    "regular": "regular(F)",
    "listed": "listed(path)",
}
"""The guards of a compound by their field, as they are written."""


def print_call(call: Call, *, loop: bool = True) -> str:
    """A call as it stands in a body, without its keyword."""
    text = f"{call.name}({', '.join(_argument(arg, loop) for arg in call.args)})"
    conditions = " and ".join(print_condition(condition) for condition in call.conditions)
    return f"{text} if {conditions}" if conditions else text


def print_condition(condition: Condition) -> str:
    """A condition as it stands behind `if`."""
    value = spell_value(condition.field, condition.value)
    return f"{condition.field}({condition.index}) {condition.relation} {value}"


def print_pattern(pattern: Pattern) -> str:
    """A pattern as it stands in an `on` or `serve` line."""
    words = list(pattern.subjects)
    if pattern.attribute is not None:
        words.append(quote(pattern.attribute))
    if pattern.flags is not None:
        words.append(f"flags within {spell(flag_family(pattern.call), pattern.flags)}")
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
        case Name(suffix):
            return name + _suffix(suffix)
        case Path(suffix):
            return f"D/{name}{_suffix(suffix)}"
        case Item(suffix):
            return "p" + _suffix(suffix)
        case Out(size):
            return f"out({size})"
        case Result(index):
            return f"result({index})"
        case Trigger(index, suffix):
            return f"trigger({index}){_suffix(suffix)}"
        case Size(index, addend):
            return f"size({index})+{addend}" if addend else f"size({index})"


def _suffix(text: str) -> str:
    return f"/{quote(text)}" if text else ""


def _clause(keyword: str, text: str, indent: int = 2) -> str:
    return f"{' ' * indent}{keyword:<{10 - indent}} {text}"


def _compound(compound: Compound) -> list[str]:
    lines = [f"{'explicit ' if compound.explicit else ''}compound {compound.name}"]
    lines += [f"  {_comment(line)}" for line in compound.evidence]
    lines += [_clause("on", print_pattern(pattern)) for pattern in compound.triggers]
    guards = [text for name, text in GUARDS.items() if getattr(compound, name)]
    if guards:
        lines.append(_clause("where", " and ".join(guards)))
    lines.append(_clause("when", f"nth {compound.nth}, entries {compound.min_entries}"))
    lines += [_clause("path", quote(path)) for path in compound.paths]
    once = "  each p in paths" if compound.paths else "  once"
    lines.append("  each e in entries(D)" if compound.loop else once)
    for call in compound.body:
        keyword = ("maybe until" if call.until else "maybe") if call.optional else ""
        keyword = keyword or ("until" if call.until else "call")
        lines.append(_clause(keyword, print_call(call, loop=compound.loop), indent=4))
    limits = compound.limits
    size, time = print_size(limits.bytes), print_time(limits.time_ns)
    words = f"ops {limits.ops}, bytes {size}, time {time}"
    if limits.reach:
        reach = limits.reach
        words += f", chunk {reach.chunk}, grow {reach.grow}, miss {reach.miss}"
    lines.append(_clause("limit", words))
    lines += [_clause("serve", print_pattern(pattern)) for pattern in compound.serves]
    if compound.executors is not None:
        lines.append(_clause("executor", ", ".join(compound.executors)))
    return lines
