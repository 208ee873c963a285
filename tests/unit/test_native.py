# SPDX-License-Identifier: MIT
"""Our folders: the same for Python as for the launcher (shim/launcher/places.c)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miner import cost
from synth import store
from synth.errors import SynthError
from tracer import native


@pytest.mark.parametrize("home", ["", "relative", None])
def test_a_home_that_is_none_is_ignored(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert native.cache_root() == Path("/var/cache/cosy")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert native.cache_root() == Path("/run/user/4711/cosy")
    with pytest.raises(SynthError, match="XDG_DATA_HOME"):
        store.folder()
    assert cost.stored_path() is None


def test_xdg_folders_go_before_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert native.xdg_folder("XDG_DATA_HOME", ".local/share") == Path("/h/.local/share/cosy")
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    assert native.xdg_folder("XDG_DATA_HOME", ".local/share") == Path("/d/cosy")
