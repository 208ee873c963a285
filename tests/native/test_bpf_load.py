# SPDX-License-Identifier: MIT
"""cosy-bpf-load, in a bpffs of its own: exit codes, messages, what it leaves behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.native.conftest import fresh_bpffs
from tests.native.dirscan import PIN_DIR
from tests.native.linux_calls import NOBODY, become, in_child

Outcome = tuple[int, str]


@pytest.fixture
def object_file(loader: Path, programs: dict[str, int]) -> Path:
    """The programs of this build, which this kernel takes."""
    assert programs
    return loader.with_name("cosy_dirscan.bpf.o")


def run(loader: Path, *words: str | Path) -> Outcome:
    """Exit code and what was said; a message is one line with the command's name."""
    done = subprocess.run([loader, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
    return done.returncode, done.stdout + done.stderr


def pins() -> dict[str, int]:
    """Names and inode numbers of the pins."""
    return {entry.name: entry.inode() for entry in os.scandir(PIN_DIR)}


def test_life_cycle(loader: Path, object_file: Path, tmp_path: Path) -> None:
    """Load, load again, load another build, unload."""
    other = tmp_path / "other.o"
    other.write_bytes(object_file.read_bytes() + b"\0")

    def work() -> None:
        fresh_bpffs()
        code, text = run(loader, "--check")
        assert code == 1
        assert "run cosy-bpf-load as root" in text
        assert run(loader) == (0, "")
        first = pins()
        assert set(first) == {"build", "buffers", "dirscan"}
        assert run(loader) == (0, "")
        assert pins() == first
        assert run(loader, other) == (0, "")
        assert set(pins()) == set(first)
        assert not set(pins().values()) & set(first.values())
        assert run(loader, "--check") == (0, "")
        modes = [os.stat(f"{PIN_DIR}/{name}").st_mode & 0o777 for name in sorted(first)]
        assert modes == [0o666, 0o600, 0o600]
        assert os.stat(PIN_DIR).st_mode & 0o7777 == 0o755
        assert run(loader, "--unload") == (0, "")
        assert not os.path.exists(PIN_DIR)
        assert run(loader, "--unload") == (0, "")

    in_child(work)


def test_without_root(loader: Path, object_file: Path) -> None:
    """Loading is root's; checking is anyone's."""

    def work() -> list[int]:
        fresh_bpffs()
        assert run(loader) == (0, "")
        become(NOBODY)
        lines: list[list[str | Path]] = [[], [object_file], ["--unload"], ["--check"]]
        return [run(loader, *line)[0] for line in lines]

    if not os.access(loader, os.X_OK) or not all(p.stat().st_mode & 1 for p in loader.parents):
        pytest.skip(f"another user cannot reach {loader}")
    assert in_child(work) == [3, 3, 3, 0]


def test_folder_of_another_user(loader: Path) -> None:
    """Somebody may have made the folder before root did: it is not trusted."""

    def work() -> Outcome:
        fresh_bpffs()
        os.mkdir(PIN_DIR)
        os.chown(PIN_DIR, NOBODY, NOBODY)
        return run(loader)

    code, text = in_child(work)
    assert code == 1
    assert "not owned by root" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--unknown"], 2, "unrecognized option"),
        (["--check", "--unload"], 2, "exclude each other"),
        (["one", "two"], 2, "too many arguments: two"),
        (["/nonexistent"], 1, "read: /nonexistent: No such file"),
        (["/dev/null"], 1, "not a BPF object: /dev/null"),
        (["/bin/true"], 1, "not a BPF object: /bin/true"),
    ],
)
def test_bad_input(loader: Path, words: list[str], code: int, message: str) -> None:
    """One clear line, and nothing was changed."""

    def work() -> tuple[Outcome, bool]:
        fresh_bpffs()
        outcome = run(loader, *words)
        return outcome, os.path.exists(PIN_DIR) and bool(os.listdir(PIN_DIR))

    outcome, changed = in_child(work)
    assert outcome[0] == code
    assert message in outcome[1]
    assert not changed


def test_refused_program(loader: Path, object_file: Path, tmp_path: Path) -> None:
    """A kernel without what the program needs: exit code 4 and the reason."""
    data = object_file.read_bytes()
    assert b"bpf_preempt_disable\0" in data
    lacking = tmp_path / "lacking.o"
    lacking.write_bytes(data.replace(b"bpf_preempt_disable\0", b"bpf_preempt_disablX\0"))

    def work() -> Outcome:
        fresh_bpffs()
        return run(loader, lacking)

    code, text = in_child(work)
    assert code == 4
    assert "bpf_preempt_disablX" in text


def test_help(loader: Path) -> None:
    """It says how it is called and what its exit codes mean."""
    code, text = run(loader, "--help")
    assert code == 0
    assert "--check" in text
    assert "3 not permitted" in text
