# SPDX-License-Identifier: MIT
"""The static verifier: whether an image means something that is safe to run.

The reader (`synth.image.read`) has checked offsets and counts; this checks types, bounds, purity,
that every argument can be computed, and that everything is finite. The shim does the same again
when it maps an image (shim/image.c): nobody trusts the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from synth.capability import STAT_CALLS, XATTR_CALLS, executors_for
from synth.constants import AT_FLAGS
from synth.errors import SynthError
from synth.image import (
    MAX_OPS,
    MAX_PATTERNS,
    ArgKind,
    CompoundFlag,
    Guard,
    Image,
    ImageArg,
    ImageCompound,
    ImageOp,
    ImagePattern,
    Loop,
    OpFlag,
)
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import Syscall, SyscallClass, by_nr

MAX_DEPTH: Final = 8
MAX_NTH: Final = 1024
MAX_ENTRIES: Final = 1 << 20
MAX_LIMIT_OPS: Final = 1 << 20
MAX_LIMIT_BYTES: Final = 256 << 20
MAX_LIMIT_TIME_NS: Final = 1_000_000_000
MAX_OUT: Final = 1 << 20
MAX_NAME: Final = 64
MAX_ATTRIBUTE: Final = 255  # XATTR_NAME_MAX
MAX_PATH: Final = 4095  # PATH_MAX without the NUL

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_IN_SCAN: Final = Guard.SCANNED | Guard.CHILD  # what makes D and its names known
_KNOWN_AT: Final = sum(AT_FLAGS.values())
_OUT_KINDS: Final = {
    CallArg.STAT_OUT: 144,
    CallArg.STATX_OUT: 256,
    CallArg.BUF_OUT: 1,
    CallArg.DIRENTS_OUT: 24,
}
_POINTERS_IN: Final = frozenset({CallArg.BUF_IN, CallArg.IOV_IN, CallArg.IOV_OUT, CallArg.PTR})
_TEXT: Final = frozenset({CallArg.PATH, CallArg.PATH2, CallArg.NAME, CallArg.STR})


def problems(image: Image) -> list[str]:
    """Everything that is wrong with the image, one line each; empty: it may be used."""
    found: list[str] = []
    names: set[str] = set()
    for number, compound in enumerate(image.compounds):
        label = compound.name if _NAME.match(compound.name) else f"number {number}"
        if not _NAME.match(compound.name) or len(compound.name) > MAX_NAME:
            found.append(f"compound {label}: its name is none: lower-case letters, digits, hyphens")
        elif compound.name in names:
            found.append(f"compound {label}: a second one of this name")
        names.add(compound.name)
        found += [f"compound {label}: {problem}" for problem in _compound(compound)]
    return found


def check(image: Image, source: str) -> None:
    """Raise SynthError with the first problem of the image, if it has any."""
    found = problems(image)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SynthError(f"{source}: {found[0]}{more}")


def _compound(compound: ImageCompound) -> Iterator[str]:
    explicit = compound.flags == CompoundFlag.EXPLICIT
    if compound.flags not in (CompoundFlag.SPECULATIVE, CompoundFlag.EXPLICIT):
        yield f"flags {compound.flags:#x}: either speculative or explicit"
    if compound.guards & ~sum(Guard):
        yield f"unknown guards {compound.guards:#x}"
    if compound.loop not in (Loop.NONE, Loop.ENTRIES):
        yield f"unknown loop {compound.loop}"
    if compound.loop == Loop.ENTRIES and compound.guards & _IN_SCAN != _IN_SCAN:
        yield "a loop over entries(D) needs scanned(D) and child(D, name)"
    yield from _between("depth", compound.depth, 0, MAX_DEPTH)
    if compound.depth and compound.loop != Loop.ENTRIES:
        yield "depth without a loop over entries(D)"
    yield from _between("nth", compound.nth, 1, MAX_NTH)
    yield from _between("entries", compound.min_entries, 0, MAX_ENTRIES)
    yield from _between("limit ops", compound.limit_ops, 1, MAX_LIMIT_OPS)
    yield from _between("limit bytes", compound.limit_bytes, 1, MAX_LIMIT_BYTES)
    yield from _between("limit time (ns)", compound.limit_time_ns, 1, MAX_LIMIT_TIME_NS)
    yield from _between("number of calls", len(compound.ops), 1, MAX_OPS)
    yield from _between(
        "number of patterns", len(compound.triggers) + len(compound.serves), 1, MAX_PATTERNS
    )
    if not explicit and not (compound.triggers and compound.serves):
        yield "a speculative compound needs a trigger and something to serve"
    for index, op in enumerate(compound.ops):
        yield from _op(compound, index, op, explicit)
    for pattern in compound.triggers:
        yield from (f"trigger {p}" for p in _pattern(compound, pattern))
    for pattern in compound.serves:
        yield from (f"serve {p}" for p in _serve(compound, pattern))
    if compound.executors == 0:
        yield "no executor can run it"
    elif compound.executors & ~int(executors_for(compound)):
        yield f"executors {compound.executors:#x}: not all of them can run it"


def _between(what: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{what} {value}: must be {least} to {most}"


def _op(compound: ImageCompound, index: int, op: ImageOp, explicit: bool) -> Iterator[str]:
    call = by_nr().get(op.nr)
    if call is None:
        yield f"call {index}: no system call has number {op.nr}"
        return
    if not explicit and call.cls is not SyscallClass.PURE:
        yield f"call {index}: {call.name} is {call.cls}: only pure calls may run ahead"
    if call.cls in (SyscallClass.PROCESS, SyscallClass.UNKNOWN):
        yield f"call {index}: {call.name} is {call.cls}: no compound may hold it"
    if op.flags & ~int(OpFlag.OPTIONAL):
        yield f"call {index}: unknown flags {op.flags:#x}"
    if len(op.args) != len(call.args):
        yield f"call {index}: {call.name} takes {len(call.args)} arguments, not {len(op.args)}"
        return
    for position, (arg, kind) in enumerate(zip(op.args, call.args, strict=True)):
        problem = _argument(compound, index, arg, kind) or _relative(op, call, position)
        if problem:
            yield f"call {index}: {call.name}, argument {position}: {problem}"


_USES: Final[dict[int, tuple[bool, bool, bool]]] = {
    # kind: index, string, value may be set
    ArgKind.CONST: (False, False, True),
    ArgKind.STRING: (False, True, False),
    ArgKind.DIR: (False, False, False),
    ArgKind.NAME: (False, False, False),
    ArgKind.PATH: (False, False, False),
    ArgKind.OUT: (False, False, True),
    ArgKind.RESULT: (True, False, False),
    ArgKind.TRIGGER: (True, False, False),
}


def _argument(compound: ImageCompound, index: int, arg: ImageArg, kind: CallArg) -> str | None:
    """What is wrong with one argument of call `index`, given what the call takes there."""
    uses = _USES.get(arg.kind)
    if uses is None:
        return f"unknown kind {arg.kind}: it cannot be computed"
    for used, value, what in zip(uses, (arg.index, arg.string, arg.value), _FIELDS, strict=True):
        if value and not used:
            return f"its {what} is set but has no meaning"
    if kind in _POINTERS_IN:
        return "it points to memory of the program: it cannot be computed ahead"
    if kind in _OUT_KINDS:
        if arg.kind != ArgKind.OUT:
            return "an output buffer is needed: out(N)"
        if not _OUT_KINDS[kind] <= arg.value <= MAX_OUT:
            return f"out({arg.value}): must be {_OUT_KINDS[kind]} to {MAX_OUT} bytes"
        return None
    if arg.kind == ArgKind.OUT:
        return "no output buffer belongs here"
    if kind in _TEXT and arg.kind not in (ArgKind.STRING, ArgKind.NAME, ArgKind.PATH):
        return "a string is needed"
    if kind not in _TEXT and arg.kind in (ArgKind.STRING, ArgKind.NAME, ArgKind.PATH):
        return "no string belongs here"
    if arg.kind == ArgKind.STRING and not 0 < len(_raw(arg.string)) <= MAX_PATH:
        return "an empty or too long string"
    if (
        arg.kind in (ArgKind.DIR, ArgKind.NAME, ArgKind.PATH)
        and compound.guards & _IN_SCAN != _IN_SCAN
    ):
        return "D and its names are known only with scanned(D) and child(D, name)"
    if arg.kind == ArgKind.DIR and kind not in (CallArg.DIRFD, CallArg.FD):
        return "no descriptor belongs here"
    if arg.kind == ArgKind.RESULT and arg.index >= index:
        return f"result({arg.index}): only calls before this one have a result"
    if arg.kind == ArgKind.TRIGGER and compound.loop != Loop.NONE:
        return f"trigger({arg.index}): in a loop only D and e.name are known"
    if arg.kind == ArgKind.TRIGGER:
        return _trigger_argument(compound, arg.index, kind)
    if arg.kind == ArgKind.CONST and kind is CallArg.AT_FLAGS and arg.value & ~_KNOWN_AT:
        return f"unknown flags {arg.value & ~_KNOWN_AT:#x}"
    return None


_FIELDS: Final = ("index", "string", "value")


def _trigger_argument(compound: ImageCompound, index: int, kind: CallArg) -> str | None:
    for pattern in compound.triggers:
        call = by_nr().get(pattern.nr)
        if call is None or index >= len(call.args) or call.args[index] is not kind:
            return f"trigger({index}): not every triggering call has such an argument there"
    return None if compound.triggers else f"trigger({index}): there is no triggering call"


def _relative(op: ImageOp, call: Syscall, position: int) -> str | None:
    """A name is looked up in D, a joined path from the working directory: the dirfd must fit."""
    if op.args[position].kind != ArgKind.NAME:
        return None
    dirfd = call.index(CallArg.DIRFD)
    if dirfd is None or op.args[dirfd].kind != ArgKind.DIR:
        return "a bare name needs D as the call's dirfd; write D/e.name"
    return None


def _pattern(compound: ImageCompound, pattern: ImagePattern) -> Iterator[str]:
    call = by_nr().get(pattern.nr)
    if call is None:
        yield f"pattern: no system call has number {pattern.nr}"
        return
    if compound.guards & Guard.CHILD and call.index(CallArg.PATH) is None:
        yield f"{call.name}: the call names no child of D"
    at_flags = call.index(CallArg.AT_FLAGS) is not None
    if pattern.flags_allowed & ~(_KNOWN_AT if at_flags else 0):
        yield f"{call.name}: it has no such flags: {pattern.flags_allowed:#x}"
    if pattern.flags_allowed & AT_FLAGS["AT_EMPTY_PATH"] and compound.guards & Guard.CHILD:
        yield f"{call.name}: with AT_EMPTY_PATH the call may name no child of D"
    if pattern.mask_within and call.index(CallArg.STATX_MASK) is None:
        yield f"{call.name}: it has no mask"
    if bool(pattern.string) != (call.index(CallArg.NAME) is not None):
        yield f"{call.name}: an attribute's name belongs to xattr calls, and each needs one"
    if len(_raw(pattern.string)) > MAX_ATTRIBUTE:
        yield f"{call.name}: the attribute's name is too long"


def _serve(compound: ImageCompound, pattern: ImagePattern) -> Iterator[str]:
    yield from _pattern(compound, pattern)
    call = by_nr().get(pattern.nr)
    if call is None:
        return
    if call.cls is not SyscallClass.PURE:
        yield f"{call.name}: it is {call.cls}: only pure calls can be answered from memory"
    if not any(_answers(op, pattern, call) for op in compound.ops):
        yield f"{call.name}: no call of the body yields its answer"


def _answers(op: ImageOp, pattern: ImagePattern, served: Syscall) -> bool:
    """Whether the result of one call of the body answers the served call."""
    call = by_nr().get(op.nr)
    if call is None:
        return False
    if served.name in STAT_CALLS:
        return call.name in STAT_CALLS
    if served.name in XATTR_CALLS and call.name in XATTR_CALLS:
        return any(arg.string == pattern.string for arg in op.args)
    return op.nr == pattern.nr


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
