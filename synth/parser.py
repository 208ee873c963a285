# SPDX-License-Identifier: MIT
"""The parser of the compound language: text to `synth.language.Profile`.

Line-oriented recursive descent. Every error names file, line and column (both counted from 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from synth.constants import lookup
from synth.errors import SynthError
from synth.language import (
    EXECUTORS,
    SIZE_UNITS,
    SUBJECTS,
    TIME_UNITS,
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

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<comment>\#.*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>[0-9][0-9A-Za-z]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*)
      | (?P<mark>[(),|./])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r'\\(?:x([0-9a-fA-F]{2})|(["\\])|(.))', re.DOTALL)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_BUILD_ID: Final = re.compile(r"[0-9a-f]{40}\Z")
_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1


class ParseError(SynthError):
    """The text is no profile; `line` and `column` say where, counted from 1."""

    def __init__(self, source: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{source}:{line}:{column}: {message}")
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Line:
    """The tokens of one line, and the way to complain about them."""

    def __init__(self, source: str, number: int, text: str) -> None:
        self.source = source
        self.number = number
        self.comment: str | None = None
        self.tokens: list[_Token] = []
        self.at = 0
        self.end = len(text) + 1
        self.indented = text[:1] in (" ", "\t")
        self.blank = not text.strip()
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"unexpected {text[position]!r}", position + 1)
            kind = match.lastgroup or ""
            if kind == "comment":
                self.comment = match.group()[1:].removeprefix(" ").rstrip()
            elif kind != "space":
                self.tokens.append(_Token(kind, match.group(), position + 1))
            position = match.end()

    def error(self, message: str, column: int | None = None) -> ParseError:
        if column is None:
            column = self.tokens[self.at].column if self.at < len(self.tokens) else self.end
        return ParseError(self.source, self.number, column, message)

    def peek(self) -> str:
        """The next token's text, "" at the end of the line."""
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def take(self, kind: str, what: str) -> str:
        """The next token, which must be of this kind."""
        if self.at >= len(self.tokens) or self.tokens[self.at].kind != kind:
            raise self.error(f"expected {what}, found {self.peek() or 'the end of the line'!r}")
        self.at += 1
        return self.tokens[self.at - 1].text

    def accept(self, text: str) -> bool:
        """Take the next token if it is this one."""
        if self.peek() != text:
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> None:
        """The next token must be this one."""
        if not self.accept(text):
            raise self.error(f"expected '{text}', found {self.peek() or 'the end of the line'!r}")

    def finish(self) -> None:
        """Nothing may follow."""
        if self.at < len(self.tokens):
            raise self.error(f"unexpected {self.peek()!r}")

    def integer(self, what: str, most: int = _U64, units: dict[str, int] | None = None) -> int:
        """A number with an optional unit, at most `most`."""
        text = self.take("number", what)
        column = self.tokens[self.at - 1].column
        factor = 1
        for unit, scale in (units or {}).items():
            if text.endswith(unit) and text[: -len(unit)].isdigit():
                text, factor = text[: -len(unit)], scale
                break
        try:
            value = int(text, 16 if text[:2].lower() == "0x" else 10) * factor
        except ValueError:
            allowed = f" (units: {', '.join(units)})" if units else ""
            raise self.error(f"bad {what} {text!r}{allowed}", column) from None
        if value > most:
            raise self.error(f"{what} is too large: at most {most}", column)
        return value

    def string(self) -> str:
        """A string literal, unescaped; bytes that are no UTF-8 become surrogates (PEP 383)."""
        column = self.tokens[self.at].column if self.at < len(self.tokens) else self.end
        literal = self.take("string", "a string")[1:-1]
        out = bytearray()
        position = 0
        for match in _ESCAPE.finditer(literal):
            if match.group(3):
                raise self.error(f"unknown escape \\{match.group(3)} in a string", column)
            out += literal[position : match.start()].encode("utf-8", "surrogateescape")
            out += bytes([int(match[1], 16)]) if match[1] else match[2].encode()
            position = match.end()
        out += literal[position:].encode("utf-8", "surrogateescape")
        if 0 in out:
            raise self.error("a string may not hold a NUL", column)
        return out.decode("utf-8", "surrogateescape")

    def bits(self, family: str, most: int) -> int:
        """Names of one family and numbers, joined by `|`."""
        return self._bits(most, family)[0]

    def constant(self) -> Number:
        """Names and numbers joined by `|`, as an argument of a call."""
        return Number(*self._bits(_U64, None))

    def _bits(self, most: int, family: str | None) -> tuple[int, str]:
        value, found = 0, family or ""
        while True:
            if self.at < len(self.tokens) and self.tokens[self.at].kind == "number":
                value |= self.integer("a number", most)
            else:
                word = self.take("word", "a constant")
                entry = lookup(word)
                if entry is None or (found and entry[0] != found):
                    kind = f"{found}_* constant" if found else "constant"
                    self.at -= 1
                    raise self.error(f"{word!r} is no {kind} that compounds know")
                value, found = value | entry[1], entry[0]
            if not self.accept("|"):
                return value, found if value or family else ""


class _Draft:
    """A compound while its lines come in."""

    def __init__(self, name: str, explicit: bool, where: _Line) -> None:
        self.name, self.explicit, self.where = name, explicit, where
        self.triggers: list[Pattern] = []
        self.serves: list[Pattern] = []
        self.body: list[Call] = []
        self.evidence: list[str] = []
        self.loop: bool | None = None
        self.depth = 0
        self.scanned = self.child = self.leaf = False
        self.nth, self.min_entries = 1, 0
        self.limits = Limits()
        self.executors: tuple[str, ...] | None = None
        self.seen: set[str] = set()

    def finish(self) -> Compound:
        for what, there in (
            ("an 'on' line", self.triggers),
            ("an 'each' or a 'once' line", self.loop is not None),
            ("a 'call' line", self.body),
            ("a 'serve' line", self.serves or self.explicit),
        ):
            if not there:
                raise self.where.error(f"compound {self.name} lacks {what}", 1)
        return Compound(
            name=self.name,
            triggers=tuple(self.triggers),
            body=tuple(self.body),
            serves=tuple(self.serves),
            loop=bool(self.loop),
            depth=self.depth,
            scanned=self.scanned,
            child=self.child,
            leaf=self.leaf,
            nth=self.nth,
            min_entries=self.min_entries,
            limits=self.limits,
            executors=self.executors,
            explicit=self.explicit,
            evidence=tuple(self.evidence),
        )


def parse(text: str, source: str = "profile") -> Profile:
    """Parse the text of a profile; `source` names it in errors.

    Raises ParseError.
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


def _lines(text: str, source: str) -> Iterator[_Line]:
    for number, content in enumerate(text.split("\n"), 1):
        yield _Line(source, number, content.rstrip("\r"))


def _build_id(line: _Line) -> str:
    text = "".join(token.text for token in line.tokens[line.at :])
    if not _BUILD_ID.match(text):
        raise line.error("expected a build-id of 40 hexadecimal digits")
    line.at = len(line.tokens)
    return text


def _header(line: _Line) -> _Draft:
    explicit = line.accept("explicit")
    line.expect("compound")
    name = line.peek()
    if not _NAME.match(name):
        raise line.error("expected a compound's name: lower-case letters, digits and hyphens")
    line.at += 1
    return _Draft(name, explicit, line)


def _clause(line: _Line, draft: _Draft) -> None:
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


def _on(line: _Line, draft: _Draft) -> None:
    draft.triggers += _patterns(line)


def _serve(line: _Line, draft: _Draft) -> None:
    draft.serves += _patterns(line)


def _where(line: _Line, draft: _Draft) -> None:
    while True:
        guard = line.peek()
        if guard not in _GUARDS:
            raise line.error(f"expected {', '.join(_GUARD_TEXTS)}; found {guard!r}")
        for word in _GUARDS[guard]:
            line.expect(word)
        setattr(draft, guard, True)
        if not line.accept("and"):
            return


def _when(line: _Line, draft: _Draft) -> None:
    while True:
        if line.accept("nth"):
            draft.nth = line.integer("nth", _U32)
        elif line.accept("entries"):
            draft.min_entries = line.integer("entries", _U32)
        else:
            raise line.error("expected 'nth N' or 'entries N'")
        if not line.accept(","):
            return


def _each(line: _Line, draft: _Draft) -> None:
    for word in ("e", "in", "entries", "(", "D", ")"):
        line.expect(word)
    if line.accept(","):
        line.expect("depth")
        draft.depth = line.integer("depth", _U32)
    draft.loop = True


def _once(_line: _Line, draft: _Draft) -> None:
    draft.loop = False


def _call(line: _Line, draft: _Draft) -> None:
    draft.body.append(_body_call(line, draft, optional=False))


def _maybe(line: _Line, draft: _Draft) -> None:
    draft.body.append(_body_call(line, draft, optional=True))


def _limit(line: _Line, draft: _Draft) -> None:
    ops, size, time_ns = draft.limits.ops, draft.limits.bytes, draft.limits.time_ns
    while True:
        if line.accept("ops"):
            ops = line.integer("ops")
        elif line.accept("bytes"):
            size = line.integer("bytes", units=SIZE_UNITS)
        elif line.accept("time"):
            units = dict(sorted(TIME_UNITS.items(), key=lambda unit: -len(unit[0])))
            time_ns = line.integer("time", units=units)
        else:
            raise line.error("expected 'ops N', 'bytes N' or 'time N'")
        if not line.accept(","):
            break
    draft.limits = Limits(ops, size, time_ns)


def _executor(line: _Line, draft: _Draft) -> None:
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
    "call": _call,
    "maybe": _maybe,
    "limit": _limit,
    "serve": _serve,
    "executor": _executor,
}
_GUARD_TEXTS: Final = ("scanned(D)", "child(D, name)", "leaf(name)")
_GUARDS: Final = {text.partition("(")[0]: re.findall(r"\w+|[(),]", text) for text in _GUARD_TEXTS}
_ONCE: Final = frozenset({"where", "when", "each", "once", "limit", "executor"})


def _patterns(line: _Line) -> list[Pattern]:
    found = [_pattern(line)]
    while line.accept(","):
        found.append(_pattern(line))
    return found


def _pattern(line: _Line) -> Pattern:
    call = line.take("word", "a system call")
    subjects: list[str] = []
    flags: int | None = None
    mask: int | None = None
    attribute: str | None = None
    if not line.accept("("):
        return Pattern(call)
    while True:
        if line.peek() in SUBJECTS:
            subjects.append(line.take("word", "D, name or path"))
        elif line.peek().startswith('"') and attribute is None:
            attribute = line.string()
        elif line.accept("mask"):
            line.expect("within")
            mask = line.bits("STATX", _U32)
        else:
            if line.accept("flags"):
                line.expect("within")
            flags = line.bits("AT", _U32)
        if not line.accept(","):
            break
    line.expect(")")
    return Pattern(call, tuple(subjects), flags, mask, attribute)


def _body_call(line: _Line, draft: _Draft, optional: bool) -> Call:
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
    return Call(name, tuple(args), optional)


def _argument(line: _Line, loop: bool) -> Argument:
    word = line.peek()
    if word.startswith('"'):
        return Text(line.string())
    if word in ("out", "result", "trigger"):
        line.at += 1
        line.expect("(")
        value = line.integer(word, _U32 if word == "out" else 255)
        line.expect(")")
        if word == "out":
            return Out(value)
        return Result(value) if word == "result" else Trigger(value)
    if line.accept("D"):
        if not line.accept("/"):
            return Directory()
        _entry_name(line, loop)
        return Path()
    if word in ("e", "name"):
        _entry_name(line, loop)
        return Name()
    return line.constant()


def _entry_name(line: _Line, loop: bool) -> None:
    if not loop:
        line.expect("name")
        return
    for word in ("e", ".", "name"):
        line.expect(word)
