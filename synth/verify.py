# SPDX-License-Identifier: MIT
"""The static verifier: whether an image means something that is safe to run.

The reader (`synth.image.read`) has checked offsets and counts; this checks types, bounds, purity,
that every argument can be computed, and that everything is finite. shim/verify.c does the same
again when an image is mapped: nobody trusts the file. tests/native/test_image_fuzz.py holds the two
to the same verdict on thousands of damaged images, so a rule that changes here changes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from synth.capability import STAT_CALLS, XATTR_CALLS, executors_for
from synth.constants import AT_FDCWD, AT_FLAGS, OPEN_FLAGS
from synth.errors import SynthError
from synth.image import (
    MAX_CONDS,
    MAX_OPS,
    MAX_PATHS,
    MAX_PATTERNS,
    ArgKind,
    CompoundFlag,
    Field,
    Guard,
    Image,
    ImageArg,
    ImageCompound,
    ImageCond,
    ImageOp,
    ImagePattern,
    Loop,
    OpFlag,
    Relation,
)
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import Syscall, SyscallClass, by_nr

MAX_NTH: Final = 1024
MAX_ENTRIES: Final = 1 << 20
MAX_MISS: Final = 1024
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
_KNOWN_OPEN: Final = sum(OPEN_FLAGS.values())
_OUT_KINDS: Final = {
    CallArg.STAT_OUT: 144,
    CallArg.STATX_OUT: 256,
    CallArg.BUF_OUT: 1,
    CallArg.DIRENTS_OUT: 24,
}
_POINTERS_IN: Final = frozenset({CallArg.BUF_IN, CallArg.IOV_IN, CallArg.IOV_OUT, CallArg.PTR})
_TEXT: Final = frozenset({CallArg.PATH, CallArg.PATH2, CallArg.NAME, CallArg.STR})
_NUMBERS: Final = frozenset({CallArg.SIZE, CallArg.OFFSET, CallArg.COUNT, CallArg.INT})
_OPENS: Final = frozenset({"open", "openat"})
# Calls that the result of one another answers.
_FAMILIES: Final = (
    STAT_CALLS | {"fstat"},
    _OPENS,
    frozenset({"read", "pread64"}),
    frozenset({"readlink", "readlinkat"}),
    frozenset({"access", "faccessat", "faccessat2"}),
)


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
    if compound.loop not in tuple(Loop):
        yield f"unknown loop {compound.loop}"
    yield from _paths(compound)
    if compound.loop == Loop.ENTRIES and compound.guards & _IN_SCAN != _IN_SCAN:
        yield "a loop over entries(D) needs scanned(D) and child(D, name)"
    yield from _between("nth", compound.nth, 1, MAX_NTH)
    yield from _between("entries", compound.min_entries, 0, MAX_ENTRIES)
    if compound.loop == Loop.ENTRIES:
        yield from _between("chunk", compound.chunk, 1, MAX_ENTRIES)
        yield from _between("grow", compound.grow, 2, MAX_ENTRIES)
        yield from _between("miss", compound.miss, 1, MAX_MISS)
    elif compound.chunk or compound.grow or compound.miss:
        yield "a chunk without a loop over entries"
    yield from _between("limit ops", compound.limit_ops, 1, MAX_LIMIT_OPS)
    yield from _between("limit bytes", compound.limit_bytes, 1, MAX_LIMIT_BYTES)
    yield from _between("limit time (ns)", compound.limit_time_ns, 1, MAX_LIMIT_TIME_NS)
    yield from _between("number of calls", len(compound.ops), 1, MAX_OPS)
    yield from _between(
        "number of patterns", len(compound.triggers) + len(compound.serves), 0, MAX_PATTERNS
    )
    if not explicit and not (compound.triggers and compound.serves):
        yield "a speculative compound needs a trigger and something to serve"
    for index, op in enumerate(compound.ops):
        yield from _op(compound, index, op, explicit)
    for pattern in compound.triggers:
        yield from (f"trigger {p}" for p in _trigger(compound, pattern))
    for pattern in compound.serves:
        yield from (f"serve {p}" for p in _serve(compound, pattern))
    if compound.executors == 0:
        yield "no executor can run it"
    elif compound.executors & ~int(executors_for(compound)):
        yield f"executors {compound.executors:#x}: not all of them can run it"


def _paths(compound: ImageCompound) -> Iterator[str]:
    if compound.loop != Loop.PATHS:
        if compound.paths:
            yield "paths without a loop over them"
        if compound.guards & Guard.LISTED:
            yield "listed(path) without a loop over paths"
        return
    yield from _between("number of paths", len(compound.paths), 1, MAX_PATHS)
    if any(not 0 < len(_raw(path)) <= MAX_PATH for path in compound.paths):
        yield "an empty or too long path in the list"
    if compound.guards & (_IN_SCAN | Guard.LEAF):
        yield "a loop over paths knows no D: scanned, child and leaf have no meaning"


def _between(what: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{what} {value}: must be {least} to {most}"


def _op(compound: ImageCompound, index: int, op: ImageOp, explicit: bool) -> Iterator[str]:
    call = by_nr().get(op.nr)
    if call is None:
        yield f"call {index}: no system call has number {op.nr}"
        return
    if not explicit and not _speculable(compound, op, call):
        yield f"call {index}: {call.name} is {call.cls}: only pure calls may run ahead"
    if call.cls in (SyscallClass.PROCESS, SyscallClass.UNKNOWN):
        yield f"call {index}: {call.name} is {call.cls}: no compound may hold it"
    if op.flags & ~sum(OpFlag):
        yield f"call {index}: unknown flags {op.flags:#x}"
    if op.flags & OpFlag.UNTIL and not _moves_on(call):
        yield f"call {index}: {call.name} never comes to an end: until is for read and its kin"
    if len(op.args) != len(call.args):
        yield f"call {index}: {call.name} takes {len(call.args)} arguments, not {len(op.args)}"
        return
    for position, (arg, kind) in enumerate(zip(op.args, call.args, strict=True)):
        problem = (
            _argument(compound, index, arg, kind)
            or _relative(op, call, position)
            or _fits_buffer(op, call, position)
            or _empty(op, call, position)
            or (None if explicit else _mined(compound, arg, kind))
        )
        if problem:
            yield f"call {index}: {call.name}, argument {position}: {problem}"
    for cond in op.conds:
        problem = _condition(compound, index, cond)
        if problem:
            yield f"call {index}: {call.name}: {problem}"
    yield from _between(f"call {index}: number of conditions", len(op.conds), 0, MAX_CONDS)


def _speculable(compound: ImageCompound, op: ImageOp, call: Syscall) -> bool:
    """Whether a call of a mined compound leaves no trace behind.

    Besides pure calls: opening for reading, what is read from there, and closing it again. The
    executor reads what the program itself has open without moving its offset.
    """
    if call.cls is SyscallClass.PURE or call.name in _OPENS:
        return True
    if not op.args:
        return False
    if call.name == "close":
        return op.args[0].kind == ArgKind.RESULT
    if call.name == "read":
        return op.args[0].kind == ArgKind.RESULT or (
            op.args[0].kind == ArgKind.TRIGGER and bool(compound.guards & Guard.REGULAR)
        )
    return False


def _moves_on(call: Syscall) -> bool:
    """A call that gives something else each time, until there is no more."""
    return (
        call.cls is SyscallClass.POSITIONAL
        and call.index(CallArg.BUF_OUT, CallArg.DIRENTS_OUT) is not None
    )


def _condition(compound: ImageCompound, index: int, cond: ImageCond) -> str | None:
    if cond.field not in tuple(Field):
        return f"a condition on an unknown field {cond.field}"
    if cond.relation not in tuple(Relation):
        return f"a condition with an unknown relation {cond.relation}"
    if cond.index >= index:
        return f"a condition on call {cond.index}: only calls before this one have a result"
    if cond.field in (Field.TYPE, Field.MODE, Field.SIZE) and not _tells_size(compound, cond.index):
        return f"a condition on call {cond.index}: it tells of no file's attributes"
    return None


def _tells_size(compound: ImageCompound, index: int) -> bool:
    call = by_nr().get(compound.ops[index].nr)
    return call is not None and call.index(CallArg.STAT_OUT, CallArg.STATX_OUT) is not None


_USES: Final[dict[int, tuple[bool, bool, bool, bool]]] = {
    # kind: index, string, value, field may be set
    ArgKind.CONST: (False, False, True, False),
    ArgKind.STRING: (False, True, False, False),
    ArgKind.DIR: (False, False, False, False),
    ArgKind.NAME: (False, True, False, False),
    ArgKind.PATH: (False, True, False, False),
    ArgKind.OUT: (False, False, True, False),
    ArgKind.RESULT: (True, False, False, False),
    ArgKind.TRIGGER: (True, True, False, False),
    ArgKind.ITEM: (False, True, False, False),
    ArgKind.FIELD: (True, False, True, True),
}
_FIELDS: Final = ("index", "string", "value", "field")
_ABOUT_D: Final = (ArgKind.DIR, ArgKind.NAME, ArgKind.PATH)
_STRINGS: Final = (ArgKind.STRING, ArgKind.NAME, ArgKind.PATH, ArgKind.ITEM)


def _argument(compound: ImageCompound, index: int, arg: ImageArg, kind: CallArg) -> str | None:
    """What is wrong with one argument of call `index`, given what the call takes there."""
    uses = _USES.get(arg.kind)
    if uses is None:
        return f"unknown kind {arg.kind}: it cannot be computed"
    values = (arg.index, arg.string, arg.value, arg.field)
    for used, value, what in zip(uses, values, _FIELDS, strict=True):
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
    if kind in _TEXT and arg.kind not in (*_STRINGS, ArgKind.TRIGGER):
        return "a string is needed"
    if kind not in _TEXT and (arg.kind in _STRINGS or arg.string):
        return "no string belongs here"
    if arg.string and (len(_raw(arg.string)) > MAX_PATH or _rooted(arg)):
        return "a string that is too long, or an absolute path behind a slash"
    return _provenance(compound, index, arg, kind)


def _rooted(arg: ImageArg) -> bool:
    """A joined string must be relative."""
    return arg.kind != ArgKind.STRING and arg.string.startswith("/")


def _provenance(compound: ImageCompound, index: int, arg: ImageArg, kind: CallArg) -> str | None:
    """Whether what an argument comes from is known when call `index` runs."""
    if arg.kind in _ABOUT_D and compound.guards & _IN_SCAN != _IN_SCAN:
        return "D and its names are known only with scanned(D) and child(D, name)"
    if arg.kind == ArgKind.ITEM and compound.loop != Loop.PATHS:
        return "p is known only in a loop over paths"
    if arg.kind == ArgKind.DIR and kind not in (CallArg.DIRFD, CallArg.FD):
        return "no descriptor belongs here"
    if arg.kind == ArgKind.RESULT and arg.index >= index:
        return f"result({arg.index}): only calls before this one have a result"
    if arg.kind == ArgKind.FIELD:
        if arg.index >= index or arg.field != Field.SIZE or not _tells_size(compound, arg.index):
            return f"size({arg.index}): only a stat before this one tells a size"
        if kind not in _NUMBERS or arg.value > MAX_OUT:
            return f"size({arg.index})+{arg.value}: no size belongs here, or not such a one"
    if arg.kind == ArgKind.TRIGGER and compound.loop != Loop.NONE:
        return f"trigger({arg.index}): in a loop only D and e.name, or p, are known"
    if arg.kind == ArgKind.TRIGGER:
        return _trigger_argument(compound, arg.index, kind)
    if arg.kind == ArgKind.CONST and kind is CallArg.AT_FLAGS and arg.value & ~_KNOWN_AT:
        return f"unknown flags {arg.value & ~_KNOWN_AT:#x}"
    return None


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


def _fits_buffer(op: ImageOp, call: Syscall, position: int) -> str | None:
    """A constant size is at most that of the buffer before it."""
    arg = op.args[position]
    if call.args[position] is not CallArg.SIZE or arg.kind != ArgKind.CONST or not position:
        return None
    if op.args[position - 1].kind == ArgKind.OUT and arg.value > op.args[position - 1].value:
        return f"{arg.value} bytes do not fit out({op.args[position - 1].value})"
    return None


def _empty(op: ImageOp, call: Syscall, position: int) -> str | None:
    """An empty string is a path only where a flag says so: the descriptor itself."""
    if op.args[position].kind != ArgKind.STRING or op.args[position].string:
        return None
    flags = call.index(CallArg.AT_FLAGS)
    if (
        call.args[position] is CallArg.PATH
        and flags is not None
        and op.args[flags].kind == ArgKind.CONST
        and op.args[flags].value & AT_FLAGS["AT_EMPTY_PATH"]
    ):
        return None
    return "an empty string, without AT_EMPTY_PATH"


def _mined(compound: ImageCompound, arg: ImageArg, kind: CallArg) -> str | None:
    """More that an argument of a mined compound must keep to.

    It opens for reading only; its descriptors are what it opened itself, the trigger's, D.
    """
    if kind is CallArg.OPEN_FLAGS and (arg.kind != ArgKind.CONST or arg.value & ~_KNOWN_OPEN):
        return "flags of an open that only reads are needed"
    if kind not in (CallArg.FD, CallArg.DIRFD):
        return None
    if arg.kind == ArgKind.CONST and (kind is CallArg.FD or arg.value != AT_FDCWD):
        return "a descriptor by its number: only AT_FDCWD is the same in every run"
    if arg.kind == ArgKind.FIELD:
        return "a size is no descriptor"
    if arg.kind == ArgKind.RESULT:
        call = by_nr().get(compound.ops[arg.index].nr)
        if call is None or call.name not in _OPENS:
            return f"result({arg.index}) is no descriptor"
    return None


def _pattern(pattern: ImagePattern, call: Syscall) -> Iterator[str]:
    if call.cls is not SyscallClass.PURE and call.name not in (*_OPENS, "read"):
        yield f"{call.name}: it is {call.cls}: only pure calls can be answered from memory"
    known = 0
    if call.index(CallArg.AT_FLAGS) is not None:
        known = _KNOWN_AT
    elif call.index(CallArg.OPEN_FLAGS) is not None:
        known = _KNOWN_OPEN
    if pattern.flags_allowed & ~known:
        yield f"{call.name}: it has no such flags: {pattern.flags_allowed:#x}"
    if pattern.mask_within and call.index(CallArg.STATX_MASK) is None:
        yield f"{call.name}: it has no mask"
    if bool(pattern.string) != (call.index(CallArg.NAME) is not None):
        yield f"{call.name}: an attribute's name belongs to xattr calls, and each needs one"
    if len(_raw(pattern.string)) > MAX_ATTRIBUTE:
        yield f"{call.name}: the attribute's name is too long"


def _trigger(compound: ImageCompound, pattern: ImagePattern) -> Iterator[str]:
    call = by_nr().get(pattern.nr)
    if call is None:
        yield f"pattern: no system call has number {pattern.nr}"
        return
    yield from _pattern(pattern, call)
    if compound.guards & Guard.CHILD:
        if call.index(CallArg.PATH) is None:
            yield f"{call.name}: the call names no child of D"
        if pattern.flags_allowed & AT_FLAGS["AT_EMPTY_PATH"] and _has_at_flags(call):
            yield f"{call.name}: with AT_EMPTY_PATH the call may name no child of D"
    if compound.guards & Guard.LISTED and call.index(CallArg.PATH) is None:
        yield f"{call.name}: the call names no path"
    if compound.guards & Guard.REGULAR and call.index(CallArg.FD) is None:
        yield f"{call.name}: the call names no open file"


def _has_at_flags(call: Syscall) -> bool:
    return call.index(CallArg.AT_FLAGS) is not None


def _serve(compound: ImageCompound, pattern: ImagePattern) -> Iterator[str]:
    call = by_nr().get(pattern.nr)
    if call is None:
        yield f"pattern: no system call has number {pattern.nr}"
        return
    yield from _pattern(pattern, call)
    if not any(_answers(op, pattern, call) for op in compound.ops):
        yield f"{call.name}: no call of the body yields its answer"


def _answers(op: ImageOp, pattern: ImagePattern, served: Syscall) -> bool:
    """Whether the result of one call of the body answers the served call."""
    call = by_nr().get(op.nr)
    if call is None:
        return False
    if served.name in XATTR_CALLS and call.name in XATTR_CALLS:
        return any(arg.string == pattern.string for arg in op.args)
    if any(served.name in family and call.name in family for family in _FAMILIES):
        return True
    return op.nr == pattern.nr


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
