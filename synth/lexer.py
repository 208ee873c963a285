# SPDX-License-Identifier: MIT
"""The tokens of the compound language, line by line, and errors that name their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from synth.constants import VALUE_NAMES, lookup
from synth.errors import SynthError

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<comment>\#.*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>[0-9][0-9A-Za-z]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*)
      | (?P<mark>[=!<>]=|[(),|./+-])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r'\\(?:x([0-9a-fA-F]{2})|(["\\])|(.))', re.DOTALL)
_BASES: Final = {"0x": 16, "0o": 8}
U64: Final = (1 << 64) - 1


class ParseError(SynthError):
    """The text is no profile; `line` and `column` say where, counted from 1."""

    def __init__(self, source: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{source}:{line}:{column}: {message}")
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number, string or mark; `column` counted from 1."""

    kind: str
    text: str
    column: int


class Line:
    """The tokens of one line, and the way to complain about them."""

    def __init__(self, source: str, number: int, text: str) -> None:
        self.source = source
        self.number = number
        self.comment: str | None = None
        self.tokens: list[Token] = []
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
                self.tokens.append(Token(kind, match.group(), position + 1))
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

    def integer(self, what: str, most: int = U64, units: dict[str, int] | None = None) -> int:
        """A number with an optional unit, at most `most`."""
        text = self.take("number", what)
        column = self.tokens[self.at - 1].column
        factor = 1
        for unit, scale in (units or {}).items():
            if text.endswith(unit) and text[: -len(unit)].isdigit():
                text, factor = text[: -len(unit)], scale
                break
        try:
            value = int(text, _BASES.get(text[:2].lower(), 10)) * factor
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

    def constant(self) -> tuple[int, str]:
        """Names and numbers joined by `|`: the value, and the family of its names ("": none)."""
        return self._bits(U64, None)

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

    def value_of(self, field: str) -> int:
        """What a result's field is compared with: a name of its own, or a number."""
        known = VALUE_NAMES.get(field, {})
        if self.at < len(self.tokens) and self.tokens[self.at].kind == "word":
            word = self.tokens[self.at].text
            if word not in known:
                raise self.error(f"{word!r} is no value of {field} that compounds know")
            self.at += 1
            return known[word]
        if self.accept("-"):
            return -self.integer("a number", U64 >> 1) & U64
        return self.integer("a number")
