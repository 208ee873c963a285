# SPDX-License-Identifier: MIT
"""Profiles in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from synth.image import Executor
from synth.language import Compound, Profile, print_call, print_size, print_time
from synth.lowering import lower


def paragraphs(profile: Profile) -> Iterator[str]:
    """What a profile does, a paragraph per fact. Raises SynthError for one that makes no sense."""
    if profile.build_id:
        yield f"For the program with build-id {profile.build_id}."
    else:
        yield "For every program that has no profile of its own."
    for compound, lowered in zip(profile.compounds, lower(profile).compounds, strict=True):
        yield from _compound(compound, Executor(lowered.executors))


def _calls(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}" if n > 1 else "first"


def _body(compound: Compound) -> Iterator[str]:
    """The calls of the body; those that it holds several times once."""
    times: dict[str, int] = {}
    for call in compound.body:
        text = print_call(call, loop=compound.loop)
        text += ", again and again until its end" if call.until else ""
        times[text] = times.get(text, 0) + 1
    for text, count in times.items():
        yield text if count == 1 else f"{text}, for {count} questions"


def _executors(executors: Executor) -> str:
    names = [(executor.name or "").lower() for executor in Executor if executor in executors]
    if names == ["reference"]:
        return "- runs on the reference executor only, without gain (--executor reference)."
    line = f"- runs on: {', '.join(names)}."
    if Executor.BPF in executors:
        line += (
            " The eBPF program is the one for all compounds: one made for this would gain less "
            "than 3 % (docs/bpf-executor.md)."
        )
    return line


def _compound(compound: Compound, executors: Executor) -> Iterator[str]:
    yield ""
    yield compound.name
    if compound.explicit:
        yield "- is handed over by a program that asks for it."
    if compound.triggers:
        yield f"- watches {_calls(p.call for p in compound.triggers)}."
    if compound.scanned and compound.child:
        entries = f" and there are at least {compound.min_entries}" * (compound.min_entries > 1)
        yield (
            f"- fires at the {_ordinal(compound.nth)} such call on children of one directory D, if "
            f"the program has read D's entries{entries}."
        )
    elif compound.listed:
        yield f"- fires when one of the {len(compound.paths)} paths of its list is asked for."
    elif compound.regular:
        yield f"- fires at the {_ordinal(compound.nth)} such call in a row on an open regular file."
    elif compound.triggers:
        which = "every such call" if compound.nth == 1 else f"one such call in {compound.nth}"
        yield f"- fires at {which}."
    if compound.leaf:
        yield (
            "- but only once such calls have met something else than directories: a program that "
            "asks about directories only walks a tree and has nothing to gain."
        )
    body = "; ".join(_body(compound))
    where = "for each entry e of D" if compound.loop else "once"
    where = "for each path p of its list" if compound.paths else where
    yield f"- then asks ahead, {where}: {body}."
    if compound.serves:
        yield (
            f"- answers with the results, each once and within the same epoch: "
            f"{_calls(p.call for p in compound.serves)}"
            + _attributes(p.attribute for p in compound.serves if p.attribute)
        )
    yield _executors(executors)
    limits = compound.limits
    if limits.reach:
        reach = limits.reach
        yield (
            f"- runs over no more than some {reach.chunk:,} entries of a directory before nearly "
            f"all of others was asked for; of this one {reach.grow} times as far, and so on, each "
            f"time that calls about one in {reach.miss} of the entries ahead went unanswered."
        )
    yield (
        f"- stops at {limits.ops:,} calls, {print_size(limits.bytes)} of results or "
        f"{print_time(limits.time_ns)} in the executor."
    )
    for line in compound.evidence:
        yield f"- {line}"


def _attributes(names: Iterable[str]) -> str:
    found = _calls(names)
    return f" (of attributes that are absent: {found})." if found else "."
