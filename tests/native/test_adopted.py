# SPDX-License-Identifier: MIT
"""Which backend a program gets, and children of dynamic programs that the shim cannot follow."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Compiler
from tests.native.tracing import Tracer, counts, exes, usable
from tracer.backends import bcc
from tracer.dataset import Dataset
from tracer.syscalls import name_of


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
    assert [exe for exe in exes(data) if exe.endswith("/ls")] == ["/usr/bin/ls"]


def calls_of(data: Dataset, program: Path) -> Counter[str]:
    """How often each call was made by one program."""
    images = data.processes().to_pylist()
    found: Counter[str] = Counter()
    for event in data.events(["pid", "t_ns", "nr"]).to_pylist():
        own = [i for i in images if i["pid"] == event["pid"] and i["start_ns"] <= event["t_ns"]]
        found[name_of(event["nr"])] += bool(own) and own[-1]["exe"] == str(program)
    return +found


@pytest.mark.parametrize(
    ("script", "code"), [("{0} threads; {0} fork; exit 3", 3), ("exec {0} threads", 0)]
)
def test_bcc_takes_over_from_ptrace_when_it_pays(
    tracer: Tracer, compiled: Compiler, script: str, code: int
) -> None:
    """While the program runs: not a call is missing or there twice."""
    usable("bcc")
    static = compiled("calls.c", "-static", "-pthread", name="calls-static")
    # The program waits for the compiler, or it might end first.
    early = """from tracer.backends import adopt
adopt.PTRACE_CALLS = 1000
changed = adopt.Adopter.changed
def change(self, *words):
    left = changed(self, *words)
    if self._compiler:
        self._compiler.join()
    return left
adopt.Adopter.changed = change
from tracer.cli import main; main()"""
    path = tracer.folder / "over"
    script = script.format(static)
    words = [sys.executable, "-c", early, "-o", path, "sh", "-c", script]
    done = tracer.native(*words)
    assert done.returncode == code, done.stderr
    data = Dataset(path)
    assert data.meta["lost_events"] == 0
    assert data.meta["adopted_by"] == ["ptrace", "bcc"]
    told = " ".join(done.stderr.decode().split())  # its lines break where the names end
    assert "watched by ptrace, later bcc: " in told
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
    assert "really-ls" in [os.path.basename(exe) for exe in exes(data)]
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
