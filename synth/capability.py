# SPDX-License-Identifier: MIT
"""Which executor can run which compound: one table, read by lowering and by the verifier.

An executor that is added to Cosy gets its line here and in shim/verify_patterns.c; a test holds the
two to the same verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from synth.constants import AT_FLAGS, STATX_MASKS
from synth.image import (
    ArgKind,
    CompoundFlag,
    Executor,
    ImageCompound,
    ImageOp,
    ImagePattern,
    Loop,
    OpFlag,
)
from tracer.syscalls import by_nr

STAT_CALLS: Final = frozenset({"newfstatat", "statx", "lstat", "stat"})
XATTR_CALLS: Final = frozenset({"lgetxattr", "getxattr"})

# What a directory-scan record answers (kmod/uapi/cosy_bpf.h): no birth time, no file handles.
SCAN_FLAGS: Final = AT_FLAGS["AT_SYMLINK_NOFOLLOW"] | AT_FLAGS["AT_NO_AUTOMOUNT"]
SCAN_MASK: Final = STATX_MASKS["STATX_BASIC_STATS"] | STATX_MASKS["STATX_MNT_ID"]
# Absent attributes are answered for an inode that has none at all; the attributes that a security
# module makes up are safe to ask for only because the shim looks for such modules first.
SCAN_ATTRIBUTES: Final = (
    "security.selinux",
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
)

# What the module reads ahead of a program that opens file after file (shim/files.c).
SLURP_CALLS: Final = frozenset({"fstat", "newfstatat", "read", "close"})

# What the reference executor (shim/reference.c) knows how to ask ahead and to answer.
REFERENCE_CALLS: Final = (
    STAT_CALLS
    | XATTR_CALLS
    | {"fstat", "readlink", "readlinkat", "access", "faccessat", "faccessat2"}
    | {"open", "openat", "read", "pread64", "close"}
)


def _scan_op(op: ImageOp) -> bool:
    """A call on one entry of D whose answer a scan record holds."""
    call = by_nr().get(op.nr)
    if call is None or call.name not in STAT_CALLS | XATTR_CALLS:
        return False
    if op.flags & OpFlag.UNTIL or op.conds:
        return False
    return any(arg.kind in (ArgKind.NAME, ArgKind.PATH) and not arg.string for arg in op.args)


def scan_answers(pattern: ImagePattern) -> bool:
    """Whether the record of a directory scan answers every call that the pattern matches."""
    call = by_nr().get(pattern.nr)
    if call is None:
        return False
    if call.name in XATTR_CALLS:
        return pattern.string in SCAN_ATTRIBUTES
    return (
        call.name in STAT_CALLS
        and not pattern.flags_allowed & ~SCAN_FLAGS
        and not pattern.mask_within & ~SCAN_MASK
    )


def _directory_scan(compound: ImageCompound) -> bool:
    return (
        compound.flags == CompoundFlag.SPECULATIVE
        and compound.loop == Loop.ENTRIES
        and all(_scan_op(op) for op in compound.ops)
        and all(scan_answers(pattern) for pattern in compound.serves)
    )


def _name(nr: int) -> str:
    """The call's name; empty: there is no such call."""
    call = by_nr().get(nr)
    return call.name if call else ""


def _opens(op: ImageOp, loop: int) -> bool:
    """An open of the entry at hand, or of what the program opens."""
    kinds = [arg.kind for arg in op.args if arg.kind != ArgKind.CONST]
    wanted = [ArgKind.DIR, ArgKind.NAME] if loop == Loop.ENTRIES else [ArgKind.TRIGGER] * 2
    return _name(op.nr) == "openat" and kinds == wanted and not op.conds


def _of_opened(op: ImageOp) -> bool:
    """A call on what the body's first call opened; reads go to the end."""
    name = _name(op.nr)
    first = next(iter(op.args), None)
    return (
        name in SLURP_CALLS
        and first is not None
        and (first.kind, first.index) == (ArgKind.RESULT, 0)
        and (name != "read" or bool(op.flags & OpFlag.UNTIL))
    )


def _slurp(compound: ImageCompound) -> bool:
    """Files opened one after the other, read to their end and closed."""
    rest = compound.ops[1:]
    return (
        compound.flags == CompoundFlag.SPECULATIVE
        and compound.loop in (Loop.ENTRIES, Loop.NONE)
        and any(_opens(first, compound.loop) for first in compound.ops[:1])
        and all(_of_opened(op) for op in rest)
        and {"read", "close"} <= {_name(op.nr) for op in rest}
        and all(_name(pattern.nr) == "openat" for pattern in compound.triggers)
        and all(_name(pattern.nr) in SLURP_CALLS for pattern in compound.serves)
    )


def _plain_calls(compound: ImageCompound) -> bool:
    nrs = [op.nr for op in compound.ops] + [pattern.nr for pattern in compound.serves]
    calls = [by_nr().get(nr) for nr in nrs]
    return compound.flags == CompoundFlag.SPECULATIVE and all(
        call is not None and call.name in REFERENCE_CALLS for call in calls
    )


def _by_module(compound: ImageCompound) -> bool:
    return compound.flags == CompoundFlag.EXPLICIT or _slurp(compound)


CAPABILITIES: Final[dict[Executor, Callable[[ImageCompound], bool]]] = {
    Executor.BPF: _directory_scan,
    Executor.MODULE: _by_module,
    Executor.REFERENCE: _plain_calls,
}


def executors_for(compound: ImageCompound) -> Executor:
    """All executors that can run the compound; none when it is beyond each of them."""
    found = Executor(0)
    for executor, can in CAPABILITIES.items():
        if can(compound):
            found |= executor
    return found
