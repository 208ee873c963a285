# SPDX-License-Identifier: MIT
"""The parser of the compound language: text to `synth.language.Profile`.

Line-oriented recursive descent over `synth.lexer`. Every error names file, line and column (both
counted from 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from synth.constants import flag_family
from synth.language import (
    EXECUTORS,
    FIELDS,
    GUARDS,
    RELATIONS,
    SIZE_UNITS,
    SUBJECTS,
    TIME_UNITS,
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
from synth.lexer import Line

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_BUILD_ID: Final = re.compile(r"[0-9a-f]{40}\Z")
_U32: Final = (1 << 32) - 1
_REACH: Final = ("chunk", "grow", "miss")


class _Draft:
    """A compound while its lines come in."""

    def __init__(self, name: str, explicit: bool, where: Line) -> None:
        self.name, self.explicit, self.where = name, explicit, where
        self.triggers: list[Pattern] = []
        self.serves: list[Pattern] = []
        self.body: list[Call] = []
        self.evidence: list[str] = []
        self.loop: str | None = None  # e, p or "": over entries, over paths, once
        self.paths: list[str] = []
        self.guards: set[str] = set()
        self.nth, self.min_entries = 1, 0
        self.limits = Limits()
        self.executors: tuple[str, ...] | None = None
        self.seen: set[str] = set()

    def finish(self) -> Compound:
        for what, there in (
            ("an 'on' line", self.triggers or self.explicit),
            ("an 'each' or a 'once' line", self.loop is not None),
            ("a 'call' line", self.body),
            ("a 'path' line", self.paths or self.loop != "p"),
            ("an 'each p in paths' line", not self.paths or self.loop == "p"),
            ("a 'serve' line", self.serves or self.explicit),
        ):
            if not there:
                raise self.where.error(f"compound {self.name} lacks {what}", 1)
        return Compound(
            name=self.name,
            triggers=tuple(self.triggers),
            body=tuple(self.body),
            serves=tuple(self.serves),
            loop=self.loop == "e",
            paths=tuple(self.paths),
            scanned="scanned" in self.guards,
            child="child" in self.guards,
            leaf="leaf" in self.guards,
            regular="regular" in self.guards,
            listed="listed" in self.guards,
            nth=self.nth,
            min_entries=self.min_entries,
            limits=self.limits,
            executors=self.executors,
            explicit=self.explicit,
            evidence=tuple(self.evidence),
        )


def parse(text: str, source: str = "profile") -> Profile:
    """Parse the text of a profile; `source` names it in errors.

    Raises synth.lexer.ParseError.
    """
    compounds: list[Compound] = []
    comments: list[str] = []
    # Comments at column 1: they are the profile's, unless a compound follows at once.
    pending: list[str] = []
    build_id = ""
    draft: _Draft | None = None
    for line in _lines(text, source):
        if not line.tokens:
            if line.comment is not None and line.indented and draft is not None:
                draft.evidence.append(line.comment)
            elif line.comment is not None:
                pending.append(line.comment)
            else:
                comments, pending = comments + pending, []
            continue
        if line.indented:
            if draft is None:
                raise line.error("an indented line before any compound")
            _clause(line, draft)
            if line.comment:
                draft.evidence.append(line.comment)
        elif line.accept("program"):
            if build_id or draft is not None:
                raise line.error("'program' stands once, before the first compound", 1)
            build_id = _build_id(line)
        else:
            if draft is not None:
                compounds.append(draft.finish())
            draft = _header(line)
            if any(draft.name == other.name for other in compounds):
                raise line.error(f"a second compound named {draft.name}", 1)
            draft.evidence = pending + ([line.comment] if line.comment else [])
            pending = []
        line.finish()
    if draft is not None:
        compounds.append(draft.finish())
    return Profile(tuple(compounds), build_id, tuple(comments + pending))


def _lines(text: str, source: str) -> Iterator[Line]:
    for number, content in enumerate(text.split("\n"), 1):
        yield Line(source, number, content.rstrip("\r"))


def _build_id(line: Line) -> str:
    text = "".join(token.text for token in line.tokens[line.at :])
    if not _BUILD_ID.match(text):
        raise line.error("expected a build-id of 40 hexadecimal digits")
    line.at = len(line.tokens)
    return text


def _header(line: Line) -> _Draft:
    explicit = line.accept("explicit")
    line.expect("compound")
    name = line.peek()
    if not _NAME.match(name):
        raise line.error("expected a compound's name: lower-case letters, digits and hyphens")
    line.at += 1
    return _Draft(name, explicit, line)


def _clause(line: Line, draft: _Draft) -> None:
    keyword = line.peek()
    handler = _CLAUSES.get(keyword)
    if handler is None:
        raise line.error(f"expected one of {', '.join(_CLAUSES)}; found {keyword!r}")
    group = "loop" if keyword in ("each", "once") else keyword
    if group in draft.seen and keyword in _ONCE:
        raise line.error(f"a second '{keyword}' in compound {draft.name}")
    draft.seen.add(group)
    line.at += 1
    handler(line, draft)


def _on(line: Line, draft: _Draft) -> None:
    draft.triggers += _patterns(line)


def _serve(line: Line, draft: _Draft) -> None:
    draft.serves += _patterns(line)


def _where(line: Line, draft: _Draft) -> None:
    while True:
        guard = line.peek()
        if guard not in _GUARDS:
            raise line.error(f"expected {', '.join(GUARDS.values())}; found {guard!r}")
        for word in _GUARDS[guard]:
            line.expect(word)
        draft.guards.add(guard)
        if not line.accept("and"):
            return


def _when(line: Line, draft: _Draft) -> None:
    while True:
        if line.accept("nth"):
            draft.nth = line.integer("nth", _U32)
        elif line.accept("entries"):
            draft.min_entries = line.integer("entries", _U32)
        else:
            raise line.error("expected 'nth N' or 'entries N'")
        if not line.accept(","):
            return


def _each(line: Line, draft: _Draft) -> None:
    if line.accept("p"):
        for word in ("in", "paths"):
            line.expect(word)
        draft.loop = "p"
        return
    for word in ("e", "in", "entries", "(", "D", ")"):
        line.expect(word)
    draft.loop = "e"


def _once(_line: Line, draft: _Draft) -> None:
    draft.loop = ""


def _path(line: Line, draft: _Draft) -> None:
    draft.paths.append(line.string())
    while line.accept(","):
        draft.paths.append(line.string())


def _call(line: Line, draft: _Draft) -> None:
    draft.body.append(_body_call(line, draft))


def _until(line: Line, draft: _Draft) -> None:
    draft.body.append(_body_call(line, draft, until=True))


def _maybe(line: Line, draft: _Draft) -> None:
    until = line.accept("until")
    draft.body.append(_body_call(line, draft, optional=True, until=until))


def _limit(line: Line, draft: _Draft) -> None:
    ops, size, time_ns = draft.limits.ops, draft.limits.bytes, draft.limits.time_ns
    reach = draft.limits.reach
    while True:
        if line.accept("ops"):
            ops = line.integer("ops")
        elif line.accept("bytes"):
            size = line.integer("bytes", units=SIZE_UNITS)
        elif (word := line.peek()) in _REACH:
            line.accept(word)
            reach = replace(reach or Reach(), **{word: line.integer(word, _U32)})
        elif line.accept("time"):
            units = dict(sorted(TIME_UNITS.items(), key=lambda unit: -len(unit[0])))
            time_ns = line.integer("time", units=units)
        else:
            known = ", ".join(f"'{word} N'" for word in ("ops", "bytes", "time", *_REACH))
            raise line.error(f"expected one of {known}")
        if not line.accept(","):
            break
    draft.limits = Limits(ops, size, time_ns, reach)


def _executor(line: Line, draft: _Draft) -> None:
    names = []
    while True:
        name = line.take("word", "an executor")
        if name not in EXECUTORS or name in names:
            line.at -= 1
            raise line.error(f"expected executors, each once, of: {', '.join(EXECUTORS)}")
        names.append(name)
        if not line.accept(","):
            break
    draft.executors = tuple(sorted(names, key=EXECUTORS.index))


_CLAUSES: Final = {
    "on": _on,
    "where": _where,
    "when": _when,
    "each": _each,
    "once": _once,
    "path": _path,
    "call": _call,
    "maybe": _maybe,
    "until": _until,
    "limit": _limit,
    "serve": _serve,
    "executor": _executor,
}
_GUARDS: Final = {guard: re.findall(r"\w+|[(),]", text) for guard, text in GUARDS.items()}
_ONCE: Final = frozenset({"where", "when", "each", "once", "limit", "executor"})


def _patterns(line: Line) -> list[Pattern]:
    found = [_pattern(line)]
    while line.accept(","):
        found.append(_pattern(line))
    return found


def _pattern(line: Line) -> Pattern:
    call = line.take("word", "a system call")
    subjects: list[str] = []
    flags: int | None = None
    mask: int | None = None
    attribute: str | None = None
    if not line.accept("("):
        return Pattern(call)
    while True:
        if line.peek() in SUBJECTS:
            subjects.append(line.take("word", "D, name, path or F"))
        elif line.peek().startswith('"') and attribute is None:
            attribute = line.string()
        elif line.accept("mask"):
            line.expect("within")
            mask = line.bits("STATX", _U32)
        else:
            if line.accept("flags"):
                line.expect("within")
            flags = line.bits(flag_family(call), _U32)
        if not line.accept(","):
            break
    line.expect(")")
    return Pattern(call, tuple(subjects), flags, mask, attribute)


def _body_call(line: Line, draft: _Draft, *, optional: bool = False, until: bool = False) -> Call:
    if draft.loop is None:
        raise line.error("a call before 'each' or 'once'", 1)
    name = line.take("word", "a system call")
    args: list[Argument] = []
    line.expect("(")
    if not line.accept(")"):
        args.append(_argument(line, draft.loop))
        while line.accept(","):
            args.append(_argument(line, draft.loop))
        line.expect(")")
    conditions: list[Condition] = []
    if line.accept("if"):
        conditions.append(_condition(line))
        while line.accept("and"):
            conditions.append(_condition(line))
    return Call(name, tuple(args), optional, until, tuple(conditions))


def _condition(line: Line) -> Condition:
    field = line.peek()
    if field not in FIELDS:
        raise line.error(f"expected one of {', '.join(FIELDS)}; found {field!r}")
    line.at += 1
    index = _index(line, field)
    relation = line.peek()
    if relation not in RELATIONS:
        raise line.error(f"expected one of {' '.join(RELATIONS)}; found {relation!r}")
    line.at += 1
    return Condition(field, index, relation, line.value_of(field))


def _index(line: Line, what: str, most: int = 255) -> int:
    line.expect("(")
    value = line.integer(what, most)
    line.expect(")")
    return value


def _argument(line: Line, loop: str) -> Argument:
    word = line.peek()
    if word.startswith('"'):
        return Text(line.string())
    if line.accept("out"):
        return Out(_index(line, word, _U32))
    if line.accept("result"):
        return Result(_index(line, word))
    if line.accept("trigger"):
        return Trigger(_index(line, word), _suffix(line))
    if line.accept("size"):
        index = _index(line, word)
        return Size(index, line.integer("a number of bytes") if line.accept("+") else 0)
    if line.accept("D"):
        if not line.accept("/"):
            return Directory()
        _entry_name(line, loop)
        return Path(_suffix(line))
    if word in ("e", "name"):
        _entry_name(line, loop)
        return Name(_suffix(line))
    if line.accept("p"):
        return Item(_suffix(line))
    return Number(*line.constant())


def _suffix(line: Line) -> str:
    if not line.accept("/"):
        return ""
    text = line.string()
    if not text:
        raise line.error("an empty string behind a slash")
    return text


def _entry_name(line: Line, loop: str) -> None:
    if loop != "e":
        line.expect("name")
        return
    for word in ("e", ".", "name"):
        line.expect(word)
