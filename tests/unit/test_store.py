# SPDX-License-Identifier: MIT
"""The profile store: private, whole, and never trusted blindly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from synth import image, store
from synth.cli import main
from synth.compile import load_profile, write_whole
from synth.errors import SynthError

BUILD_ID = "0123456789abcdef0123456789abcdef01234567"
DEFAULT = Path(store.__file__).parent / "profiles" / "default.cosy"


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COSY_NATIVE_DIR", str(tmp_path / "native"))
    return tmp_path


def test_save_and_find(data_home: Path) -> None:
    path = store.save(load_profile(DEFAULT), BUILD_ID)
    assert path == data_home / "data" / "cosy" / "profiles" / f"{BUILD_ID}.img"
    assert store.find(BUILD_ID) == path
    assert image.read(path.read_bytes()).build_id == BUILD_ID
    assert load_profile(path.with_suffix(".cosy")).build_id == BUILD_ID
    assert store.stored() == [path]


def test_everything_is_private_whatever_the_umask() -> None:
    old = os.umask(0)
    try:
        path = store.save(load_profile(DEFAULT), BUILD_ID)
    finally:
        os.umask(old)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.refusal(path) is None


def test_nothing_half_written_is_left(data_home: Path) -> None:
    store.save(load_profile(DEFAULT), BUILD_ID)
    names = sorted(p.name for p in (data_home / "data" / "cosy" / "profiles").iterdir())
    assert names == [f"{BUILD_ID}.cosy", f"{BUILD_ID}.img"]
    target = data_home / "folder"
    target.mkdir()
    with pytest.raises(SynthError, match="cannot write"):
        write_whole(target, b"x")
    assert list(target.iterdir()) == []
    assert not list(data_home.glob(".folder*"))


def test_without_its_own_the_shipped_profile_is_used(data_home: Path) -> None:
    native = data_home / "native"
    native.mkdir()
    (native / "default.img").write_bytes(b"")
    assert store.find(BUILD_ID) == native / "default.img"
    assert store.find(None) == native / "default.img"


def test_without_any_profile_the_error_says_what_to_do() -> None:
    with pytest.raises(SynthError, match="make setup"):
        store.find(None)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_writable_by_others_is_refused(mode: int) -> None:
    path = store.save(load_profile(DEFAULT), BUILD_ID)
    path.chmod(mode)
    with pytest.raises(SynthError, match="others may write"):
        store.find(BUILD_ID)


def test_foreign_owned_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    path = store.save(load_profile(DEFAULT), BUILD_ID)
    os.chown(path, 12345, -1)
    assert store.refusal(path) == "it belongs to someone else"


def test_an_open_store_is_not_written_to(data_home: Path) -> None:
    folder = data_home / "data" / "cosy" / "profiles"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(SynthError, match="others may write"):
        store.save(load_profile(DEFAULT), BUILD_ID)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("build_id", ["", "../../etc/passwd", "AB" * 20, "ab" * 19])
def test_names_are_build_ids_only(build_id: str) -> None:
    with pytest.raises(SynthError, match="no build-id"):
        store.image_path(build_id)


# `cosy-synth` on profiles


def run(*args: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    return result.exit_code, result.output


def test_show_verify_explain(tmp_path: Path) -> None:
    path = store.save(load_profile(DEFAULT), BUILD_ID)
    code, text = run("show", path)
    assert code == 0
    assert text == path.with_suffix(".cosy").read_text()
    alone = tmp_path / "alone.img"
    alone.write_bytes(path.read_bytes())
    code, text = run("show", alone)
    assert code == 0
    assert "compound dirscan-stat" in text
    assert run("verify", path) == (0, f"{path}: good: dirscan-stat\n")
    code, text = run("explain", path)
    assert code == 0
    assert BUILD_ID in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_damage_is_one_line(tmp_path: Path) -> None:
    path = store.save(load_profile(DEFAULT), BUILD_ID)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    code, text = run("verify", path)
    assert code == 1
    assert text.count("\n") == 1
    assert text.startswith(f"cosy-synth: {path} is damaged: the checksum is wrong")
    code, text = run("show", tmp_path / "nosuch")
    assert code == 1
    assert text.count("\n") == 1


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert run("show")[0] == 2
    assert run("--nosuch")[0] == 2
    code, text = run(tmp_path / "nosuch.motifs.json", "-o", tmp_path / "out")
    assert code == 1
    assert "cannot read" in text


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.img").write_text("mine")
    code, text = run(tmp_path / "nosuch.motifs.json", "-o", tmp_path / "out")
    assert code == 1
    assert "--force" in text
    assert (tmp_path / "out.img").read_text() == "mine"
