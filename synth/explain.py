# SPDX-License-Identifier: MIT
"""Profiles in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from synth.language import Compound, Profile, print_call, print_size, print_time


def paragraphs(profile: Profile) -> Iterator[str]:
    """What a profile does, a paragraph per fact."""
    if profile.build_id:
        yield f"For the program with build-id {profile.build_id}."
    else:
        yield "For every program that has no profile of its own."
    for compound in profile.compounds:
        yield from _compound(compound)


def _calls(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _compound(compound: Compound) -> Iterator[str]:
    yield ""
    yield compound.name
    if compound.explicit:
        yield "- is handed over by a program that asks for it."
    if compound.triggers:
        yield f"- watches {_calls(p.call for p in compound.triggers)}."
    if compound.scanned and compound.child:
        yield (
            f"- fires at call number {compound.nth} on children of one directory D, if the program "
            f"has read D's entries and there are at least {compound.min_entries}."
        )
    elif compound.listed:
        yield f"- fires when one of the {len(compound.paths)} paths of its list is asked for."
    elif compound.regular:
        yield f"- fires at call number {compound.nth} in a row on an open regular file."
    elif compound.triggers:
        yield f"- fires at every call number {compound.nth}."
    if compound.leaf:
        yield (
            "- but only once such calls have met something else than directories: a program that "
            "asks about directories only walks a tree and has nothing to gain."
        )
    body = "; ".join(print_call(call, loop=compound.loop) for call in compound.body)
    where = "for each entry e of D" if compound.loop else "once"
    where = "for each path p of its list" if compound.paths else where
    yield f"- then asks ahead, {where}: {body}."
    if compound.serves:
        yield (
            f"- answers with the results, each once and within the same epoch: "
            f"{_calls(p.call for p in compound.serves)}"
            + _attributes(p.attribute for p in compound.serves if p.attribute)
        )
    limits = compound.limits
    yield (
        f"- stops at {limits.ops:,} calls, {print_size(limits.bytes)} of results or "
        f"{print_time(limits.time_ns)} in the executor."
    )
    for line in compound.evidence:
        yield f"- {line}"


def _attributes(names: Iterable[str]) -> str:
    found = _calls(names)
    return f" (of attributes that are absent: {found})." if found else "."
