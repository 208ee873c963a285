# SPDX-License-Identifier: MIT
"""The profile store: private, whole, and never trusted blindly."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from miner.motifs import save as save_motifs
from synth import image, store, verify
from synth.cli import main
from synth.compile import load_profile, write_whole
from synth.errors import SynthError
from tests.unit.test_synthesize import STATS, continuation, motif, motif_file

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
    assert names == [".lock", f"{BUILD_ID}.cosy", f"{BUILD_ID}.img"]
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
    names = ", ".join(compound.name for compound in load_profile(DEFAULT).compounds)
    assert run("verify", path) == (0, f"{path}: good: {names}\n")
    code, text = run("explain", path)
    assert code == 0
    assert BUILD_ID in text
    words = " ".join(text.split())
    assert "The eBPF program is the one for all compounds" in words
    assert "no more than some 1,024 entries of a directory" in words
    assert "of this one 1024 times as far" in words
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


def motifs_at(path: Path, **changes: object) -> Path:
    save_motifs(dataclasses.replace(motif_file(motif([STATS], continuation())), **changes), path)  # type: ignore[arg-type]
    return path


def test_explain_says_what_becomes_of_each_motif(tmp_path: Path) -> None:
    """Of a motif file, and of a program that was learnt and has no profile."""
    code, text = run("explain", motifs_at(tmp_path / "x.motifs.json"))
    assert code == 0
    fast, _, reference = text.partition("For the reference executor")
    assert "compound dirscan-stat: saves " in fast
    # The motifs of these tests say nothing of the last arguments.
    assert "no compound: dirscan-stat: nothing in it can be made ahead" in reference
    assert not learn(goes_on=0.0)
    code, text = run("explain", "du")
    assert code == 0
    assert "no compound: dirscan-stat: it would save" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for command in ("show", "verify"):
        code, text = run(command, "du")
        line = "cosy-synth: du was learnt without any gain: see cosy-synth explain du\n"
        assert (code, text) == (1, line)


BAD = {
    "nosuch.motifs.json": None,
    "empty.motifs.json": b"",
    "other.motifs.json": b'{"schema": 99}',
    "array.motifs.json": b"[1]",
    "binary.motifs.json": bytes(range(256)),
    "folder.motifs.json": "folder",
    "empty.cosy": b"",
    "other.cosy": b"compound x\n  on fork()\n",
    "binary.cosy": bytes(range(256)),
    "empty.img": b"",
    "old.img": b"COSYIMG\x02" + bytes(200),
    "folder.img": "folder",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["", "show", "verify", "explain"])
def test_bad_input_is_one_line(tmp_path: Path, name: str, command: str) -> None:
    path, content = tmp_path / name, BAD[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    words = [command, path] if command else [path, "-o", tmp_path / "out"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.output.count("\n") == 1, done.output
    assert done.output.startswith("cosy-synth: ")
    assert str(path) in done.output


def test_costs_of_a_motif_file_that_are_none_are_one_line(tmp_path: Path) -> None:
    path = motifs_at(tmp_path / "x.motifs.json", calibration={"serve_ns": -1})
    for words in (("explain", path), (path, "-o", tmp_path / "out")):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
        assert "serve_ns" in done.output


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.img").write_text("mine")
    code, text = run(tmp_path / "nosuch.motifs.json", "-o", tmp_path / "out")
    assert code == 1
    assert "--force" in text
    assert (tmp_path / "out.img").read_text() == "mine"


# What is learnt, run by run.


def learn(goes_on: float = 1.0, build_id: str = BUILD_ID, program: str = "/usr/bin/du") -> bool:
    """One run; whether the program has a profile afterwards."""
    found, _ = store.learn(
        build_id, program, motif_file(motif([STATS], continuation(goes_on=goes_on)))
    )
    return found.image.exists()


def test_runs_are_put_together_and_old_ones_go() -> None:
    assert learn()
    evidence = load_profile(store.image_path(BUILD_ID).with_suffix(".cosy")).compounds[0].evidence
    assert learn()
    more = load_profile(store.image_path(BUILD_ID).with_suffix(".cosy")).compounds[0].evidence
    assert evidence != more
    for _ in range(store.RUNS_KEPT + 2):
        learn()
    found = store.entry(BUILD_ID)
    assert found is not None
    assert (found.runs, found.version) == (store.RUNS_KEPT, store.RUNS_KEPT + 4)
    assert len(list((store.folder() / f"{BUILD_ID}.runs").iterdir())) == store.RUNS_KEPT


def test_what_no_longer_helps_goes() -> None:
    assert learn()
    assert [learn(goes_on=0.0) for _ in range(store.RUNS_KEPT)][-1] is False
    assert not store.image_path(BUILD_ID).exists()
    assert store.stored() == []


def test_costs_that_cannot_be_read_are_one_line(data_home: Path) -> None:
    (data_home / "data" / "cosy").mkdir(parents=True)
    (data_home / "data" / "cosy" / "calibration.json").write_text("{")
    run = data_home / "learn" / "due-run"
    run.mkdir(parents=True)
    command = [sys.executable, "-m", "synth.learn", str(run.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "calibration.json" in line
    assert not list(run.parent.glob("*-run"))


def test_a_new_version_of_a_program_takes_the_place_of_the_old() -> None:
    new = "fedcba98" * 5
    assert learn()
    assert learn(build_id="11" * 20, program="/usr/bin/ls")
    assert learn(build_id=new)
    assert [e.build_id for e in store.entries()] == ["11" * 20, new]


def test_old_profiles_age_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learn()
    later = time.time() + (store.AGE_DAYS + 1) * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    learn(build_id="11" * 20, program="/usr/bin/ls")
    assert [e.build_id for e in store.entries()] == ["11" * 20]


def test_damaged_runs_and_descriptions_are_no_trouble() -> None:
    assert learn()
    runs = store.folder() / f"{BUILD_ID}.runs"
    (runs / "00000000000000000001.motifs.json").write_text("{")
    (store.folder() / f"{BUILD_ID}.json").write_text('{"build_id": 1}')
    assert learn()
    found = store.entry(BUILD_ID)
    assert found is not None
    assert (found.version, found.runs) == (1, 2)


def test_list_show_and_remove() -> None:
    runner = CliRunner()
    assert "no profiles" in runner.invoke(main, ["list"]).output
    learn()
    store.save(load_profile(DEFAULT), "11" * 20)
    listed = runner.invoke(main, ["list"]).output
    assert "/usr/bin/du" in listed
    assert "installed by hand" in listed
    for name in ("du", "/usr/bin/du", BUILD_ID, BUILD_ID[:8]):
        shown = runner.invoke(main, ["show", name])
        assert shown.exit_code == 0
        assert f"program {BUILD_ID}" in shown.output
        assert "evidence: du" in shown.output
    assert "fires at the first such call" in runner.invoke(main, ["explain", "du"]).output
    assert runner.invoke(main, ["remove", "du"]).exit_code == 0
    assert [e.build_id for e in store.entries()] == ["11" * 20]
    gone = runner.invoke(main, ["remove", "du"])
    assert (gone.exit_code, "nothing stored" in gone.output) == (1, True)


WRITER = """
import sys
from tests.unit.test_store import BUILD_ID, learn
while True:
    learn()
    learn(build_id="11" * 20, program="/usr/bin/ls")
"""


def writers(count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Processes that learn all the time, two programs in turn."""
    root = Path(__file__).resolve().parents[2]
    for _ in range(count):
        yield subprocess.Popen([sys.executable, "-c", WRITER], cwd=root, stderr=subprocess.PIPE)


def check_whole() -> None:
    """Every file that is there is whole."""
    for path in store.stored():
        verify.check(image.read(path.read_bytes()), str(path))
    for path in store.folder().glob("*.json"):
        json.loads(path.read_bytes())


def test_killed_writers_never_leave_a_damaged_store() -> None:
    rng = random.Random(3)
    for _ in range(3):
        running = list(writers(4))
        stored = time.monotonic() + 30
        while not store.stored() and time.monotonic() < stored:
            time.sleep(0.02)
        assert store.stored()
        for process in running:
            time.sleep(rng.random() * 0.15)
            check_whole()
            assert process.poll() is None, process.stderr and process.stderr.read()
            process.send_signal(signal.SIGKILL)
            process.wait()
            check_whole()
    # The next writer meets no lock, and sweeps up what they left.
    assert learn()
    check_whole()
    left = [p.name for p in store.folder().rglob("*") if ".tmp-" in p.name]
    assert left == []
    assert {e.build_id for e in store.entries()} == {BUILD_ID, "11" * 20}
