# SPDX-License-Identifier: MIT
"""cosy-trace -p: processes that run already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import DEADLINE_S
from tests.native.tracing import COSY_TRACE, Tracer, counts
from tracer.dataset import Dataset
from tracer.syscalls import name_of


def test_a_running_process_is_watched_and_left_alone(tracer: Tracer, backend: str) -> None:
    script = "echo $$; while :; do echo x > /dev/null; sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()
        output = tracer.folder / "attached"
        words = ["-p", str(shell.pid), "--duration", "1", "-o", str(output)]
        done = tracer.run("--backend", backend, *words)
        left_alone = shell.poll() is None
        shell.kill()
    assert done.returncode == 0, done.stderr
    assert left_alone
    data = Dataset(output)
    assert counts(data)["openat"] > 3
    pids = set(data.events(["pid"])["pid"].to_pylist())
    assert shell.pid in pids
    assert len(pids) > 2, "the children belong to it"
    assert "/dev/null" in data.events(["path"])["path"].to_pylist()


@pytest.mark.parametrize("later", ["", "; sleep 30"], ids=["found in a call", "began one"])
def test_a_call_that_goes_on_is_seen(tracer: Tracer, backend: str, later: str) -> None:
    """It began before we looked, or ends after that, or both."""
    script = f"read line{later}"
    output = tracer.folder / "attached"
    words = ["--backend", backend, "-o", str(output), "--duration", "3", "-p"]
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE) as shell:
        assert shell.stdin
        while not Path(f"/proc/{shell.pid}/syscall").read_text().startswith("0 "):
            time.sleep(0.01)
        command = [*COSY_TRACE, *words, str(shell.pid)]
        with subprocess.Popen(command, env=tracer.env, stderr=subprocess.PIPE) as watching:
            assert watching.stderr
            said = watching.stderr.readline()
            time.sleep(1)
            if later:
                shell.stdin.write(b"x\n")
                shell.stdin.flush()
            said += watching.communicate(timeout=DEADLINE_S)[1]
        subprocess.run(["pkill", "-P", str(shell.pid)], check=False)
        shell.kill()
    assert watching.returncode == 0, said
    events = Dataset(output).events(["nr", "ret", "dur_ns"]).to_pylist()
    longest = max(events, key=lambda event: event["dur_ns"])
    wanted = ("clock_nanosleep", "wait4") if later else ("read",)
    assert name_of(longest["nr"]) in wanted
    assert longest["dur_ns"] > 1e9


def test_no_more_time_is_spent_inside_than_there_is(tracer: Tracer, backend: str) -> None:
    """Of one thread that is in a call when it is found, and at the end."""
    output = tracer.folder / "attached"
    with subprocess.Popen(["sleep", "60"]) as asleep:
        while not Path(f"/proc/{asleep.pid}/syscall").read_text().startswith("230 "):
            time.sleep(0.01)
        words = ["--backend", backend, "-o", str(output), "--duration", "0.5", "--json", "-p"]
        done = tracer.run(*words, str(asleep.pid))
        asleep.kill()
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stderr)
    assert 0 < summary["inside_ns"] <= summary["wall_ns"]


def test_cpu_time_of_a_running_process(tracer: Tracer, backend: str) -> None:
    output = tracer.folder / "attached"
    words = ["--backend", backend, "-o", str(output), "--duration", "1", "-p"]
    code = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as busy:
        done = tracer.run(*words, str(busy.pid))
        busy.kill()
    assert done.returncode == 0, done.stderr
    meta = Dataset(output).meta
    assert 0 < meta["user_ns"] <= meta["wall_ns"] + 2e7
    assert b"CPU" in done.stderr


def test_the_tracer_is_not_in_its_own_trace(tracer: Tracer, backend: str) -> None:
    """Where what is looked at has started it."""
    trace = " ".join(f"'{word}'" for word in [*COSY_TRACE, "--backend", backend])
    script = f"{trace} -p $$ --duration 1 -o own; true"
    assert tracer.native("bash", "-c", script).returncode == 0
    data = Dataset(tracer.folder / "own")
    assert set(data.processes()["exe"].to_pylist()) == {os.path.realpath("/bin/bash")}
    assert len(data) < 10


def test_watching_ends_with_the_process(tracer: Tracer, backend: str) -> None:
    """Though its parent, this test, does not ask how it ended until later."""
    words = ["--backend", backend, "-o", str(tracer.folder / "attached"), "-p"]
    with subprocess.Popen(["sh", "-c", "read line"], stdin=subprocess.PIPE) as shell:
        assert shell.stdin
        command = [*COSY_TRACE, *words, str(shell.pid)]
        with subprocess.Popen(command, env=tracer.env, stderr=subprocess.PIPE) as watching:
            assert watching.stderr
            said = watching.stderr.readline()
            status = Path(f"/proc/{shell.pid}/status")
            while backend == "ptrace" and "TracerPid:\t0\n" in status.read_text():
                assert watching.poll() is None, said
                time.sleep(0.01)
            if backend == "bcc":
                time.sleep(1)  # nothing outside tells when it has begun to look
            shell.stdin.close()
            said += watching.communicate(timeout=DEADLINE_S)[1]
    assert watching.returncode == 0, said
    assert b"lost events: 0" in said


def test_a_tree_that_forks_faster_than_anybody_looks(tracer: Tracer, backend: str) -> None:
    """Each look at the tree finds a process that was not there before."""
    slow = """import time
from tracer import identity
def late(pid, tree=identity.tree):
    time.sleep(0.2)
    return tree(pid)
identity.tree = late
from tracer.cli import main; main()"""
    script = "echo $$; while :; do sleep 0.5 & sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()
        output = tracer.folder / "attached"
        words = ["--backend", backend, "-p", str(shell.pid), "--duration", "1", "-o", str(output)]
        done = tracer.native(sys.executable, "-c", slow, *words)
        shell.kill()
    assert done.returncode == 0, done.stderr
    pids = set(Dataset(output).events(["pid"])["pid"].to_pylist())
    assert len(pids) > 5, "those of a later look are followed, too"


def test_attaching_to_nobody(tracer: Tracer, backend: str) -> None:
    done = tracer.run("--backend", backend, "-p", "4194304")
    assert done.returncode == 1
    assert b"no such process" in done.stderr
    done = tracer.run("--backend", backend, "-p", "2")  # kthreadd
    assert done.returncode == 1
    assert b"threads of the kernel" in done.stderr or b"no such process" in done.stderr
    assert tracer.run("--backend", "shim", "-p", str(os.getpid())).returncode == 1
    assert tracer.run("-p", "1", "ls").returncode == 2


def test_attaching_to_one_whose_first_thread_has_ended(tracer: Tracer, backend: str) -> None:
    code = """import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)"""
    with subprocess.Popen([sys.executable, "-c", code]) as half:
        while ") Z " not in Path(f"/proc/{half.pid}/stat").read_text():
            time.sleep(0.01)
        done = tracer.run("--backend", backend, "--summary-only", "-p", str(half.pid))
        half.kill()
    assert done.returncode == 1
    assert b"its first thread has ended" in done.stderr


@pytest.mark.parametrize("late", ["", "identity.identify = lambda pid: self"])
def test_attaching_to_one_that_has_ended(tracer: Tracer, backend: str, late: str) -> None:
    """Nobody has waited for it; with `late` it ends while it is looked at."""
    code = f"""from tracer import identity
self = identity.identify("self")
{late}
from tracer.cli import main; main()"""
    with subprocess.Popen(["true"]) as gone:
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        words = ["--backend", backend, "--summary-only", "-p", gone.pid]
        done = tracer.native(sys.executable, "-c", code, *map(str, words))
    assert done.returncode == 1
    assert b"it ended" in done.stderr or b"it has ended" in done.stderr
