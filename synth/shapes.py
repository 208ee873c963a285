# SPDX-License-Identifier: MIT
"""Any motif as a compound: what the language can say, not only what a fast executor runs.

A motif's calls become the body as far as the provenance of their arguments reaches; the trigger is
the first call that says what the rest is about, and sits where the mined continuation says that
more follows than does not. Nothing here knows a motif by its name: a loop over entries, files,
paths or requests differs only in where paths come from. What cannot be computed ahead is left out,
and a motif of which nothing is left is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from miner.motifs import Arg, ArgKind, Call, Motif, Over
from synth.capability import REFERENCE_CALLS, STAT_CALLS, XATTR_CALLS
from synth.constants import AT_FDCWD, AT_FLAGS, FILE_TYPES, OPEN_FLAGS, STATX_MASKS
from synth.image import MAX_OPS, MAX_PATHS, MAX_PATTERNS
from synth.language import (
    Argument,
    Compound,
    Condition,
    Directory,
    Item,
    Limits,
    Name,
    Number,
    Path,
    Pattern,
    Result,
    Text,
    Trigger,
)
from synth.language import Call as BodyCall
from tracer.syscalls import ArgKind as CallArg
from tracer.syscalls import Syscall, SyscallClass, by_name

# A call that fewer iterations have is no part of the body.
LEAST_SHARE: Final = 0.05
# Of an instance that made n calls, more must follow than not, and be as many again.
LEAST_GOING_ON: Final = 0.6
# A list is worth asking for if so many of its paths were met in an earlier run.
LEAST_KNOWN: Final = 0.2
# Files belong to a directory's loop if so many of them were entries of one that was read.
LEAST_ENTRIES: Final = 0.5
# A read whose last call said that this was all, in so many iterations, is a read to the end.
LEAST_TO_END: Final = 0.5
LEAST_FILE_BYTES: Final = 65536
MOST_BYTES: Final = 16 << 20
HEADROOM: Final = 4
TIME_NS: Final = 100_000_000
LINK_MOST: Final = 4095

_OPENS: Final = ("open", "openat")
_READS: Final = ("read", "pread64")
_LINKS: Final = ("readlink", "readlinkat")
_KNOWN_OPEN: Final = sum(OPEN_FLAGS.values())
_KNOWN_AT: Final = sum(AT_FLAGS.values())
_KNOWN_MASK: Final = sum(
    value for name, value in STATX_MASKS.items() if name != "STATX_BASIC_STATS"
)


class UnsuitableError(Exception):
    """Why a motif gives no compound, in words for a person."""


@dataclass
class _Body:
    """A body while calls are added to it."""

    over: Over
    calls: list[BodyCall] = field(default_factory=list)
    source: list[Call] = field(default_factory=list)  # the mined call behind each
    place: dict[int, int] = field(default_factory=dict)  # of a motif's call in the body

    def stat_of(self, index: int) -> int | None:
        """The body's call that tells of the attributes of what call `index` opened."""
        for k, call in enumerate(self.calls):
            if call.name in (*STAT_CALLS, "fstat") and Result(index) in call.args:
                return k
        return None

    def stat_of_entry(self) -> int | None:
        """The body's call that tells of the entry itself, links not followed."""
        for k, call in enumerate(self.calls):
            if call.name in STAT_CALLS and Number(AT_FLAGS["AT_SYMLINK_NOFOLLOW"], "AT") in (
                call.args
            ):
                return k
        return None


def compound_of(motif: Motif) -> Compound:
    """The compound that a motif describes, for the reference executor.

    Raises UnsuitableError, whose text is the reason.
    """
    loop = motif.loop
    if loop is None or loop.over is Over.TANDEM:
        raise UnsuitableError(_no_trigger(motif))
    if loop.over is Over.UNTIL_EOF:
        return _until_eof(motif)
    if loop.over is Over.PATHS and loop.known < LEAST_KNOWN:
        raise UnsuitableError(
            f"a list of which {loop.known:.0%} was met before: the next run asks for other paths"
        )
    over = loop.over
    body = _body(motif, over)
    if not body.calls:
        raise UnsuitableError(f"nothing in it can be made ahead ({_names(motif.calls)})")
    serves = _serves(body)
    if not serves:
        raise UnsuitableError(_only_opens(motif, body))
    triggers = _triggers(body)
    if not triggers:
        raise UnsuitableError(
            "what it opens cannot be opened ahead (a directory, or for writing), and no other call "
            "says what the rest is about"
            if over in (Over.FILES, Over.REQUESTS)
            else "no call that could be made ahead names what the rest is about"
        )
    draft = Compound(
        name=motif.name,
        triggers=triggers,
        body=tuple(body.calls[:MAX_OPS]),
        serves=serves,
        loop=False,
        scanned=False,
        child=False,
        limits=_limits(motif, len(body.calls)),
        executors=("reference",),
    )
    if over is Over.ENTRIES:
        nth, least = _position(motif)
        return replace(draft, loop=True, scanned=True, child=True, nth=nth, min_entries=least)
    if over is Over.PATHS:
        paths = tuple(dict.fromkeys(seen.path for seen in loop.paths if seen.path))[:MAX_PATHS]
        return replace(draft, listed=True, paths=paths)
    return draft


def _names(calls: Iterable[Call]) -> str:
    return ", ".join(dict.fromkeys(call.syscall for call in calls))


def _no_trigger(motif: Motif) -> str:
    """Why calls that are about no entries, files or paths give nothing."""
    pure = [call for call in motif.calls if call.sclass == SyscallClass.PURE]
    if not pure:
        return f"{_names(motif.calls)}: only the program itself can make these"
    return (
        f"calls one after the other ({_names(motif.calls)}): none says what the next is about, so "
        "nothing can be asked ahead"
    )


def _only_opens(motif: Motif, body: _Body) -> str:
    made = {call.syscall for call in body.source}
    rest = [call for call in motif.calls if call.syscall not in made]
    reason = f"only an open can be made ahead ({_names(body.source)}), and that answers nothing"
    return f"{reason}; not so {_names(rest)}" if rest else reason


def _until_eof(motif: Motif) -> Compound:
    (first, *_) = motif.calls
    if len(motif.calls) > 1 or first.syscall != "read":
        raise UnsuitableError(
            f"{_names(motif.calls)} until the end: only read, alone and of a regular file, can be "
            "made ahead"
        )
    pattern = Pattern("read", ("F",))
    return Compound(
        name=motif.name,
        triggers=(pattern,),
        body=(BodyCall("read", (Trigger(0),), until=True),),
        serves=(pattern,),
        loop=False,
        scanned=False,
        child=False,
        regular=True,
        # The first read of a file that is read to its end is as good as any.
        nth=1,
        limits=_limits(motif, 1),
        executors=("reference",),
    )


# --- the body --------------------------------------------------------------------


def _body(motif: Motif, over: Over) -> _Body:
    body = _Body(over)
    fitting = [k for k, call in enumerate(motif.calls) if _may_be_made(call)]
    for k in sorted(fitting, key=lambda k: (_rank(motif.calls[k]), k)):
        call = motif.calls[k]
        made = _call(call, body)
        if made is None or (made in body.calls and made.name not in _READS):
            continue
        body.place[k] = len(body.calls)
        body.calls.append(made)
        body.source.append(call)
    closed = {made.args for made in body.calls if made.name == "close"}
    for k, made in enumerate(list(body.calls)):
        if made.name in _OPENS and (Result(k),) not in closed:
            body.calls.append(BodyCall("close", (Result(k),)))
    return body


def _may_be_made(call: Call) -> bool:
    known = call.syscall in REFERENCE_CALLS and call.share >= LEAST_SHARE
    return known and len(call.args) >= len(by_name()[call.syscall].args)


def _rank(call: Call) -> int:
    """What others depend on comes first: opens, then attributes, then bytes, the close last."""
    if call.syscall in _OPENS:
        return 1
    if call.syscall in STAT_CALLS or call.syscall == "fstat":
        return 0 if _names_path(call) else 2
    return 4 if call.syscall == "close" else 3


def _names_path(call: Call) -> bool:
    """The call is about a path, not about a descriptor."""
    position = by_name()[call.syscall].index(CallArg.PATH)
    return position is not None and call.args[position].kind is not ArgKind.STRING


def _call(call: Call, body: _Body) -> BodyCall | None:
    """The mined call as one of the body; None: it cannot be computed ahead."""
    syscall = by_name()[call.syscall]
    args: list[Argument] = []
    for position, kind in enumerate(syscall.args):
        if kind in (CallArg.STAT_OUT, CallArg.STATX_OUT, CallArg.BUF_OUT, CallArg.SIZE):
            continue
        if kind is CallArg.MODE and call.syscall in _OPENS:
            continue
        arg = _argument(call, syscall, position, body)
        if arg is None:
            return None
        args.append(arg)
    until = call.syscall == "read" and call.to_end >= LEAST_TO_END
    made = BodyCall(call.syscall, tuple(args), optional=call.optional, until=until)
    return replace(made, conditions=_conditions(made, body))


def _conditions(call: BodyCall, body: _Body) -> tuple[Condition, ...]:
    """What must hold for the call to make sense, as far as the body knows."""
    if call.name in _READS and isinstance(call.args[0], Result):
        stat = body.stat_of(call.args[0].index)
        kind = "S_IFREG"
    elif call.name in _LINKS:
        stat, kind = body.stat_of_entry(), "S_IFLNK"
    else:
        return ()
    if stat is None:
        return ()
    found = Condition("type", stat, "==", FILE_TYPES[kind])
    if call.name in _LINKS:
        return (found, Condition("size", stat, "<=", LINK_MOST))
    return (found,)


def _argument(call: Call, syscall: Syscall, position: int, body: _Body) -> Argument | None:
    kind = syscall.args[position]
    arg = call.args[position]
    if kind in (CallArg.FD, CallArg.DIRFD):
        return _descriptor(call, syscall, arg, body)
    if kind is CallArg.PATH:
        return _path(call, syscall, arg, position, body)
    if kind is CallArg.NAME:
        return Text(call.xattrs[0].name) if call.xattrs and call.xattrs[0].name else None
    if kind is CallArg.AT_FLAGS:
        return Number(_most(call, _KNOWN_AT), "AT" if _most(call, _KNOWN_AT) else "")
    if kind is CallArg.OPEN_FLAGS:
        said = [seen.value for seen in call.flags] or [arg.value or 0]
        # Flags that shape only the descriptor have no meaning here; writing has none at all.
        if said[0] & ~_KNOWN_OPEN or said[0] & OPEN_FLAGS["O_DIRECTORY"]:
            return None
        flags = said[0] & OPEN_FLAGS["O_NOFOLLOW"] | OPEN_FLAGS["O_CLOEXEC"]
        return Number(flags, "O")
    if kind is CallArg.STATX_MASK:
        mask = call.mask[0].value if call.mask else arg.value or 0
        return Number(mask, "STATX") if not mask & ~_KNOWN_MASK else None
    if kind is CallArg.OFFSET:
        return Number(0)  # a file is read from its start
    return Number(arg.value, "") if arg.kind is ArgKind.CONST and arg.value is not None else None


def _most(call: Call, known: int) -> int:
    """The most frequent flags, without those that no compound says."""
    return call.flags[0].value & known if call.flags else 0


def _descriptor(call: Call, syscall: Syscall, arg: Arg, body: _Body) -> Argument | None:
    if arg.kind is ArgKind.RESULT and arg.call in body.place:
        return Result(body.place[arg.call])
    if arg.kind is ArgKind.DIR:
        return Directory()
    if syscall.index(CallArg.PATH) is None:
        return None
    path = call.args[syscall.index(CallArg.PATH) or 0]
    if body.over is Over.ENTRIES and path.kind in (ArgKind.NAME, ArgKind.PATH):
        return Directory()
    if body.over is Over.PATHS:
        return Number(AT_FDCWD, "FDCWD")
    # About what the triggering call is about.
    if body.over in (Over.FILES, Over.REQUESTS) and not any(_is_open(c) for c in body.calls):
        return Trigger(0)
    return None


def _is_open(call: BodyCall) -> bool:
    return call.name in _OPENS


def _path(call: Call, syscall: Syscall, arg: Arg, position: int, body: _Body) -> Argument | None:
    dirfd = syscall.index(CallArg.DIRFD)
    about_fd = dirfd is not None and call.args[dirfd].kind is ArgKind.RESULT
    if about_fd:
        # The descriptor itself, as glibc's fstat asks.
        empty = _most(call, _KNOWN_AT) & AT_FLAGS["AT_EMPTY_PATH"]
        return Text("") if arg.kind is ArgKind.STRING and not arg.text and empty else None
    if body.over is Over.ENTRIES:
        if arg.kind not in (ArgKind.NAME, ArgKind.PATH):
            return None
        return Name() if dirfd is not None else Path()
    if body.over is Over.PATHS:
        return Item() if arg.kind in (ArgKind.ITEM, ArgKind.STRING) else None
    if call.syscall in _OPENS and not any(_is_open(c) for c in body.calls):
        return Trigger(position)
    return None


# --- triggers and answers ----------------------------------------------------------


def _said(call: Call, known: int) -> int:
    flags = 0
    for seen in call.flags:
        if not seen.value & ~known:
            flags |= seen.value
    return flags


def _pattern(call: Call) -> Pattern | None:
    """All that was seen of a call, as far as patterns can say it."""
    syscall = by_name()[call.syscall]
    if call.syscall in XATTR_CALLS:
        name = call.xattrs[0].name if call.xattrs else ""
        return Pattern(call.syscall, ("path",), attribute=name) if name else None
    flags = mask = None
    if syscall.index(CallArg.AT_FLAGS) is not None:
        flags = _said(call, _KNOWN_AT)
    if syscall.index(CallArg.OPEN_FLAGS) is not None:
        flags = _said(call, _KNOWN_OPEN)
    if syscall.index(CallArg.STATX_MASK) is not None:
        mask = 0
        for seen in call.mask:
            mask |= seen.value & _KNOWN_MASK
    return Pattern(call.syscall, (), flags, mask)


def _merged(patterns: Iterable[Pattern]) -> tuple[Pattern, ...]:
    """One pattern per call and attribute; what is about a descriptor stays by itself."""
    empty = AT_FLAGS["AT_EMPTY_PATH"]
    found: dict[tuple[str, str | None, int], Pattern] = {}
    for pattern in patterns:
        about_fd = (pattern.flags or 0) & empty if pattern.call not in _OPENS else 0
        key = (pattern.call, pattern.attribute, about_fd)
        old = found.get(key)
        if old is not None:
            pattern = replace(
                pattern,
                flags=None if pattern.flags is None else pattern.flags | (old.flags or 0),
                mask=None if pattern.mask is None else pattern.mask | (old.mask or 0),
            )
        found[key] = pattern
    return tuple(found.values())


def _serves(body: _Body) -> tuple[Pattern, ...]:
    """What the body's results answer: an open only where it fails."""
    found = []
    for call in body.source:
        pattern = None if call.syscall == "close" else _pattern(call)
        if pattern is None or (call.syscall in _OPENS and body.over is not Over.PATHS):
            continue
        found.append(pattern)
    return _merged(found)[: MAX_PATTERNS // 2]


def _triggers(body: _Body) -> tuple[Pattern, ...]:
    """Calls that name what the body is about; of an entry or a listed path any of them."""
    found = []
    for made, call in zip(body.calls, body.source, strict=False):
        if call.syscall in XATTR_CALLS or not _names_path(call):
            continue
        if body.over in (Over.FILES, Over.REQUESTS) and made.name not in _OPENS:
            continue
        pattern = _pattern(call)
        if pattern is not None:
            found.append(pattern)
    return _merged(found)[: MAX_PATTERNS // 2]


def _position(motif: Motif) -> tuple[int, int]:
    """The first position at which more follows than does not: nth, least entries.

    Raises UnsuitableError when there is none.
    """
    if motif.only_directories:
        raise UnsuitableError(
            "it asks about directories only: the files would be asked for nothing"
        )
    # The statistics are about pure calls: where opens say what is asked for, coverage does.
    pure = sum(c.count for c in motif.calls if c.syscall not in _OPENS and _names_entry(c))
    opens = sum(c.count for c in motif.calls if c.syscall in _OPENS and _names_entry(c))
    if opens > pure and motif.loop and motif.loop.coverage.get("file", 0.0) >= LEAST_GOING_ON:
        return 2, 4
    rows = sorted(motif.continuation, key=lambda row: row.n)
    for n in sorted({row.n for row in rows if row.n >= 1}):
        these = [row for row in rows if row.n == n]
        reached = sum(row.reached for row in these)
        children = sum(row.children for row in these)
        entries = sum(row.entries for row in these)
        going_on = sum(row.continued for row in these) / max(reached, 1)
        if going_on >= LEAST_GOING_ON and children >= LEAST_GOING_ON * entries / 2:
            return max(n, 2), 4
    raise UnsuitableError(
        "wherever it could fire, programs were about to stop: most would be asked for nothing"
    )


def _names_entry(call: Call) -> bool:
    return any(arg.kind in (ArgKind.NAME, ArgKind.PATH) for arg in call.args)


def _limits(motif: Motif, calls: int) -> Limits:
    loop = motif.loop
    entries = int(loop.entries.get("max", 0)) if loop else 0
    size = int(loop.bytes.get("max", 0)) if loop else 0
    ops = max(HEADROOM * entries * calls, 4096)
    each = max(HEADROOM * size, LEAST_FILE_BYTES)
    return Limits(min(ops, 65536), min(each * max(entries, 1), MOST_BYTES), TIME_NS)


def unique(compounds: Sequence[Compound]) -> tuple[Compound, ...]:
    """Compounds that mean the same once, with the evidence of all; names told apart."""
    merged: dict[Compound, Compound] = {}
    for compound in compounds:
        key = replace(compound, name="", evidence=(), limits=Limits(), paths=(), triggers=())
        old = merged.get(key)
        if old is not None:
            compound = replace(
                old,
                triggers=_merged((*old.triggers, *compound.triggers)),
                paths=tuple(dict.fromkeys((*old.paths, *compound.paths)))[:MAX_PATHS],
                limits=_larger(old.limits, compound.limits),
                evidence=tuple(dict.fromkeys((*old.evidence, *compound.evidence))),
            )
        merged[key] = compound
    names: dict[str, int] = {}
    out = []
    for compound in merged.values():
        count = names[compound.name] = names.get(compound.name, 0) + 1
        out.append(compound if count == 1 else replace(compound, name=f"{compound.name}-v{count}"))
    return tuple(out)


def _larger(a: Limits, b: Limits) -> Limits:
    return Limits(max(a.ops, b.ops), max(a.bytes, b.bytes), max(a.time_ns, b.time_ns))
