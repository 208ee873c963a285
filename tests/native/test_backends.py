# SPDX-License-Identifier: MIT
"""The backends that watch from outside: the same dataset as the shim's, and what only they can."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ptrace.binding import func as binding

from miner import cost, mine
from tests.conftest import DEADLINE_S, Compiler
from tests.native.tracing import COSY_TRACE, OUTSIDE, Tracer, counts, exes, strace, usable
from tracer.backends import bcc
from tracer.backends.ptrace import Ptrace
from tracer.dataset import Dataset
from tracer.run import WALL
from tracer.stream import StreamWriter
from tracer.syscalls import name_of

DROPPED = {"rt_sigreturn"}  # not in the counts of tests.native.tracing


@pytest.fixture
def dynamic_program(compiled: Compiler) -> Path:
    return compiled("walk.c", name="walk")


@pytest.mark.parametrize(
    "command",
    [
        ["WALK", "TREE"],
        ["ls", "-lR", "TREE"],
        ["find", "TREE", "-size", "+1k"],
        ["grep", "-r", "odd", "TREE"],
        ["tar", "cf", "/dev/null", "TREE"],
        ["sh", "-c", "cd TREE; for i in 1 2 3; do ls | wc -l; done"],
        ["CALLS", "fork"],
        ["CALLS", "vfork"],
        ["CALLS", "spawn"],
        ["CALLS", "threads"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_counts_are_those_of_strace(
    tracer: Tracer, backend: str, tree: Path, calls: Path, static_program: Path, command: list[str]
) -> None:
    places = {"TREE": tree, "CALLS": calls, "WALK": static_program}
    words = command
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    truth = strace(tracer, *words).all
    done, data = tracer.trace("--backend", backend, *words)
    assert done.returncode == 0
    ours = counts(data)
    waiting = {"futex", "wait4"} if "threads" in command else set()
    for name in DROPPED | waiting:
        ours.pop(name, None)
        truth.pop(name, None)
    assert ours == truth
    assert data.meta["lost_events"] == 0
    assert data.meta["backend"] == backend


def essence(data: Dataset, exe: str) -> Counter[tuple[object, ...]]:
    """What calls there were, as far as no address or process number is in it."""
    objects = {o["object_id"]: (o["kind"], o["path"]) for o in data.objects().to_pylist()}
    wanted = ("newfstatat", "statx", "getdents64", "openat", "write", "read")
    columns = ["nr", "ret", "path", "object_id", "names", "st_mode", "st_size", "st_ino", "site"]
    found: Counter[tuple[object, ...]] = Counter()
    for e in data.events([*columns, "bytes_in", "bytes_out"]).to_pylist():
        if name_of(e["nr"]) in wanted:
            names = tuple(e["names"]) if e["names"] is not None else None
            if objects.get(e["object_id"], ("",))[0] == "pipe":
                e["st_ino"] = None  # ours, another one each time
            found[(*(e[c] for c in ("nr", "ret", "path", "st_mode", "st_size", "st_ino", "site",
                                    "bytes_in", "bytes_out")),
                   objects.get(e["object_id"]), names)] += 1  # fmt: skip
    assert os.path.basename(exe) in {os.path.basename(p) for p in exes(data)}
    return found


def test_the_dataset_is_that_of_the_shim(
    tracer: Tracer, backend: str, tree: Path, dynamic_program: Path
) -> None:
    (_, inside), (_, outside) = (
        tracer.trace("--backend", name, dynamic_program, tree) for name in ("shim", backend)
    )
    less = essence(inside, "walk") - essence(outside, "walk")
    assert less == Counter()
    for column in ("exe", "argv", "cwd", "build_id", "exit"):
        assert inside.processes()[column].to_pylist() == outside.processes()[column].to_pylist()


def test_a_program_that_is_gone_before_anybody_looks(tracer: Tracer, tree: Path) -> None:
    """Who it was comes from its exec alone."""
    usable("bcc")
    late = """from tracer import identity
identity.identify = lambda pid: identity.Identity()
from tracer.cli import main; main()"""
    path = tracer.folder / "gone"
    words = [sys.executable, "-c", late, "--backend", "bcc", "-o", path, "ls", "-l", tree]
    done = tracer.native(*words)
    assert done.returncode == 0, done.stderr
    (process,) = Dataset(path).processes().to_pylist()
    assert process["argv"] == ["ls", "-l", str(tree)]
    assert (process["exe"], process["cwd"]) == ("/usr/bin/ls", str(tracer.folder))


def loops_of(data: Dataset) -> list[object]:
    """What the miner finds over directory entries."""
    found = mine.mine([data.path], cost.Calibration())
    return [
        ([(call.syscall, call.count, call.args) for call in motif.calls], motif.loop)
        for motif in found.motifs
        if motif.kind == "loop" and motif.loop and motif.loop.over == "entries"
    ]


def test_mined_loops_are_the_same(
    tracer: Tracer, backend: str, tree: Path, dynamic_program: Path
) -> None:
    _, inside = tracer.trace("--backend", "shim", dynamic_program, tree)
    _, outside = tracer.trace("--backend", backend, dynamic_program, tree)
    assert loops_of(inside)
    assert loops_of(inside) == loops_of(outside)


SHAPES = ("slurp", "read-until-eof", "probe-list", "serve-read-open-write", "copy-loop")


def shapes_of(data: Dataset, arguments: bool) -> dict[str, object]:
    """What the miner finds besides loops over entries, but for loaders: the shim sees none."""
    found = mine.mine([data.path], cost.Calibration())
    return {
        motif.name: [
            (call.syscall, call.count, call.args if arguments else None) for call in motif.calls
        ]
        for motif in found.motifs
        if motif.name in SHAPES
    }


def shapes_by(tracer: Tracer, how: str, arguments: bool, *command: str | Path) -> dict[str, object]:
    if how != "strace":
        return shapes_of(tracer.trace("--backend", how, *command)[1], arguments)
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    log, path = tracer.folder / "strace.log", tracer.folder / "imported"
    done = tracer.native("strace", "-f", "-ttt", "-T", "-y", "-v", "-o", log, *command)
    assert done.returncode == 0, done.stderr
    assert tracer.run("import", "-o", path, log).returncode == 0
    return shapes_of(Dataset(path), arguments)


@pytest.mark.parametrize("how", [*OUTSIDE, "strace"])
def test_mined_shapes_are_the_same(tracer: Tracer, compiled: Compiler, how: str) -> None:
    usable(how)
    program = compiled("shapes.c")
    files = tracer.folder / "files"
    files.mkdir()
    for number in range(40):
        (files / f"file{number}").write_bytes(b"x" * (100 * number + 1))
    arguments = how != "strace"  # which prints no addresses of buffers
    inside = shapes_by(tracer, "shim", arguments, program, files)
    assert set(inside) == set(SHAPES)
    assert shapes_by(tracer, how, arguments, program, files) == inside


def test_processes_are_a_tree(tracer: Tracer, backend: str, static_program: Path) -> None:
    done, data = tracer.trace(
        "--backend", backend, "sh", "-c", f"cd /etc; {static_program} . | wc -l; exit 3"
    )
    assert done.returncode == 3
    processes = data.processes().to_pylist()
    shell = processes[0]
    last = {p["pid"]: p for p in processes}
    children = [p for p in last.values() if p["ppid"] == shell["pid"]]
    assert {os.path.basename(p["exe"]) for p in children} == {"wc", "walk-static"}
    assert {p["cwd"] for p in children} == {"/etc"}
    assert shell["exit"] == 3 << 8
    kinds = {o["object_id"]: o["kind"] for o in data.objects().to_pylist()}
    moved = {
        (os.path.basename(last[e["pid"]]["exe"]), name_of(e["nr"]), kinds[e["object_id"]])
        for e in data.events(["pid", "nr", "object_id"]).to_pylist()
        if e["object_id"] is not None
    }
    assert {("walk-static", "write", "pipe"), ("wc", "read", "pipe")} <= moved


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "echo out; echo err >&2; exit 42"],
        ["sh", "-c", "kill -TERM $$"],
        ["sh", "-c", "ulimit -c 0; kill -SEGV $$"],
        ["sh", "-c", "kill -PIPE $$; echo survived"],
        ["sh", "-c", "sh -c 'kill -9 $$'; echo $?"],
        ["sh", "-c", "trap 'echo caught' USR1; kill -USR1 $$; echo after"],
        ["cat"],
        ["env"],
        # Of grep itself: the shell blocks all signals now and then while it waits for it.
        ["sh", "-c", "ulimit -a; umask; pwd; ls -l /proc/self/fd | wc -l; "
         "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"],
    ],
    ids=lambda command: " ".join(command)[:40],
)  # fmt: skip
def test_output_and_end_are_the_programs_own(
    tracer: Tracer, backend: str, command: list[str]
) -> None:
    native = tracer.native(*command, stdin=b"some\ninput")
    done, _ = tracer.trace("--backend", backend, *command, stdin=b"some\ninput")
    assert done.stdout == native.stdout
    assert done.returncode == native.returncode


def test_a_stopped_program_is_a_stopped_job(tracer: Tracer, backend: str) -> None:
    trace = " ".join(f"'{word}'" for word in [*COSY_TRACE, "--backend", backend])
    script = f"""set -m
    {trace} --summary-only sh -c 'kill -STOP $$; echo resumed; exit 4' 2>/dev/null &
    for i in $(seq 500); do jobs -s | grep -q Stopped && break; sleep 0.02; done
    jobs -s | grep -c Stopped
    kill -CONT %1
    wait %1
    echo $?"""
    assert tracer.native("bash", "-c", script).stdout.split() == [b"1", b"resumed", b"4"]


def test_bcc_mounts_what_it_reads(tracer: Tracer) -> None:
    """On a machine where nobody mounted tracefs."""
    usable("bcc")
    script = """mount --make-rprivate /
    umount -R /sys/kernel/debug 2>/dev/null; umount /sys/kernel/tracing 2>/dev/null
    test ! -e /sys/kernel/tracing/events || exit 77
    exec "$@"
    """
    words = [*COSY_TRACE, "--backend", "bcc", "-o", "out", "true"]
    done = tracer.native("unshare", "-m", "sh", "-c", script, "sh", *words)
    if done.returncode == 77:
        pytest.skip("tracefs cannot be unmounted here")
    assert done.returncode == 0, done.stderr


# --- when the tracer goes away ---------------------------------------------------------


@pytest.mark.parametrize("name", ["shim", *OUTSIDE])
def test_a_killed_tracer_leaves_a_recording_and_the_program(tracer: Tracer, name: str) -> None:
    if name == "bcc" and bcc.why_not():
        pytest.skip("no bcc here")
    raw = tracer.folder / "raw"
    raw.mkdir()
    out = tracer.folder / "out"
    env = {**tracer.env, "TMPDIR": str(raw)}
    killed = tracer.folder / "killed"
    # It cannot end before: long enough for a flush it writes, then it waits.
    step = f"i=$((i + 1)); echo $i > {out}; sleep 0.05"
    wait = f"until [ -e {killed} ]; do sleep 0.01; done"
    until = "while [ $i -lt {} ]; do {}; done"
    loop = f"i=0; {until.format(30, step)}; {wait}; {until.format(60, step)}"
    command = [*COSY_TRACE, "--backend", name, "sh", "-c", loop]
    with subprocess.Popen(command, env=env, cwd=tracer.folder, stderr=subprocess.DEVNULL) as traced:
        while not out.exists() or int(out.read_text().strip() or 0) < 25:
            assert traced.poll() is None, "cosy-trace ended by itself"
            time.sleep(0.02)
        traced.send_signal(signal.SIGKILL)
    killed.touch()
    for _ in range(50 * DEADLINE_S):
        if out.read_text().strip() == "60":
            break
        time.sleep(0.02)
    assert out.read_text().strip() == "60", "the program went on to its end"
    (folder,) = raw.glob("cosy-trace-*")
    done = tracer.run("import", folder, "-o", tracer.folder / "recovered")
    assert done.returncode == 0, done.stderr
    data = Dataset(tracer.folder / "recovered")
    assert data.events(["path"])["path"].to_pylist().count(str(out)) >= 5
    assert json.loads((data.path / "meta.json").read_text())["command"][0] == "sh"


# --- import ---------------------------------------------------------------------------


def test_stracing_and_importing_gives_the_same_loops(
    tracer: Tracer, tree: Path, dynamic_program: Path
) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    _, inside = tracer.trace("--backend", "shim", dynamic_program, tree)
    log = tracer.folder / "log"
    tracer.native("strace", "-f", "-ttt", "-T", "-y", "-v", "-o", log, dynamic_program, tree)
    done = tracer.run("import", log, "-o", tracer.folder / "imported")
    assert done.returncode == 0, done.stderr
    assert b"not understood" not in done.stderr
    outside = Dataset(tracer.folder / "imported")
    assert loops_of(inside) == loops_of(outside)
    missing = {
        (*event[:6], *event[7:])
        for event in essence(inside, "walk")
        if event[9] and event[9][0] != "pipe"
    } - {(*event[:6], *event[7:]) for event in essence(outside, "walk")}
    assert missing == set()


def test_importing_from_a_pipe_and_what_is_no_trace(tracer: Tracer) -> None:
    text = b"1 1000000000.000001 close(3) = 0 <0.000001>\n1 1000000000.1 exit_group(0) = ?\n"
    done = tracer.run("import", "-", "-o", "out", stdin=text)
    assert done.returncode == 0, done.stderr
    assert len(Dataset(tracer.folder / "out")) == 2
    for words, stdin in ((["-"], b"nothing\n"), (["-"], b""), (["none"], b""), (["."], b"")):
        done = tracer.run("import", *words, "-o", "other", stdin=stdin)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1
        assert not (tracer.folder / "other").exists()


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Callable[[str, int], tuple[int, Ptrace]]]:
    """Runs a Python program under ptrace until this event is waiting to be taken."""
    pids = []

    def until(program: str, event: int) -> tuple[int, Ptrace]:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.read(read, 1)
            os.execv(sys.executable, [sys.executable, "-S", "-c", program])
        pids.append(pid)
        watcher = Ptrace(StreamWriter(tmp_path / "stream"))
        watcher.hold(pid)
        os.write(write, b"x")
        while True:
            flags = os.WEXITED | os.WSTOPPED | WALL
            info = os.waitid(os.P_ALL, 0, flags | os.WNOWAIT)
            assert info
            assert info.si_code not in (os.CLD_EXITED, os.CLD_KILLED)
            if info.si_status >> 8 == event:
                return pid, watcher
            watcher.changed(*os.waitpid(info.si_pid, WALL))

    yield until
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ended(pid: int) -> int:
    """The exit code of a child, which must come soon."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    raise AssertionError("it hangs")


def test_ptrace_lets_go_of_a_fork_that_is_under_way(
    followed: Callable[[str, int], tuple[int, Ptrace]],
) -> None:
    program = "import os; p = os.fork() or os._exit(5); os._exit(os.waitpid(p, 0)[1] >> 8)"
    pid, watcher = followed(program, binding.PTRACE_EVENT_FORK)
    watcher.stop()
    assert ended(pid) == 5


def test_ptrace_lets_go_of_one_that_waits_for_its_vfork(
    followed: Callable[[str, int], tuple[int, Ptrace]],
) -> None:
    spawn = "os.posix_spawn('/bin/false', ['false'], {})"
    program = f"import os; os._exit(os.waitpid({spawn}, 0)[1] >> 8)"
    pid, watcher = followed(program, binding.PTRACE_EVENT_VFORK)
    watcher.changed(*os.waitpid(pid, WALL))  # it goes on, and stops no more before its child does
    watcher.stop()
    assert ended(pid) == 1
