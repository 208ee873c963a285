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
from synth.errors import SynthError
from synth.image import (
    ArgKind,
    CompoundFlag,
    Executor,
    Guard,
    Image,
    ImageArg,
    ImageCompound,
    ImageOp,
    ImagePattern,
    Loop,
    OpFlag,
)
from synth.language import (
    EXECUTORS,
    Argument,
    Call,
    Compound,
    Directory,
    Limits,
    Name,
    Number,
    Out,
    Path,
    Pattern,
    Profile,
    Result,
    Text,
    Trigger,
)
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import Syscall, by_name, by_nr

# An xattr value's buffer; only its absence is ever served, so nothing larger is needed.
BUFFER_SIZE: Final = 256
# Bytes of what the kernel fills in: struct stat and struct statx of x86-64.
OUT_SIZES: Final = {CallArg.STAT_OUT: 144, CallArg.STATX_OUT: 256, CallArg.BUF_OUT: BUFFER_SIZE}


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
    draft = ImageCompound(
        name=compound.name,
        flags=CompoundFlag.EXPLICIT if compound.explicit else CompoundFlag.SPECULATIVE,
        guards=Guard.SCANNED * compound.scanned
        | Guard.CHILD * compound.child
        | Guard.LEAF * compound.leaf,
        loop=Loop.ENTRIES if compound.loop else Loop.NONE,
        depth=compound.depth,
        nth=compound.nth,
        min_entries=compound.min_entries,
        executors=0,
        ops=tuple(_lower_call(compound, call) for call in compound.body),
        triggers=triggers,
        serves=tuple(serves),
        limit_ops=compound.limits.ops,
        limit_bytes=compound.limits.bytes,
        limit_time_ns=compound.limits.time_ns,
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
    for value, kind, what in (
        (pattern.flags, CallArg.AT_FLAGS, "flags"),
        (pattern.mask, CallArg.STATX_MASK, "mask"),
        (pattern.attribute, CallArg.NAME, "attribute name"),
    ):
        if value and call.index(kind) is None:
            raise SynthError(f"{where}: the call has no {what} argument")
    return ImagePattern(call.nr, pattern.flags or 0, pattern.mask or 0, pattern.attribute or "")


def subjects_of(call: Syscall) -> tuple[str, ...]:
    """How a pattern names the call's directory and name: `D, name`, `path` or nothing."""
    if call.index(CallArg.DIRFD) is not None and call.index(CallArg.PATH) is not None:
        return ("D", "name")
    return ("path",) if call.index(CallArg.PATH) is not None else ()


def _usual_outputs(call: Syscall) -> dict[int, ImageArg]:
    """The arguments that the text leaves out, by position: output buffers and their sizes."""
    usual: dict[int, ImageArg] = {}
    for k, kind in enumerate(call.args):
        if kind in OUT_SIZES:
            usual[k] = ImageArg(ArgKind.OUT, value=OUT_SIZES[kind])
        elif kind is CallArg.SIZE and k - 1 in usual and call.args[k - 1] is CallArg.BUF_OUT:
            usual[k] = ImageArg(ArgKind.CONST, value=BUFFER_SIZE)
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
    return ImageOp(syscall.nr, tuple(args), OpFlag.OPTIONAL if call.optional else 0)


def _lower_argument(arg: Argument) -> ImageArg:
    match arg:
        case Number(value, _):
            return ImageArg(ArgKind.CONST, value=value)
        case Text(value):
            return ImageArg(ArgKind.STRING, string=value)
        case Directory():
            return ImageArg(ArgKind.DIR)
        case Name():
            return ImageArg(ArgKind.NAME)
        case Path():
            return ImageArg(ArgKind.PATH)
        case Out(size):
            return ImageArg(ArgKind.OUT, value=size)
        case Result(index):
            return ImageArg(ArgKind.RESULT, index=index)
        case Trigger(index):
            return ImageArg(ArgKind.TRIGGER, index=index)


def _lift_compound(compound: ImageCompound) -> Compound:
    return Compound(
        name=compound.name,
        triggers=tuple(_lift_pattern(p) for p in compound.triggers),
        body=tuple(_lift_op(op) for op in compound.ops),
        serves=tuple(_lift_pattern(p) for p in compound.serves),
        loop=compound.loop == Loop.ENTRIES,
        depth=compound.depth,
        scanned=bool(compound.guards & Guard.SCANNED),
        child=bool(compound.guards & Guard.CHILD),
        leaf=bool(compound.guards & Guard.LEAF),
        nth=compound.nth,
        min_entries=compound.min_entries,
        limits=Limits(compound.limit_ops, compound.limit_bytes, compound.limit_time_ns),
        executors=tuple(e for e in EXECUTORS if compound.executors & Executor[e.upper()]),
        explicit=bool(compound.flags & CompoundFlag.EXPLICIT),
    )


def _lift_pattern(pattern: ImagePattern) -> Pattern:
    call = by_nr()[pattern.nr]
    return Pattern(
        call.name,
        subjects_of(call),
        pattern.flags_allowed if call.index(CallArg.AT_FLAGS) is not None else None,
        pattern.mask_within if call.index(CallArg.STATX_MASK) is not None else None,
        pattern.string if call.index(CallArg.NAME) is not None else None,
    )


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
                args.append(Name())
            case ArgKind.PATH:
                args.append(Path())
            case ArgKind.OUT:
                args.append(Out(arg.value))
            case ArgKind.RESULT:
                args.append(Result(arg.index))
            case ArgKind.TRIGGER:
                args.append(Trigger(arg.index))
            case _:
                args.append(Number(arg.value, _family(kind) if arg.value else ""))
    return Call(call.name, tuple(args), bool(op.flags & OpFlag.OPTIONAL))


def _family(kind: CallArg) -> str:
    return {CallArg.AT_FLAGS: "AT", CallArg.STATX_MASK: "STATX"}.get(kind, "")
