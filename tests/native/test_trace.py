# SPDX-License-Identifier: MIT
"""cosy-trace with real programs: nothing that they do changes, nothing is missed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.conftest import Compiler
from tests.native.tracing import COSY_TRACE, Tracer, counts, strace
from tracer.syscalls import name_of


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few levels, links, odd names."""
    root = tmp_path_factory.mktemp("tree")
    for i in range(6):
        for k in range(4):
            folder = root / f"d{i}" / f"e{k}"
            folder.mkdir(parents=True)
            for n in range(i + k):
                (folder / f"file {n}").write_bytes(b"x" * 100 * n)
        (root / f"d{i}" / "link").symlink_to("e0")
    (root / "größe 100%").write_text("odd")
    os.close(os.open(os.fsencode(root) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    return root


@pytest.fixture
def calls(compiled: Compiler) -> Path:
    return compiled("calls.c", "-pthread", "-rdynamic")


# --- nothing is missed ---------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["du", "-a", "TREE"],
        ["ls", "-lR", "TREE"],
        ["find", "TREE", "-size", "+1k"],
        ["grep", "-r", "odd", "TREE"],
        ["tar", "cf", "/dev/null", "TREE"],
        ["sh", "-c", "cd TREE; for i in 1 2 3; do ls | wc -l; done"],
        ["cp", "-r", "TREE", "COPY"],
        ["/usr/bin/python3", "-c", "import os; print(sum(len(f) for _, _, f in os.walk('TREE')))"],
        ["git", "hash-object", "ODD"],
        ["gzip", "-c", "ODD"],
        ["sort", "ODD"],
        ["CALLS", "fork"],
        ["CALLS", "vfork"],
        ["CALLS", "spawn"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_counts_are_those_of_strace(
    tracer: Tracer, tree: Path, calls: Path, command: list[str]
) -> None:
    if command[0] != "CALLS" and not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} on this machine: apt-get install it")
    places = {"TREE": tree, "CALLS": calls, "ODD": tree / "größe 100%"}
    words = command
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    truth = strace(tracer, *(word.replace("COPY", str(tracer.folder / "one")) for word in words))
    words = [word.replace("COPY", str(tracer.folder / "two")) for word in words]
    done, data = tracer.trace(*words)
    assert done.returncode == 0
    ours = counts(data)
    assert data.meta["lost_events"] == 0
    less = {name: (ours[name], n) for name, n in truth.own.items() if ours[name] < n}
    more = {name: (n, truth.all[name]) for name, n in ours.items() if n > truth.all[name]}
    assert (less, more) == ({}, {})


def test_paths_and_objects_are_those_of_the_tree(tracer: Tracer, tree: Path) -> None:
    _, data = tracer.trace("du", "-a", tree)
    objects = {o["object_id"]: o for o in data.objects().to_pylist()}
    seen: set[str] = set()
    for event in data.events(["nr", "a0", "path", "object_id", "ret", "st_ino"]).to_pylist():
        if event["nr"] != 262 or event["ret"] != 0 or event["path"] is None:
            continue
        if event["object_id"] is not None and not event["path"].startswith("/"):
            full = f"{objects[event['object_id']]['path']}/{event['path']}"
            seen.add(full)
            if "%" not in full:
                assert os.lstat(full).st_ino == event["st_ino"]
    assert {path.relative_to(tree).as_posix() for path in tree.rglob("file*")} <= {
        path.removeprefix(f"{tree}/") for path in seen
    }
    assert f"{tree}/%FF%FE" in seen
    assert f"{tree}/größe 100%25" in seen
    folders = {o["path"]: o for o in objects.values() if o["kind"] == "directory"}
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        if not folder.is_symlink():
            assert folders[str(folder)]["ino"] == folder.stat().st_ino


def test_arguments_are_the_programs(tracer: Tracer) -> None:
    words = ["sh", "-c", "exit $#", "a name of more than eight letters", "", "x"]
    done, data = tracer.trace("--backend", "shim", *words)
    assert done.returncode == 2
    assert data.processes()["argv"].to_pylist() == [words]


def test_call_sites_lie_in_the_c_library(tracer: Tracer, tree: Path) -> None:
    _, data = tracer.trace("ls", "-l", tree)
    sites = pc.unique(data.events(["site"])["site"]).to_pylist()
    assert sites
    assert all(re.fullmatch(r"(libc|ld-)[\w.-]+\+0x[0-9a-f]+", site) for site in sites)


def test_threads(tracer: Tracer, calls: Path) -> None:
    done, data = tracer.trace(calls, "threads")
    assert done.stdout == tracer.native(calls, "threads").stdout
    assert len(pc.unique(data.events(["tid"])["tid"])) > 2
    assert data.meta["lost_events"] == 0


def test_a_pipeline_is_made_of_pipes(tracer: Tracer) -> None:
    done, data = tracer.trace("sh", "-c", "ls / | wc -l")
    kinds = {o["object_id"]: o["kind"] for o in data.objects().to_pylist()}
    who = {p["pid"]: os.path.basename(p["exe"]) for p in data.processes().to_pylist()}
    moved = [
        (who[e["pid"]], name_of(e["nr"]), kinds[e["object_id"]])
        for e in data.events(["pid", "nr", "object_id"]).to_pylist()
        if e["object_id"] is not None
    ]
    assert {("ls", "write", "pipe"), ("wc", "read", "pipe")} <= set(moved)
    assert done.returncode == 0


def test_exec_chain_with_cleared_environments(tracer: Tracer) -> None:
    script = "exec env -i sh -c 'exec env -i ls /'"
    done, data = tracer.trace("sh", "-c", script)
    assert done.stdout == tracer.native("ls", "/").stdout
    names = [os.path.basename(exe) for exe in data.processes()["exe"].to_pylist()]
    assert [names[0], names[-1]] == [os.path.basename(os.path.realpath("/bin/sh")), "ls"]
    assert names.count("env") == 2
    assert len(set(data.processes()["pid"].to_pylist())) == 1
    assert data.processes()["exit"].to_pylist()[-1] == 0


def test_a_killed_program_keeps_its_last_calls(tracer: Tracer, tree: Path) -> None:
    done, data = tracer.trace("sh", "-c", f"cd {tree}/d1; kill -9 $$")
    assert done.returncode == -signal.SIGKILL
    assert f"{tree}/d1" in data.events(["path"])["path"].to_pylist()
    assert data.processes()["exit"].to_pylist() == [signal.SIGKILL]


def test_killed_children(tracer: Tracer, tree: Path) -> None:
    script = f"sh -c 'cd {tree}/d2; kill -9 $$' || true; cd {tree}/d3"
    done, data = tracer.trace("bash", "-c", script)
    assert done.returncode == 0
    paths = data.events(["path"])["path"].to_pylist()
    assert {f"{tree}/d2", f"{tree}/d3"} <= set(paths)


# --- nothing changes -----------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "exit 0"],
        ["sh", "-c", "echo out; echo err >&2; exit 42"],
        ["sh", "-c", "kill -TERM $$"],
        ["sh", "-c", "kill -KILL $$"],
        ["sh", "-c", "ulimit -c 0; kill -SEGV $$"],
        ["sh", "-c", "kill -PIPE $$; echo survived"],
        ["sh", "-c", "sh -c 'kill -9 $$'; echo $?"],
        ["cat"],
        ["env"],
        ["sh", "-c", "yes | head -c 300000"],
        # Of grep itself: the shell blocks all signals now and then while it waits for it.
        ["sh", "-c", "ulimit -a; umask; pwd; ls -l /proc/self/fd | wc -l; "
         "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"],
    ],
    ids=lambda command: " ".join(command)[:40],
)  # fmt: skip
def test_output_and_end_are_the_programs_own(tracer: Tracer, command: list[str]) -> None:
    native = tracer.native(*command, stdin=b"some\ninput")
    done, _ = tracer.trace(*command, stdin=b"some\ninput")
    assert done.stdout == native.stdout
    assert done.returncode == native.returncode
    assert done.stderr.startswith(native.stderr)


def start(tracer: Tracer, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COSY_TRACE, *words], env=tracer.env, cwd=tracer.folder, stdout=subprocess.PIPE
    )


def test_a_signal_to_us_reaches_the_program(tracer: Tracer) -> None:
    script = 'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.02; done'
    with start(tracer, "--summary-only", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"caught\n"
        assert process.wait() == 5


def test_interrupt_from_the_terminal_arrives_once(tracer: Tracer) -> None:
    # It waits for the signal, however late that is, and then a while for a second one. Without
    # noflsh the terminal drops what is printed at the moment of a ^C.
    script = """stty noflsh; n=; trap 'echo caught; n=0' INT; echo ready
    while [ -z "$n" ] || [ "$n" -lt 15 ]; do sleep 0.02; n=${n:+$((n + 1))}; done; exit 3"""
    pid, master = os.forkpty()
    if not pid:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # ignored where the tests run in the background
        os.chdir(tracer.folder)
        os.execve(COSY_TRACE[0], [*COSY_TRACE, "sh", "-c", script], tracer.env)
    seen, sent = b"", False
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # EIO: the other end is closed
            break
        seen += data
        if b"ready" in seen and not sent:
            sent = os.write(master, b"\x03") == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(master)
    assert seen.count(b"caught\r\n") == 1


def test_interrupt_before_the_program_starts(tracer: Tracer) -> None:
    # From the terminal, while everything is made ready: it is there when the program begins.
    code = """import signal, sys
from tracer import run
run.hold_signals()
print("ready", flush=True)
while signal.SIGINT not in signal.sigpending(): pass
from tracer.cli import main; main()"""
    pid, master = os.forkpty()
    if not pid:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(tracer.folder)
        words = [sys.executable, "-c", code, "--summary-only", "touch", "ran"]
        os.execve(sys.executable, words, tracer.env)
    seen, sent = b"", False
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        seen += data
        if b"ready" in seen and not sent:
            sent = os.write(master, b"\x03") == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT, seen
    os.close(master)
    assert b"Traceback" not in seen
    assert b"before its first call" in seen
    assert not (tracer.folder / "ran").exists()


def test_what_ran_unrecorded_is_a_failure(tracer: Tracer, compiled: Compiler) -> None:
    static = compiled("walk.c", "-static", name="walk-static")
    done = tracer.run("--backend", "shim", static, "/etc/apt")
    assert done.returncode == 1
    assert done.stdout == tracer.native(static, "/etc/apt").stdout
    assert "nothing recorded" in line(done.stderr)


def test_a_stopped_program_is_a_stopped_job(tracer: Tracer) -> None:
    trace = " ".join(f"'{word}'" for word in COSY_TRACE)
    script = f"""set -m
    {trace} --summary-only sh -c 'kill -STOP $$; echo resumed; exit 4' 2>/dev/null &
    for i in $(seq 500); do jobs -s | grep -q Stopped && break; sleep 0.02; done
    jobs -s | grep -c Stopped
    kill -CONT %1
    wait %1
    echo $?"""
    assert tracer.native("bash", "-c", script).stdout.split() == [b"1", b"resumed", b"4"]


def test_nothing_is_left_behind(tracer: Tracer) -> None:
    raw = tracer.folder / "tmp"
    raw.mkdir()
    tracer.env["TMPDIR"] = str(raw)
    assert tracer.run("-o", tracer.folder / "a", "sh", "-c", "ls / > /dev/null").returncode == 0
    assert tracer.run("--summary-only", "true").returncode == 0
    assert list(raw.iterdir()) == []
    assert sorted(path.name for path in tracer.folder.iterdir()) == ["a", "tmp"]


# --- what cannot be recorded, and bad input ---------------------------------------


def line(stderr: bytes) -> str:
    text = stderr.decode()
    assert text.startswith("cosy-trace: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    "words",
    [
        ["--backend", "ptrace", "--block", "touch", "ran"],
        ["--backend", "shim", "--ring-size", "1M", "touch", "ran"],
        ["-p", "1", "-p", "2"],
    ],
)
def test_options_that_would_do_nothing(tracer: Tracer, words: list[str]) -> None:
    done = tracer.run(*words)
    assert done.returncode == 2
    assert not list(tracer.folder.iterdir())


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300", "-1", "0", "x"])
def test_durations_that_are_none(tracer: Tracer, seconds: str) -> None:
    done = tracer.run("--duration", seconds, "touch", "ran")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert not (tracer.folder / "ran").exists()


def test_missing_and_not_executable(tracer: Tracer) -> None:
    done = tracer.run("no-such-program-here")
    assert (done.returncode, done.stdout) == (127, b"")
    assert "no-such-program-here" in line(done.stderr)
    (tracer.folder / "text").write_text("no program")
    for word in ("./text", "/"):
        done = tracer.run(word)
        assert done.returncode == 126
        line(done.stderr)
    assert tracer.run().returncode == 2
    assert sorted(path.name for path in tracer.folder.iterdir()) == ["text"]


def test_a_script_without_an_interpreter_line_runs_in_sh(tracer: Tracer) -> None:
    script = tracer.folder / "script"
    script.write_text("echo $1; exit 9\n")
    script.chmod(0o755)
    done, _ = tracer.trace(script, "word")
    assert (done.returncode, done.stdout) == (9, b"word\n")


def test_an_existing_dataset_is_not_overwritten(tracer: Tracer) -> None:
    output = tracer.folder / "t"
    assert tracer.run("-o", output, "true").returncode == 0
    done = tracer.run("-o", output, "touch", "ran")
    assert done.returncode == 1
    assert "--force" in line(done.stderr)
    assert not (tracer.folder / "ran").exists()
    assert tracer.run("--force", "-o", output, "false").returncode == 1
    assert json.loads((output / "meta.json").read_text())["command"] == ["false"]


def test_a_file_size_limit_is_reported_not_hidden(tracer: Tracer) -> None:
    command = " ".join(
        f"'{word}'" for word in [*COSY_TRACE, "--summary-only", "sh", "-c", "exit 5"]
    )
    done = tracer.native("bash", "-c", f"ulimit -f 50; {command}")
    assert done.returncode == 5
    assert "ulimit -f" in line(done.stderr)


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_nowhere_to_print_to_changes_nothing(tracer: Tracer, where: str) -> None:
    command = " ".join(f"'{word}'" for word in [*COSY_TRACE, "--summary-only", "true"])
    assert tracer.native("bash", "-c", f"{command} {where}").returncode == 0


def test_no_library_is_one_clear_line(tracer: Tracer) -> None:
    tracer.env["COSY_NATIVE_DIR"] = str(tracer.folder)
    done = tracer.run("true")
    assert done.returncode == 1
    assert "make setup" in line(done.stderr)


# --- what is printed -----------------------------------------------------------


def test_summary_and_show(tracer: Tracer, tree: Path) -> None:
    done = tracer.run("du", "-a", tree)
    lines = done.stderr.decode().splitlines()
    assert max(map(len, lines[2:-1])) <= 80
    assert "lost events: 0" in lines
    found = re.search(r"next: cosy-mine (du\.\d+\.cosytrace)$", lines[-1])
    assert found
    shown = tracer.run("show", found[1])
    assert shown.returncode == 0
    assert set(shown.stdout.decode().splitlines()) <= set(lines)
    summary = json.loads(tracer.run("show", "--json", found[1]).stdout)
    assert summary["calls"] == sum(row["calls"] for row in summary["rows"]) > 100
    done = tracer.run("show", "nowhere")
    assert done.returncode == 1
    line(done.stderr)


def test_the_summary_as_json_elsewhere(tracer: Tracer, compiled: Compiler) -> None:
    static = compiled("walk.c", "-static", name="walk-static")
    done = tracer.run("--json-to", "s.json", "-o", "t", static, "/etc/apt")
    assert done.returncode == 0
    summary = json.loads((tracer.folder / "s.json").read_text())
    assert summary["dataset"] == "t"
    assert summary["calls"] > 0
    assert b"lost events: 0" in done.stderr
    done = tracer.run("--json-to", "s.json", "touch", "ran")
    assert done.returncode == 1
    assert "--force" in line(done.stderr)
    assert not (tracer.folder / "ran").exists()
    command = " ".join(f"'{word}'" for word in [*COSY_TRACE, "--summary-only", "--json-to"])
    done = tracer.native("bash", "-c", f"{command} /dev/fd/3 ls / 3> s.json")
    assert json.loads((tracer.folder / "s.json").read_text())["dataset"] is None


def test_json_is_json(tracer: Tracer, compiled: Compiler) -> None:
    static = compiled("walk.c", "-static", name="walk-static")
    done = tracer.run("--json", "--summary-only", static, "/etc/apt")
    assert json.loads(done.stderr)["backend"] in ("bcc", "ptrace")


def test_what_is_loaded_before_a_program_starts(tracer: Tracer) -> None:
    """Not what only the dataset needs."""
    code = """import os, sys
def execve(*_):
    os.write(1, " ".join({"pandas", "pyarrow", "ptrace"} & set(sys.modules)).encode() or b"none")
    os._exit(0)
os.execve = execve
from tracer.start import main; main()"""
    done = tracer.native(sys.executable, "-c", code, "--summary-only", "true")
    assert done.stdout == b"none"


def test_a_program_called_show_can_be_traced(tracer: Tracer) -> None:
    program = tracer.folder / "show"
    shutil.copy("/bin/echo", program)
    tracer.env["PATH"] = f"{tracer.folder}:{tracer.env['PATH']}"
    assert tracer.run("--summary-only", "--", "show", "me").stdout == b"me\n"
    assert tracer.run("--", "show", "-n", "me").stdout == b"me"


def test_programs_that_outlive_the_first_do_not_hold_us(tracer: Tracer) -> None:
    begin = time.monotonic()
    done = tracer.run("--summary-only", "sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0
    assert time.monotonic() - begin < 60
