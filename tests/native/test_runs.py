# SPDX-License-Identifier: MIT
"""Records of runs under cosy-auto: what is in them, when there is one, and when there is none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from bench.harness import script
from tests.conftest import DEADLINE_S, plain_environment
from tracer import elf, runs

AUTO = script("cosy-auto")
DIRECTORIES, FILES = 40, 20
pytestmark = pytest.mark.usefixtures("executor")


class Machine:
    """Programs under cosy-auto, in a home of their own, and what they leave."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tree = folder / "tree"
        for i in range(DIRECTORIES):
            (self.tree / f"{i}").mkdir(parents=True)
            for j in range(FILES):
                (self.tree / f"{i}" / f"{j}").touch()
        os.sync()
        # A change time that nobody saw yet is not told (multigrain timestamps).
        subprocess.run(["ls", "-lR", self.tree], stdout=subprocess.DEVNULL, check=True)
        self.cache = folder / "cache"
        self.env = {**plain_environment(), "HOME": str(folder), "XDG_CACHE_HOME": str(self.cache)}
        self.env.pop("XDG_DATA_HOME", None)
        self.folder = folder
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.cache))
        self.file = self.cache / "cosy" / "text" / "runs"

    def run(self, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [AUTO, *words],
            env=self.env, cwd=cwd or self.folder, capture_output=True, text=True,
            timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_run_leaves_what_the_statistics_say(machine: Machine) -> None:
    done = machine.run("--stats", "du", "-a", machine.tree)
    (run,) = runs.load()
    found = re.search(r"^  dirscan-stat +([\d,]+) +([\d,]+) +([\d,]+)$", done.stderr, re.M)
    assert found
    fired, results, served = (int(n.replace(",", "")) for n in found.groups())
    assert (run.fired, run.records, run.answers) == (fired, results, served)
    assert run.attributes == served > DIRECTORIES * FILES * 0.8
    assert run.calls >= served
    assert run.executor == "bpf"
    assert run.build_id == elf.inspect("/usr/bin/du").build_id
    assert run.command == runs.command_key(["du", "-a", str(machine.tree)], str(machine.folder))
    # Where the first call fires one is left to the kernel now and then.
    assert run.native > 0
    assert min(run.native_ns, run.answer_ns, run.run_ns, run.cpu_ns) > 0
    assert run.saved_ns is not None


def test_who_asks_for_next_to_nothing_leaves_nothing(machine: Machine) -> None:
    machine.run("ls", machine.folder)
    machine.run("--executor", "none", "du", machine.tree)
    machine.run("--no-record", "du", machine.tree)
    assert not machine.file.exists()


WALK = """sub walk {
    for my $d (glob "$ARGV[0]/*") {
        opendir my $h, $d;
        lstat "$d/$_" for grep !/^\\./, readdir $h;
    }
}
walk;
"""


def test_each_child_of_fork_has_its_own(machine: Machine) -> None:
    machine.run("perl", "-e", f"{WALK} if (!fork) {{ walk; walk; exit }} wait;", machine.tree)
    child, parent = runs.load()
    assert child.build_id == parent.build_id
    for run, times in ((child, 2), (parent, 1)):
        assert times * 0.8 < run.answers / (DIRECTORIES * FILES) <= times * 1.1


def test_threads_and_signals_leave_none(machine: Machine) -> None:
    """Another thread could meet the descriptor; who is killed has no time."""
    machine.run("perl", "-e", WALK, machine.tree)
    assert len(runs.load()) == 1
    command = [AUTO, "perl", "-e", f"{WALK} kill 9, $$;", machine.tree]
    done = subprocess.run(command, env=machine.env, check=False, timeout=DEADLINE_S)
    assert done.returncode == -signal.SIGKILL
    walk = "sum(1 for i in range(400) if os.lstat(p + '/0/0') and os.listdir(p + '/0'))"
    program = f"import os, sys, threading, time; p = sys.argv[1]; {walk}; "
    thread = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); "
    machine.run("/usr/bin/python3", "-c", f"{program}{thread}os._exit(0)", machine.tree)
    assert len(runs.load()) == 1
    machine.run("/usr/bin/python3", "-c", program, machine.tree)
    assert len(runs.load()) == 2


def test_a_full_file_makes_room(machine: Machine) -> None:
    machine.run("du", machine.tree)
    one = machine.file.read_bytes()
    machine.file.write_bytes(one * 1023)
    machine.run("du", machine.tree)
    machine.run("du", machine.tree)
    assert machine.file.with_name("runs.old").stat().st_size == 1024 * len(one)
    assert machine.file.stat().st_size == len(one)
    assert len(runs.load()) == 1025
    machine.file.write_bytes(one * 1024)
    machine.run("du", machine.tree)
    assert len(runs.load()) == 1025


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "open", "foreign", "limit"])
def test_a_strange_file_is_no_trouble(machine: Machine, kind: str) -> None:
    machine.file.parent.mkdir(parents=True, mode=0o700)
    elsewhere = machine.folder / "elsewhere"
    elsewhere.touch()
    if kind == "folder":
        machine.file.mkdir()
    elif kind == "link":
        machine.file.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(machine.file)
    elif kind == "open":
        machine.file.touch()
        machine.file.chmod(0o666)
    elif kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("giving a file away needs root")
        machine.file.touch()
        os.chown(machine.file, 65534, 65534)
    words = ["sh", "-c", f"ulimit -f 0; exec {AUTO} du {machine.tree}"]
    plain = subprocess.run(["du", machine.tree], capture_output=True, text=True, check=True)
    if kind == "limit":
        done = subprocess.run(words, env=machine.env, capture_output=True, text=True, check=True)
    else:
        done = machine.run("du", machine.tree)
    assert (done.stdout, done.stderr) == (plain.stdout, "")
    assert runs.load() == []
    assert elsewhere.stat().st_size == 0
