# SPDX-License-Identifier: MIT
"""Long work says how far it is, at a terminal only."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.unit.raw_builder import Event, RawBuilder, trace
from tests.unit.test_dataset import META
from tracer import progress
from tracer.convert import write_dataset
from tracer.dataset import Writer
from tracer.progress import Progress


class Stream(io.StringIO):
    """Standard error, or what is taken for it."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    (folder / "raw").mkdir()
    raw = trace(folder / "raw", RawBuilder(flushed=[[Event("close") for _ in range(20)]]))
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with Writer(folder / "t") as writer, Progress("events written") as told:
        write_dataset(raw, writer, META, progress=told)
    return stream.getvalue()


def test_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    text = said(tmp_path, monkeypatch, terminal=True)
    assert text == "\rcosy-trace: events written: 0.0 of 0.0 million\r\033[K"


def test_short_work_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 1000.0)
    assert said(tmp_path, monkeypatch, terminal=True) == ""


def test_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    assert said(tmp_path, monkeypatch, terminal=False) == ""
