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

import pyarrow.compute as pc
import pytest
from ptrace.binding import func as binding

from miner import cost, mine
from tests.conftest import DEADLINE_S, Compiler
from tests.native.tracing import COSY_TRACE, Tracer, counts, environment, strace
from tracer.backends import bcc
from tracer.backends.ptrace import Ptrace
from tracer.dataset import Dataset
from tracer.run import WALL
from tracer.stream import StreamWriter
from tracer.summary import summarize
from tracer.syscalls import name_of

OUTSIDE = ["ptrace", "bcc"]
DROPPED = {"rt_sigreturn"}  # not in the counts of tests.native.tracing


@pytest.fixture
def tracer(native_dir: Path, tmp_path: Path) -> Tracer:
    return Tracer(environment(native_dir), tmp_path)


@pytest.fixture(params=OUTSIDE)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    lacks = bcc.why_not() if name == "bcc" else None
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
    return name


@pytest.fixture
def static_program(compiled: Compiler) -> Path:
    return compiled("walk.c", "-static", name="walk-static")


@pytest.fixture
def dynamic_program(compiled: Compiler) -> Path:
    return compiled("walk.c", name="walk")


@pytest.fixture
def calls(compiled: Compiler) -> Path:
    return compiled("calls.c", "-pthread", "-rdynamic")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for i in range(8):
        (root / f"d{i}").mkdir()
        for n in range(20):
            (root / f"d{i}" / f"file {n}").write_bytes(b"x" * 10 * n)
    (root / "größe 100%").write_text("odd")
    return root


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
    assert os.path.basename(exe) in {os.path.basename(p) for p in _exes(data)}
    return found


def _exes(data: Dataset) -> list[str]:
    return [exe or "" for exe in data.processes()["exe"].to_pylist()]


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
    lacks = bcc.why_not()
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
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
    lacks = bcc.why_not() if how == "bcc" else None
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
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
    lacks = bcc.why_not()
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
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


# --- running processes ----------------------------------------------------------------


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


# --- what auto does -------------------------------------------------------------------


def test_auto_says_which_and_why(tracer: Tracer, static_program: Path, tree: Path) -> None:
    done, data = tracer.trace(static_program, tree)
    assert done.returncode == 0
    expected = "ptrace" if bcc.why_not() else "bcc"
    assert data.meta["backend"] == expected
    assert f"backend {expected}: " in done.stderr.decode()
    assert "statically linked" in data.meta["backend_why"]
    assert counts(data)["getdents64"] == 18


def test_a_static_child_of_a_dynamic_parent(
    tracer: Tracer, static_program: Path, tree: Path
) -> None:
    script = f"{static_program} {tree}; {static_program} {tree}; ls {tree} | wc -l; exit 3"
    done, data = tracer.trace("sh", "-c", script)
    assert done.returncode == 3
    assert data.meta["backend"] == "shim"
    assert data.meta["unseen_programs"] == []
    assert data.meta["adopted_programs"] == [str(static_program)]
    assert data.meta["adopted_why"] == ["is statically linked"]
    assert f"watched by ptrace: {static_program} (is" in " ".join(done.stderr.decode().split())
    assert counts(data)["getdents64"] == 2 * 18 + 2
    t_ns = data.events(["t_ns"])["t_ns"].to_pylist()
    assert t_ns == sorted(t_ns)
    assert done.stdout == tracer.native("sh", "-c", script).stdout


def test_an_exec_that_fails_is_not_adopted(tracer: Tracer, tree: Path) -> None:
    """Before it is made it looks as if it were of a static program; then comes one that is not."""
    bad = tracer.folder / "bad"
    head = bytearray(Path("/bin/true").read_bytes()[:64])
    head[0x38:0x3A] = b"\0\0"  # no program headers
    bad.write_bytes(head)
    bad.chmod(0o755)
    code = f"""import os
try: os.execv({str(bad)!r}, ["bad"])
except OSError: os.execv("/bin/ls", ["ls", {str(tree)!r}])"""
    done, data = tracer.trace("/usr/bin/python3", "-S", "-c", code)
    assert done.returncode == 0, done.stderr
    assert calls_of(data, Path("/usr/bin/ls"))["getdents64"] == 2
    assert counts(data)["execve"] == 2
    assert [exe for exe in _exes(data) if exe.endswith("/ls")] == ["/usr/bin/ls"]


def calls_of(data: Dataset, program: Path) -> Counter[str]:
    """How often each call was made by one program."""
    images = data.processes().to_pylist()
    found: Counter[str] = Counter()
    for event in data.events(["pid", "t_ns", "nr"]).to_pylist():
        own = [i for i in images if i["pid"] == event["pid"] and i["start_ns"] <= event["t_ns"]]
        found[name_of(event["nr"])] += bool(own) and own[-1]["exe"] == str(program)
    return +found


def test_bcc_takes_over_from_ptrace_when_it_pays(tracer: Tracer, compiled: Compiler) -> None:
    """While the program runs: not a call is missing or there twice."""
    lacks = bcc.why_not()
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
    static = compiled("calls.c", "-static", "-pthread", name="calls-static")
    code = """from tracer.backends import adopt
adopt.PTRACE_CALLS = 1000
from tracer.cli import main; main()"""
    path = tracer.folder / "over"
    script = f"{static} threads; {static} fork; exit 3"
    words = [sys.executable, "-c", code, "-o", path, "sh", "-c", script]
    done = tracer.native(*words)
    assert done.returncode == 3, done.stderr
    data = Dataset(path)
    assert data.meta["lost_events"] == 0
    assert data.meta["adopted_by"] == ["ptrace", "bcc"]
    assert "later bcc: " in done.stderr.decode()
    _, alone = tracer.trace("--backend", "bcc", "sh", "-c", script)
    calls, truth = (calls_of(of, static) for of in (data, alone))
    for waiting in ("futex", "execve"):
        calls.pop(waiting, None)
        truth.pop(waiting, None)
    assert calls == truth
    t_ns = data.events(["t_ns"])["t_ns"].to_pylist()
    assert t_ns == sorted(t_ns)
    lives = data.threads().to_pylist()
    assert all(thread["end_ns"] for thread in lives)
    assert len({(thread["pid"], thread["tid"]) for thread in lives}) == len(lives)


def test_a_static_child_starts_a_dynamic_one(tracer: Tracer, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None or tracer.native("ldd", busybox).returncode == 0:
        pytest.skip("no static busybox: apt-get install busybox-static")
    ls = tmp_path / "really-ls"
    shutil.copy("/bin/ls", ls)
    done, data = tracer.trace("sh", "-c", f"{busybox} sh -c '{ls} /; exit 4'")
    assert done.returncode == 4
    assert "really-ls" in [os.path.basename(exe) for exe in _exes(data)]
    assert counts(data)["getdents64"] == 2


def test_a_set_id_program_without_root(tracer: Tracer) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a set-id program")
    program = tracer.folder / "setid"
    shutil.copy("/bin/echo", program)
    program.chmod(0o4755)
    tracer.folder.chmod(0o755)
    done, data = tracer.trace(program, "hello")
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert data.meta["backend"] in ("bcc", "ptrace")


# --- when the tracer goes away ---------------------------------------------------------


@pytest.mark.parametrize("name", ["shim", *OUTSIDE])
def test_a_killed_tracer_leaves_a_recording_and_the_program(tracer: Tracer, name: str) -> None:
    if name == "bcc" and bcc.why_not():
        pytest.skip("no bcc here")
    raw = tracer.folder / "raw"
    raw.mkdir()
    out = tracer.folder / "out"
    env = {**tracer.env, "TMPDIR": str(raw)}
    loop = f"i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo $i > {out}; sleep 0.05; done"
    command = [*COSY_TRACE, "--backend", name, "sh", "-c", loop]
    with subprocess.Popen(command, env=env, cwd=tracer.folder, stderr=subprocess.DEVNULL) as traced:
        while not out.exists() or int(out.read_text().strip() or 0) < 25:
            assert traced.poll() is None, "cosy-trace ended by itself"
            time.sleep(0.02)
        traced.send_signal(signal.SIGKILL)
    for _ in range(500):
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


# --- lives ------------------------------------------------------------------------------


@pytest.fixture(params=["shim", *OUTSIDE])
def any_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    lacks = bcc.why_not() if name == "bcc" else None
    if lacks:
        pytest.skip(f"no bcc here: {lacks}")
    return name


def test_lives_of_threads(tracer: Tracer, any_backend: str, calls: Path) -> None:
    _, data = tracer.trace("--backend", any_backend, calls, "threads")
    (process,) = data.processes().to_pylist()
    threads = data.threads().to_pylist()
    assert {t["pid"] for t in threads} == {process["pid"]}
    assert {t["tid"] for t in threads} == set(data.events(["tid"])["tid"].to_pylist())
    assert len(threads) > 2
    for thread in threads:
        own = pc.equal(data.events()["tid"], thread["tid"])
        times = data.events(["t_ns"])["t_ns"].filter(own).to_pylist()
        assert process["start_ns"] <= thread["start_ns"] <= min(times)
        if thread["end_ns"] is None:
            assert any_backend == "shim"
            assert os.geteuid() != 0
        else:
            assert max(times) <= thread["end_ns"] <= process["end_ns"]


def test_lives_of_processes(tracer: Tracer, any_backend: str) -> None:
    """The shell's own time is not its children's; one of them is killed."""
    busy = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"
    script = f"sh -c '{busy}; exit 3'; sh -c 'kill -9 $$'; sleep 0.2; exit 4"
    done, data = tracer.trace("--backend", any_backend, "dash", "-c", script)
    assert done.returncode == 4
    shell, first, second, last = summarize(data).processes_by_start
    assert shell.exit == 4 << 8
    assert shell.life_ns is not None
    assert shell.life_ns > 2e8
    assert shell.life_ns <= data.meta["wall_ns"]
    assert shell.cpu_ns is not None
    assert shell.cpu_ns < data.meta["user_ns"] / 2
    assert first.exit == 3 << 8
    assert last.exit == 0
    if os.geteuid() != 0 and any_backend == "shim":
        return
    assert second.exit == signal.SIGKILL
    for process in (first, second, last):
        assert process.life_ns is not None
        assert process.cpu_ns is not None
    assert first.user_ns is not None
    assert first.user_ns > data.meta["user_ns"] / 2
    assert f"{first.life_ns / 1e9:>8.3f} {first.cpu_ns / 1e9:>8.3f}" in done.stderr.decode()
