# SPDX-License-Identifier: MIT
"""The static verifier: each rule refuses what breaks it, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from synth import image, verify
from synth.constants import AT_FDCWD
from synth.errors import SynthError
from synth.image import ArgKind, ImageArg, ImageOp, ImagePattern
from synth.lowering import lower
from synth.parser import parse
from tracer.syscalls import by_name

DEFAULT = Path(__file__).resolve().parents[2] / "synth" / "profiles" / "default.cosy"
VECTORS = Path(__file__).resolve().parents[1] / "vectors"

GOOD = """\
compound scan
  on newfstatat(D, name, flags within AT_SYMLINK_NOFOLLOW)
  where scanned(D) and child(D, name)
  each e in entries(D)
    call newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)
    maybe lgetxattr(D/e.name, "security.selinux")
  serve newfstatat, lstat, lgetxattr("security.selinux")
"""


def nr(name: str) -> int:
    return by_name()[name].nr


def compound(**changes: Any) -> image.ImageCompound:
    (good,) = lower(parse(GOOD)).compounds
    return dataclasses.replace(good, **changes)


def problems(**changes: Any) -> str:
    return "\n".join(verify.problems(image.Image((compound(**changes),))))


def test_good_profiles_have_no_problems() -> None:
    assert problems() == ""
    assert verify.problems(lower(parse(DEFAULT.read_text()))) == []


STAT = lower(parse(GOOD)).compounds[0].ops[0]


def stat_with(position: int, arg: ImageArg) -> tuple[ImageOp, ...]:
    args = list(STAT.args)
    args[position] = arg
    return (dataclasses.replace(STAT, args=tuple(args)),)


SHAPES = {c.name: c for c in lower(parse((VECTORS / "shapes.cosy").read_text())).compounds}


def changed(name: str, op: int = 0, **changes: Any) -> str:
    """The problems of a shape, one of its calls changed."""
    compound = SHAPES[name]
    ops = list(compound.ops)
    ops[op] = dataclasses.replace(ops[op], **changes)
    found = image.Image((dataclasses.replace(compound, ops=tuple(ops)),))
    return "\n".join(verify.problems(found))


def with_arg(name: str, op: int, position: int, arg: ImageArg) -> str:
    args = list(SHAPES[name].ops[op].args)
    args[position] = arg
    return changed(name, op, args=tuple(args))


def shape(name: str, **changes: Any) -> str:
    return "\n".join(verify.problems(image.Image((dataclasses.replace(SHAPES[name], **changes),))))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_good(name: str) -> None:
    assert shape(name) == ""


FDCWD = ImageArg(ArgKind.CONST, value=AT_FDCWD)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (shape("probes", paths=()), "number of paths 0"),
        (shape("probes", paths=("x",) * 257), "number of paths 257"),
        (shape("probes", paths=("",)), "an empty or too long path"),
        (shape("probes", paths=("x" * 4096,)), "an empty or too long path"),
        (shape("probes", guards=0x13), "knows no D"),
        (shape("probes", loop=0), "paths without a loop"),
        (shape("until-eof", guards=0x18), "listed(path) without a loop"),
        (shape("until-eof", guards=0), "only pure calls may run ahead"),
        (shape("until-eof", triggers=(ImagePattern(nr("lstat")),)), "names no open file"),
        (shape("probes", triggers=(ImagePattern(nr("fstat")),)), "names no path"),
        (changed("until-eof", flags=4), "unknown flags"),
        (changed("slurp", 1, flags=2), "never comes to an end"),
        (changed("slurp", 1, conds=(image.ImageCond(1, 1, 1, 0),)), "only calls before"),
        (changed("slurp", 1, conds=(image.ImageCond(0, 5, 1, 0),)), "no file's attributes"),
        (changed("slurp", 1, conds=(image.ImageCond(0, 6, 1, 0),)), "unknown field 6"),
        (changed("slurp", 1, conds=(image.ImageCond(0, 1, 5, 0),)), "unknown relation 5"),
        (changed("slurp", 1, conds=(image.ImageCond(0, 1, 1, 0),) * 5), "conditions 5"),
        (with_arg("slurp", 0, 2, ImageArg(ArgKind.CONST, value=0o100)), "only reads"),
        (with_arg("slurp", 0, 2, ImageArg(ArgKind.CONST, value=1)), "only reads"),
        (with_arg("slurp", 0, 2, ImageArg(ArgKind.TRIGGER, index=2)), "only reads"),
        (with_arg("slurp", 0, 0, ImageArg(ArgKind.CONST, value=3)), "by its number"),
        (with_arg("slurp", 0, 1, ImageArg(ArgKind.ITEM)), "only in a loop over paths"),
        (with_arg("slurp", 1, 0, ImageArg(ArgKind.CONST, value=0)), "by its number"),
        (with_arg("slurp", 2, 0, ImageArg(ArgKind.RESULT, index=1)), "is no descriptor"),
        (with_arg("slurp", 2, 0, ImageArg(ArgKind.CONST, value=0)), "only pure calls"),
        (with_arg("slurp", 2, 2, ImageArg(ArgKind.CONST, value=65537)), "do not fit"),
        (with_arg("slurp", 2, 2, ImageArg(ArgKind.FIELD, 1, "", 0, 1)), "tells a size"),
        (with_arg("slurp", 2, 2, ImageArg(ArgKind.FIELD, 0, "", 0, 5)), "tells a size"),
        (with_arg("slurp", 2, 2, ImageArg(ArgKind.FIELD, 1, "", 1 << 21, 5)), "no size belongs"),
        (with_arg("slurp", 2, 2, ImageArg(ArgKind.CONST, value=1, field=5)), "its field is set"),
        (with_arg("slurp", 3, 0, FDCWD), "only pure calls"),
        (with_arg("probes", 1, 0, ImageArg(ArgKind.ITEM, string="/etc")), "behind a slash"),
        (
            with_arg("directory-slurp", 1, 3, ImageArg(ArgKind.CONST)),
            "an empty string, without AT_EMPTY_PATH",
        ),
        (
            with_arg("directory-slurp", 0, 0, ImageArg(ArgKind.TRIGGER, index=0)),
            "in a loop only",
        ),
    ],
)
def test_rules_of_the_larger_language(found: str, message: str) -> None:
    assert message in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Übel"}, "its name is none"),
        ({"name": ""}, "its name is none"),
        ({"flags": 0}, "either speculative or explicit"),
        ({"flags": 3}, "either speculative or explicit"),
        ({"guards": 0x20 | 3}, "unknown guards"),
        ({"guards": 1}, "needs scanned(D) and child(D, name)"),
        ({"loop": 3}, "unknown loop"),
        ({"nth": 0}, "nth 0: must be 1 to 1024"),
        ({"nth": 1025}, "nth 1025"),
        ({"min_entries": 1 << 21}, "entries"),
        ({"chunk": 0}, "chunk 0: must be 1 to"),
        ({"chunk": 1 << 21}, "chunk 2097152"),
        ({"grow": 1}, "grow 1: must be 2 to"),
        ({"grow": 1 << 21}, "grow 2097152"),
        ({"miss": 0}, "miss 0: must be 1 to"),
        ({"miss": 1025}, "miss 1025"),
        ({"loop": 0, "grow": 0, "miss": 0}, "a chunk without a loop over entries"),
        ({"loop": 0, "chunk": 0, "miss": 0}, "a chunk without a loop over entries"),
        ({"loop": 0, "chunk": 0, "grow": 0}, "a chunk without a loop over entries"),
        ({"limit_ops": 0}, "limit ops 0"),
        ({"limit_bytes": 1 << 40}, "limit bytes"),
        ({"limit_time_ns": 2_000_000_000}, "limit time"),
        ({"ops": ()}, "number of calls 0"),
        ({"ops": (STAT,) * 17}, "number of calls 17"),
        ({"triggers": ()}, "needs a trigger"),
        ({"serves": ()}, "something to serve"),
        ({"executors": 0}, "no executor can run it"),
        ({"executors": 4 | 8}, "not all of them can run it"),
        ({"executors": 4 | 32}, "not all of them can run it"),
        ({"ops": (dataclasses.replace(STAT, nr=511),)}, "no system call has number 511"),
        ({"ops": (dataclasses.replace(STAT, flags=4),)}, "unknown flags"),
        ({"ops": (dataclasses.replace(STAT, args=STAT.args[:3]),)}, "takes 4 arguments, not 3"),
        ({"ops": stat_with(0, ImageArg(ArgKind.NONE))}, "unknown kind 0"),
        ({"ops": stat_with(0, ImageArg(99))}, "unknown kind 99"),
        ({"ops": stat_with(0, ImageArg(ArgKind.DIR, value=1))}, "its value is set"),
        ({"ops": stat_with(0, ImageArg(ArgKind.STRING, string="x"))}, "no string belongs here"),
        ({"ops": stat_with(0, ImageArg(ArgKind.CONST, value=3))}, "a bare name needs D"),
        ({"ops": stat_with(1, ImageArg(ArgKind.CONST))}, "a string is needed"),
        ({"ops": stat_with(1, ImageArg(ArgKind.STRING))}, "an empty string"),
        ({"ops": stat_with(2, ImageArg(ArgKind.CONST))}, "an output buffer is needed"),
        ({"ops": stat_with(2, ImageArg(ArgKind.OUT, value=143))}, "144 to"),
        ({"ops": stat_with(3, ImageArg(ArgKind.OUT, value=1))}, "no output buffer belongs here"),
        ({"ops": stat_with(3, ImageArg(ArgKind.CONST, value=1 << 31))}, "unknown flags"),
        ({"ops": stat_with(3, ImageArg(ArgKind.RESULT, index=0))}, "only calls before this one"),
        ({"ops": stat_with(3, ImageArg(ArgKind.TRIGGER, index=3))}, "in a loop only D"),
        ({"triggers": (ImagePattern(511),)}, "no system call has number 511"),
        ({"triggers": (ImagePattern(nr("fstat")),)}, "names no child of D"),
        ({"triggers": (ImagePattern(nr("lstat"), 0x100),)}, "no such flags"),
        ({"triggers": (ImagePattern(nr("newfstatat"), 0x1000),)}, "AT_EMPTY_PATH"),
        ({"triggers": (ImagePattern(nr("lstat"), 0, 1),)}, "it has no mask"),
        ({"triggers": (ImagePattern(nr("lgetxattr")),)}, "each needs one"),
        ({"triggers": (ImagePattern(nr("lstat"), 0, 0, "user.x"),)}, "belongs to xattr calls"),
        ({"serves": (ImagePattern(nr("readlink")),)}, "no call of the body yields its answer"),
        (
            {"serves": (ImagePattern(nr("lgetxattr"), 0, 0, "security.capability"),)},
            "no call of the body yields its answer",
        ),
    ],
)
def test_each_rule(changes: dict[str, Any], message: str) -> None:
    assert message in problems(**changes)


@pytest.mark.parametrize("call", ["unlink", "chmod", "read", "close", "poll", "execve"])
def test_speculative_compounds_hold_pure_calls_only(call: str) -> None:
    op = ImageOp(nr(call), tuple(ImageArg(ArgKind.CONST) for _ in by_name()[call].args))
    assert "only pure calls may run ahead" in problems(ops=(STAT, op))


def test_explicit_compounds_may_change_things_but_not_processes() -> None:
    args = (ImageArg(ArgKind.PATH),)
    unlink = ImageOp(nr("unlink"), args)
    explicit = {"flags": int(image.CompoundFlag.EXPLICIT), "serves": ()}
    assert "only pure" not in problems(ops=(unlink,), **explicit)
    fork = ImageOp(nr("fork"), ())
    assert "no compound may hold it" in problems(ops=(fork,), **explicit)


def test_results_come_from_earlier_calls() -> None:
    text = GOOD.replace("AT_SYMLINK_NOFOLLOW)\n    maybe", "result(0))\n    maybe")
    assert "only calls before" in "\n".join(verify.problems(lower(parse(text))))


def test_what_no_executor_can_run_is_refused() -> None:
    text = GOOD.replace("serve newfstatat", "serve getppid, newfstatat").replace(
        "    maybe", "    call getppid()\n    maybe"
    )
    with pytest.raises(SynthError, match="no executor can run it"):
        verify.check(lower(parse(text)), "x")


def test_two_compounds_of_one_name() -> None:
    twice = image.Image((compound(), compound()))
    assert verify.problems(twice) == ["compound scan: a second one of this name"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("on newfstatat(", "on nosuchcall(", "no system call is named nosuchcall"),
        ("on newfstatat(D, name", "on newfstatat(path", r"write newfstatat\(D, name\)"),
        ("serve newfstatat, lstat", "serve newfstatat, lstat(flags within 1)", "no flags argument"),
        ("call newfstatat(D, e.name, ", "call newfstatat(e.name, ", "takes 4 arguments"),
    ],
)
def test_lowering_refuses_what_it_cannot_resolve(old: str, new: str, message: str) -> None:
    with pytest.raises(SynthError, match=message):
        lower(parse(GOOD.replace(old, new)))
