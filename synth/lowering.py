# SPDX-License-Identifier: MIT
"""Lowering: compounds as text trees to image structures, and back (`lift`).

Lowering resolves names to numbers by tracer/syscalls.toml, adds the output buffers that the text
leaves out, and chooses the executors by their capabilities. What it cannot resolve is a SynthError;
whether the result makes sense is decided by `synth.verify`.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from synth.capability import executors_for
from synth.constants import AT_FDCWD
from synth.errors import SynthError
from synth.image import (
    ArgKind,
    CompoundFlag,
    Executor,
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
from synth.language import (
    EXECUTORS,
    GUARDS,
    RELATIONS,
    Argument,
    Call,
    Compound,
    Condition,
    Directory,
    Item,
    Limits,
    Name,
    Number,
    Out,
    Path,
    Pattern,
    Profile,
    Reach,
    Result,
    Size,
    Text,
    Trigger,
)
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import Syscall, by_name, by_nr

# Bytes of what the kernel fills in: struct stat and struct statx of x86-64.
OUT_SIZES: Final = {CallArg.STAT_OUT: 144, CallArg.STATX_OUT: 256}
# Buffers of `size` bytes: of a read, of the target of a link (PATH_MAX), of an attribute's value.
READ_SIZE: Final = 65536
BUFFER_SIZES: Final = {
    "read": READ_SIZE,
    "pread64": READ_SIZE,
    "readlink": 4096,
    "readlinkat": 4096,
}
BUFFER_SIZE: Final = 256


def lower(profile: Profile) -> Image:
    """The image of a profile.

    Raises SynthError for a call that does not exist or arguments that do not fit it.
    """
    return Image(tuple(_lower_compound(c) for c in profile.compounds), profile.build_id)


def lift(image: Image) -> Profile:
    """The text tree of a verified image; comments are not in the image, so there are none."""
    return Profile(tuple(_lift_compound(c) for c in image.compounds), image.build_id)


def _syscall(compound: str, name: str) -> Syscall:
    call = by_name().get(name)
    if call is None:
        raise SynthError(f"compound {compound}: no system call is named {name}")
    return call


def _lower_compound(compound: Compound) -> ImageCompound:
    triggers = tuple(_lower_pattern(compound, p) for p in compound.triggers)
    by_call: dict[str, list[ImagePattern]] = {}
    for written, lowered in zip(compound.triggers, triggers, strict=True):
        by_call.setdefault(written.call, []).append(lowered)
    serves: list[ImagePattern] = []
    for pattern in compound.serves:
        if pattern.bare and pattern.call in by_call:
            serves += by_call[pattern.call]
        else:
            serves.append(_lower_pattern(compound, pattern))
    reach = compound.limits.reach or (Reach() if compound.loop else Reach(0, 0, 0))
    draft = ImageCompound(
        name=compound.name,
        flags=CompoundFlag.EXPLICIT if compound.explicit else CompoundFlag.SPECULATIVE,
        guards=sum(Guard[name.upper()] for name in GUARDS if getattr(compound, name)),
        loop=Loop.ENTRIES if compound.loop else Loop.PATHS if compound.paths else Loop.NONE,
        nth=compound.nth,
        min_entries=compound.min_entries,
        executors=0,
        ops=tuple(_lower_call(compound, call) for call in compound.body),
        triggers=triggers,
        serves=tuple(serves),
        limit_ops=compound.limits.ops,
        limit_bytes=compound.limits.bytes,
        limit_time_ns=compound.limits.time_ns,
        chunk=reach.chunk,
        grow=reach.grow,
        miss=reach.miss,
        paths=compound.paths,
    )
    executors = executors_for(draft)
    if compound.executors is not None:
        wanted = Executor(0)
        for name in compound.executors:
            wanted |= Executor[name.upper()]
        executors &= wanted
    return dataclasses.replace(draft, executors=int(executors))


def _lower_pattern(compound: Compound, pattern: Pattern) -> ImagePattern:
    call = _syscall(compound.name, pattern.call)
    where = f"compound {compound.name}: pattern {pattern.call}"
    expected = subjects_of(call)
    if pattern.subjects and pattern.subjects != expected:
        raise SynthError(f"{where}: write {pattern.call}({', '.join(expected) or '...'})")
    for value, kinds, what in (
        (pattern.flags, (CallArg.AT_FLAGS, CallArg.OPEN_FLAGS), "flags"),
        (pattern.mask, (CallArg.STATX_MASK,), "mask"),
        (pattern.attribute, (CallArg.NAME,), "attribute name"),
    ):
        if value and call.index(*kinds) is None:
            raise SynthError(f"{where}: the call has no {what} argument")
    return ImagePattern(call.nr, pattern.flags or 0, pattern.mask or 0, pattern.attribute or "")


def subjects_of(call: Syscall) -> tuple[str, ...]:
    """How a pattern names what the call is about: `D, name`, `path`, `F` (a file) or nothing."""
    if call.index(CallArg.DIRFD) is not None and call.index(CallArg.PATH) is not None:
        return ("D", "name")
    if call.index(CallArg.PATH) is not None:
        return ("path",)
    return ("F",) if call.index(CallArg.FD) is not None else ()


def _usual_outputs(call: Syscall) -> dict[int, ImageArg]:
    """What the text leaves out, by position: output buffers, their sizes, the mode of an open."""
    usual: dict[int, ImageArg] = {}
    size = BUFFER_SIZES.get(call.name, BUFFER_SIZE)
    for k, kind in enumerate(call.args):
        if kind in OUT_SIZES:
            usual[k] = ImageArg(ArgKind.OUT, value=OUT_SIZES[kind])
        elif kind is CallArg.BUF_OUT:
            usual[k] = ImageArg(ArgKind.OUT, value=size)
        elif kind is CallArg.SIZE and k - 1 in usual and call.args[k - 1] is CallArg.BUF_OUT:
            usual[k] = ImageArg(ArgKind.CONST, value=size)
        elif kind is CallArg.MODE and call.index(CallArg.OPEN_FLAGS) is not None:
            usual[k] = ImageArg(ArgKind.CONST)
    return usual


def _lower_call(compound: Compound, call: Call) -> ImageOp:
    syscall = _syscall(compound.name, call.name)
    given = [_lower_argument(arg) for arg in call.args]
    usual = _usual_outputs(syscall)
    args = given
    if len(given) == len(syscall.args) - len(usual):
        rest = iter(given)
        args = [usual[k] if k in usual else next(rest) for k in range(len(syscall.args))]
    if len(args) != len(syscall.args):
        raise SynthError(
            f"compound {compound.name}: {call.name} takes {len(syscall.args)} arguments "
            f"({', '.join(syscall.args)}), with or without its output buffers"
        )
    flags = OpFlag.OPTIONAL * call.optional | OpFlag.UNTIL * call.until
    conds = tuple(_lower_condition(condition) for condition in call.conditions)
    return ImageOp(syscall.nr, tuple(args), flags, conds)


def _lower_condition(condition: Condition) -> ImageCond:
    return ImageCond(
        condition.index,
        Field[condition.field.upper()],
        RELATIONS.index(condition.relation) + 1,
        condition.value,
    )


def _lower_argument(arg: Argument) -> ImageArg:
    match arg:
        case Number(value, _):
            return ImageArg(ArgKind.CONST, value=value)
        case Text(value):
            return ImageArg(ArgKind.STRING, string=value)
        case Directory():
            return ImageArg(ArgKind.DIR)
        case Name(suffix):
            return ImageArg(ArgKind.NAME, string=suffix)
        case Path(suffix):
            return ImageArg(ArgKind.PATH, string=suffix)
        case Item(suffix):
            return ImageArg(ArgKind.ITEM, string=suffix)
        case Out(size):
            return ImageArg(ArgKind.OUT, value=size)
        case Result(index):
            return ImageArg(ArgKind.RESULT, index=index)
        case Trigger(index, suffix):
            return ImageArg(ArgKind.TRIGGER, index=index, string=suffix)
        case Size(index, addend):
            return ImageArg(ArgKind.FIELD, index=index, value=addend, field=Field.SIZE)


def _lift_compound(compound: ImageCompound) -> Compound:
    reach = Reach(compound.chunk, compound.grow, compound.miss)
    return Compound(
        name=compound.name,
        triggers=tuple(_lift_pattern(p) for p in compound.triggers),
        body=tuple(_lift_op(op) for op in compound.ops),
        serves=tuple(_lift_pattern(p) for p in compound.serves),
        loop=compound.loop == Loop.ENTRIES,
        paths=compound.paths,
        scanned=bool(compound.guards & Guard.SCANNED),
        child=bool(compound.guards & Guard.CHILD),
        leaf=bool(compound.guards & Guard.LEAF),
        regular=bool(compound.guards & Guard.REGULAR),
        listed=bool(compound.guards & Guard.LISTED),
        nth=compound.nth,
        min_entries=compound.min_entries,
        limits=Limits(
            compound.limit_ops,
            compound.limit_bytes,
            compound.limit_time_ns,
            reach if any(dataclasses.astuple(reach)) else None,
        ),
        executors=tuple(e for e in EXECUTORS if compound.executors & Executor[e.upper()]),
        explicit=bool(compound.flags & CompoundFlag.EXPLICIT),
    )


def _lift_pattern(pattern: ImagePattern) -> Pattern:
    call = by_nr()[pattern.nr]
    return Pattern(
        call.name,
        subjects_of(call),
        pattern.flags_allowed if call.index(*_FLAGS) is not None else None,
        pattern.mask_within if call.index(CallArg.STATX_MASK) is not None else None,
        pattern.string if call.index(CallArg.NAME) is not None else None,
    )


_FLAGS: Final = (CallArg.AT_FLAGS, CallArg.OPEN_FLAGS)


def _lift_op(op: ImageOp) -> Call:
    call = by_nr()[op.nr]
    usual = _usual_outputs(call)
    elide = all(op.args[k] == arg for k, arg in usual.items())
    args: list[Argument] = []
    for k, (arg, kind) in enumerate(zip(op.args, call.args, strict=True)):
        if elide and k in usual:
            continue
        match arg.kind:
            case ArgKind.STRING:
                args.append(Text(arg.string))
            case ArgKind.DIR:
                args.append(Directory())
            case ArgKind.NAME:
                args.append(Name(arg.string))
            case ArgKind.PATH:
                args.append(Path(arg.string))
            case ArgKind.ITEM:
                args.append(Item(arg.string))
            case ArgKind.OUT:
                args.append(Out(arg.value))
            case ArgKind.RESULT:
                args.append(Result(arg.index))
            case ArgKind.TRIGGER:
                args.append(Trigger(arg.index, arg.string))
            case ArgKind.FIELD:
                args.append(Size(arg.index, arg.value))
            case _:
                args.append(Number(arg.value, _family(kind, arg.value)))
    return Call(
        call.name,
        tuple(args),
        bool(op.flags & OpFlag.OPTIONAL),
        bool(op.flags & OpFlag.UNTIL),
        tuple(_lift_condition(cond) for cond in op.conds),
    )


def _lift_condition(cond: ImageCond) -> Condition:
    field = Field(cond.field).name.lower()
    return Condition(field, cond.index, RELATIONS[Relation(cond.relation) - 1], cond.value)


def _family(kind: CallArg, value: int) -> str:
    """Whose names spell a constant argument."""
    if kind is CallArg.DIRFD:
        return "FDCWD" if value == AT_FDCWD else ""
    names = {CallArg.AT_FLAGS: "AT", CallArg.STATX_MASK: "STATX", CallArg.OPEN_FLAGS: "O"}
    return names.get(kind, "") if value else ""
