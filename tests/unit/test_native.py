# SPDX-License-Identifier: MIT
"""Our folders: the same for Python as for the launcher (shim/launcher/places.c)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from miner import cost
from synth import doctor, store
from synth.errors import SynthError
from tracer import native


@pytest.mark.parametrize("home", ["", "relative", None])
def test_a_home_that_is_none_is_ignored(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        native.cache_folder()
    with pytest.raises(SynthError, match="XDG_DATA_HOME"):
        store.folder()
    assert cost.stored_path() is None
    lines = CliRunner().invoke(doctor.main).output.splitlines()
    assert any(line.startswith("no  cache ") for line in lines)


def test_xdg_folders_go_before_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert native.xdg_folder("XDG_DATA_HOME", ".local/share") == Path("/h/.local/share/cosy")
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    assert native.xdg_folder("XDG_DATA_HOME", ".local/share") == Path("/d/cosy")
