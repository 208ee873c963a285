# SPDX-License-Identifier: MIT
"""The compound language: what parses, what is refused and where, and the round trip."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import language as lang
from synth.constants import AT_FDCWD, AT_FLAGS, ERRORS, FILE_TYPES, OPEN_FLAGS, STATX_MASKS, spell
from synth.lexer import ParseError
from synth.lowering import lower
from synth.parser import parse

DESIGN_EXAMPLE = """\
compound dirscan-stat                       # evidence: du, ls, tar; 338,416 calls
  on      newfstatat(D, name, AT_SYMLINK_NOFOLLOW)      # trigger: 2nd stat
  where   scanned(D) and child(D, name)
  each e in entries(D)
    call  newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)
  limit   ops 65536, bytes 16M, time 20ms
  serve   newfstatat, statx(mask within BASIC), lstat
"""


def test_the_example_of_the_design() -> None:
    (compound,) = parse(DESIGN_EXAMPLE).compounds
    assert compound.name == "dirscan-stat"
    assert compound.evidence == ("evidence: du, ls, tar; 338,416 calls", "trigger: 2nd stat")
    assert compound.triggers == (lang.Pattern("newfstatat", ("D", "name"), flags=0x100),)
    assert compound.body == (
        lang.Call("newfstatat", (lang.Directory(), lang.Name(), lang.Number(0x100, "AT"))),
    )
    assert compound.limits == lang.Limits(65536, 16 << 20, 20_000_000)
    assert [p.call for p in compound.serves] == ["newfstatat", "statx", "lstat"]
    assert compound.serves[1].mask == 0x7FF


def test_how_far_runs_reach_is_part_of_the_limits() -> None:
    text = MINIMAL + "  limit ops 10, chunk 300, miss 8\n  serve lstat\n"
    (compound,) = parse(text).compounds
    usual = lang.Reach()
    assert compound.limits.ops == 10
    assert compound.limits.reach == lang.Reach(300, usual.grow, 8)
    printed = lang.print_profile(parse(text))
    assert f"time 20ms, chunk 300, grow {usual.grow}, miss 8\n" in printed
    (said,) = lower(parse(text)).compounds
    assert (said.chunk, said.grow, said.miss) == (300, usual.grow, 8)
    (unsaid,) = lower(parse(MINIMAL + "  serve lstat\n")).compounds
    assert lang.Reach(unsaid.chunk, unsaid.grow, unsaid.miss) == usual


MINIMAL = "compound a\n  on lstat(path)\n  each e in entries(D)\n    call lstat(D/e.name)\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("  on lstat\n", 1, 3, "before any compound"),
        ("compound Bad\n", 1, 10, "name"),
        (MINIMAL, 1, 1, "'serve' line"),
        ("compound a\n  on lstat(path)\n  serve lstat\n", 1, 1, "'each' or a 'once'"),
        (MINIMAL + "  serve lstat(\n", 5, 15, "constant"),
        (MINIMAL + "  serve statx(mask within AT_EMPTY_PATH)\n", 5, 27, "no STATX_* constant"),
        (MINIMAL + "  serve lstat(AT_NOSUCH)\n", 5, 15, "AT_NOSUCH"),
        (MINIMAL + "  serve lstat ?\n", 5, 15, "unexpected '?'"),
        (MINIMAL + "  serve lstat lstat\n", 5, 15, "unexpected 'lstat'"),
        (MINIMAL + "  limit time 20min\n", 5, 14, "bad time"),
        (MINIMAL + "  limit ops 99999999999999999999\n", 5, 13, "too large"),
        (MINIMAL + "  limit ops 1\n  limit ops 2\n", 6, 3, "a second 'limit'"),
        (MINIMAL + "  once\n", 5, 3, "a second 'once'"),
        (MINIMAL + "  where scanned(E)\n", 5, 17, "expected 'D'"),
        (MINIMAL + "  where known(D)\n", 5, 9, "leaf(name)"),
        (MINIMAL + "    call fstat(result(0)) if age(0) == 1\n", 5, 30, "ret, errno, type"),
        (MINIMAL + "    call fstat(result(0)) if size(0) < 1\n", 5, 38, "unexpected '<'"),
        (MINIMAL + "    call fstat(result(0)) if size(0) 1\n", 5, 38, "expected one of =="),
        (MINIMAL + "    call fstat(result(0)) if type(0) == ENOENT\n", 5, 41, "no value of type"),
        (MINIMAL + '    call lstat(D/e.name/"")\n', 5, 27, "empty string"),
        (MINIMAL + '  path "/etc"\n  serve lstat\n', 1, 1, "'each p in paths'"),
        (
            MINIMAL.replace("e in entries(D)", "p in paths").replace("D/e.name", "p")
            + "  serve lstat\n",
            1,
            1,
            "'path' line",
        ),
        (MINIMAL + "  executor gpu\n", 5, 12, "inline, ahead, bpf, module, reference"),
        (MINIMAL + "  sometimes lstat\n", 5, 3, "expected one of on, where"),
        (MINIMAL + '    call lgetxattr(D/e.name, "a\\q")\n', 5, 30, "unknown escape"),
        (MINIMAL + '    call lgetxattr(D/e.name, "a\\x00")\n', 5, 30, "NUL"),
        (MINIMAL + "    call lstat(name)\n", 5, 16, "expected 'e'"),
        (MINIMAL + "  serve lstat\n" + MINIMAL, 6, 1, "a second compound named a"),
        ("program 12ab\n", 1, 9, "40 hexadecimal"),
        ("flow a\n", 1, 1, "expected 'compound'"),
    ],
)
def test_errors_name_the_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text, "x.cosy")
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"x.cosy:{line}:{column}: ")
    assert "\n" not in str(caught.value)


def test_comments_belong_to_the_profile_or_to_the_compound_below() -> None:
    profile = parse(
        "# of the profile\n\n# of a\n" + MINIMAL + "  # more of a\n  serve lstat\n# end\n"
    )
    assert profile.comments == ("of the profile", "end")
    assert profile.compounds[0].evidence == ("of a", "more of a")


def test_the_shipped_profile_is_canonical() -> None:
    path = Path(lang.__file__).parent / "profiles" / "default.cosy"
    text = path.read_text()
    assert lang.print_profile(parse(text, str(path))) == text


def test_constants_are_the_kernels() -> None:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    known = AT_FLAGS | STATX_MASKS | OPEN_FLAGS | FILE_TYPES | ERRORS
    names = list(known)
    lines = "".join(f'printf("%#x\\n", (unsigned)({name}));\n' for name in names)
    headers = "#include <linux/fcntl.h>\n#include <linux/stat.h>\n#include <stdio.h>\n"
    headers += "#include <errno.h>\n"
    source = f"{headers}int main(void) {{\n{lines}return 0; }}\n"
    binary = Path(subprocess.check_output(["mktemp"], text=True).strip())
    try:
        command = ["cc", "-x", "c", "-o", str(binary), "-"]
        subprocess.run(command, input=source, text=True, check=True)
        values = subprocess.check_output([str(binary)], text=True).split()
    finally:
        binary.unlink()
    assert {n: int(v, 16) for n, v in zip(names, values, strict=True)} == known


# Random trees in the form that the parser builds.

words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda w: w not in ("out", "result", "trigger", "size", "e", "name", "p")
)
comments = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r", exclude_categories=("Cs", "Cc")),
    max_size=20,
).map(str.strip)
strings = st.binary(min_size=0, max_size=12).map(
    lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
at_bits = st.integers(0, 0xFFFFFFFF)


def _number(value: int, family: str) -> lang.Number:
    named = spell(family, value).partition("|")[0] if family else "0"
    return lang.Number(value, "" if named.isdigit() else family)


numbers = st.builds(
    _number, st.integers(0, (1 << 64) - 1), st.sampled_from(["", "AT", "STATX", "O"])
)
suffixes = st.just("") | strings
arguments = st.one_of(
    numbers,
    st.just(lang.Number(AT_FDCWD, "FDCWD")),
    st.builds(lang.Text, strings),
    st.builds(lang.Directory),
    st.builds(lang.Name, suffixes),
    st.builds(lang.Path, suffixes),
    st.builds(lang.Item, suffixes),
    st.builds(lang.Out, st.integers(0, 0xFFFFFFFF)),
    st.builds(lang.Result, st.integers(0, 255)),
    st.builds(lang.Trigger, st.integers(0, 255), suffixes),
    st.builds(lang.Size, st.integers(0, 255), st.integers(0, (1 << 64) - 1)),
)
values = st.one_of(
    st.integers(0, (1 << 64) - 1), st.sampled_from([*FILE_TYPES.values(), *ERRORS.values()])
)
conditions = st.builds(
    lang.Condition,
    st.sampled_from(lang.FIELDS),
    st.integers(0, 255),
    st.sampled_from(lang.RELATIONS),
    values,
)
patterns = st.builds(
    lang.Pattern,
    words | st.sampled_from(["openat", "read"]),
    st.lists(st.sampled_from(lang.SUBJECTS), max_size=3).map(tuple),
    st.none() | at_bits,
    st.none() | at_bits,
    st.none() | strings,
)
calls = st.builds(
    lang.Call,
    words,
    st.lists(arguments, max_size=6).map(tuple),
    st.booleans(),
    st.booleans(),
    st.lists(conditions, max_size=2).map(tuple),
)
reaches = st.builds(lang.Reach, *[st.integers(0, (1 << 32) - 1)] * 3)
limits = st.builds(lang.Limits, *[st.integers(0, (1 << 64) - 1)] * 3, st.none() | reaches)
executors = st.none() | st.sets(st.sampled_from(lang.EXECUTORS), min_size=1).map(
    lambda chosen: tuple(sorted(chosen, key=lang.EXECUTORS.index))
)


@st.composite
def compounds(draw: st.DrawFn) -> lang.Compound:
    loop = draw(st.booleans())
    paths = () if loop else tuple(draw(st.lists(strings, max_size=3)))
    explicit = draw(st.booleans())
    return lang.Compound(
        name=draw(st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True)),
        triggers=tuple(draw(st.lists(patterns, min_size=1, max_size=3))),
        body=tuple(draw(st.lists(calls, min_size=1, max_size=3))),
        serves=tuple(draw(st.lists(patterns, min_size=1, max_size=3))),
        loop=loop,
        paths=paths,
        scanned=draw(st.booleans()),
        child=draw(st.booleans()),
        leaf=draw(st.booleans()),
        regular=draw(st.booleans()),
        listed=draw(st.booleans()),
        nth=draw(st.integers(0, 0xFFFFFFFF)),
        min_entries=draw(st.integers(0, 0xFFFFFFFF)),
        limits=draw(limits),
        executors=draw(executors),
        explicit=explicit,
        evidence=tuple(draw(st.lists(comments, max_size=3))),
    )


profiles = st.builds(
    lang.Profile,
    st.lists(compounds(), max_size=3, unique_by=lambda c: c.name).map(tuple),
    st.just("") | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    st.lists(comments, max_size=3).map(tuple),
)


@given(profiles)
def test_round_trip(profile: lang.Profile) -> None:
    text = lang.print_profile(profile)
    assert parse(text) == profile
    assert lang.print_profile(parse(text)) == text


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    refused: ParseError | None = None
    try:
        parse(text)
    except ParseError as error:
        refused = error
    if refused is not None:
        assert "\n" not in str(refused)
        assert 1 <= refused.line <= text.count("\n") + 1
