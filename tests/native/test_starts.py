# SPDX-License-Identifier: MIT
"""How programs start others: at limits, from bad memory, and where somebody watches."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner, built, plain_environment, run
from tracer.syscalls import by_name

LIBRARY = b"libcosy.so"
MAPS = ["cat", "/proc/self/maps"]
# Calls of the shim's own. What the C library's start needs is not among them.
SHIM_CALLS = [
    by_name()[name].nr
    for name in [
        "bpf",
        "madvise",
        "pidfd_open",
        "prctl",
        "faccessat",
        "faccessat2",
        "stat",
        "clock_gettime",
        "getpid",
        "gettid",
        "getppid",
        "geteuid",
        "getresuid",
        "getresgid",
        "readlinkat",
        "pwritev",
        "fallocate",
        "prlimit64",
        "utimensat",
    ]
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have other effective ids")


@pytest.fixture
def starts(compiled: Compiler) -> Path:
    # Bound at the start: binding takes stack, too.
    return compiled("starts.c", "-Wl,-z,now", "-pthread")


@pytest.fixture
def auto(native_dir: Path) -> Path:
    return native_dir / "shim" / "launcher" / "cosy-auto"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}
    return {**plain_environment(), **home}


@pytest.fixture
def image() -> Path:
    return built("build", "synth/default.img")


@pytest.mark.parametrize(
    "words",
    [
        ["bad-environment"],
        ["longest"],
        ["many-variables"],
        ["auxv"],
        ["small-handler", "900"],
        ["two-preloads", "/usr/bin/env"],
        ["stops", "/bin/true"],
    ],
    ids=lambda words: words[0],
)
def test_no_difference(runner: Runner, starts: Path, words: list[str]) -> None:
    assert runner.both([starts, *words]).returncode == 0


@pytest.mark.parametrize("preload", ["libdl.so.2", ""])
def test_a_users_preload_leaves_the_auxiliary_vector_in_place(
    runner: Runner, starts: Path, preload: str
) -> None:
    command = ["env", f"LD_PRELOAD={preload}", "sh", "-c", f"{starts} auxv; env"]
    done = runner.both(command)
    assert f"\nLD_PRELOAD={preload}\n".encode() in done.stdout
    assert LIBRARY in runner.cosy([*command[:2], *MAPS]).stdout


def test_the_loader_obeys_the_last_preload(runner: Runner, starts: Path) -> None:
    assert LIBRARY in runner.cosy([starts, "two-preloads", "/bin/cat", MAPS[1]]).stdout


def test_handlers_stay_the_programs_own(runner: Runner, starts: Path, image: Path) -> None:
    native = runner.native([starts, "old-handler"])
    done = runner.cosy([starts, "old-handler"], "exec", {"image": str(image)})
    assert (done.returncode, done.stdout) == (native.returncode, native.stdout)


# What runs native


@pytest.mark.parametrize("mode", ["pass", "exec", "trace"])
def test_a_filter_sees_the_programs_calls_only(
    runner: Runner, starts: Path, image: Path, mode: str, tmp_path: Path
) -> None:
    orders = {"pass": {}, "exec": {"image": str(image)}, "trace": {"dir": str(tmp_path)}}[mode]
    for nr in SHIM_CALLS:
        for command in ([], MAPS):
            words = [starts, "filter", str(nr), *command]
            native = runner.native(words)
            done = runner.cosy(words, mode, orders)
            assert (done.returncode, done.stderr) == (native.returncode, native.stderr), nr
            assert LIBRARY not in done.stdout


def test_a_filter_that_failed_changes_nothing(runner: Runner) -> None:
    perl = shutil.which("perl")
    if not perl:
        pytest.skip("perl is not installed")
    # prctl(PR_SET_SECCOMP, 2, NULL): probing for support, as many programs do.
    script = "syscall(157, 22, 2, 0); exec 'cat', '/proc/self/maps'"
    assert LIBRARY in runner.cosy([perl, "-e", script]).stdout


@pytest.mark.parametrize("cached", [True, False])
def test_what_a_tracer_traces_has_no_library(runner: Runner, tmp_path: Path, cached: bool) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    env = runner.environment("pass", {"cache": str(tmp_path)})
    if not cached:
        env["COSY_SHIM"] = "mode=pass"
    calls = tmp_path / "calls"
    done = run(["strace", "-f", "-o", calls, "sh", "-c", "cat /proc/self/maps; true"], env)
    assert done.returncode == 0
    assert LIBRARY not in done.stdout + calls.read_bytes()
    # The tracer itself has it: nobody watches that.
    assert LIBRARY in run(["sh", "-c", "strace -V >/dev/null; cat /proc/self/maps"], env).stdout


@pytest.mark.parametrize("word", ["address-space", "data"])
def test_no_library_under_limits_of_memory(runner: Runner, starts: Path, word: str) -> None:
    done = runner.cosy([starts, word, *MAPS])
    assert (done.returncode, done.stderr) == (0, b"")
    assert LIBRARY not in done.stdout


def test_no_library_that_landlock_keeps_closed(
    runner: Runner, starts: Path, auto: Path, env: dict[str, str]
) -> None:
    words = [starts, "landlock", *MAPS]
    if runner.native(words).stderr.startswith(b"landlock"):
        pytest.skip("no Landlock in this kernel (LSM= in /proc/cmdline)")
    done = runner.cosy(words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert LIBRARY not in done.stdout
    # By the exec of a program that has it, and by cosy-auto: either leaves it out.
    assert run([auto, "--strict", *words], env).stderr == b""


@needs_root
def test_other_effective_ids(runner: Runner, starts: Path) -> None:
    # ld.so drops LD_PRELOAD there: nobody would take the orders out again.
    assert runner.both([starts, "effective-ids", "env"]).returncode == 0


@pytest.mark.parametrize("variable", ["LD_TRACE_LOADED_OBJECTS=1", "LD_DEBUG=libs"])
def test_the_loader_names_no_library_of_ours(runner: Runner, variable: str) -> None:
    done = runner.cosy(["env", variable, "true"])
    assert done.stdout or done.stderr
    assert LIBRARY not in done.stdout + done.stderr


# cosy-auto itself in such places


def test_cosy_auto_within_a_filter(auto: Path, starts: Path, env: dict[str, str]) -> None:
    for nr in SHIM_CALLS:
        words = [starts, "filter", str(nr)]
        native, done = run([*words, *MAPS], env), run([*words, auto, "--strict", *MAPS], env)
        assert (done.returncode, done.stderr) == (native.returncode, native.stderr), nr
        assert LIBRARY not in done.stdout
    done = run([starts, "filter", "321", auto, "--stats", "true"], env)
    assert b"ran native: watched" in done.stderr


def test_cosy_auto_under_a_tracer(auto: Path, env: dict[str, str]) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = run(["strace", "-f", "-o", "/dev/null", auto, "--strict", *MAPS], env)
    assert done.returncode == 0
    assert LIBRARY not in done.stdout


@pytest.mark.parametrize("word", ["address-space", "data"])
def test_cosy_auto_under_limits_of_memory(
    auto: Path, starts: Path, env: dict[str, str], word: str
) -> None:
    done = run([starts, word, auto, "--stats", *MAPS], env)
    assert done.returncode == 0
    assert LIBRARY not in done.stdout
    assert b"ran native: its address space is limited" in done.stderr


def test_cosy_auto_says_what_it_traced(auto: Path, env: dict[str, str], tmp_path: Path) -> None:
    # A learner that learns nothing: that is not the matter here.
    shutil.copy(built("build", "shim/libcosy.so"), tmp_path)
    (tmp_path / "synth").mkdir()
    (tmp_path / "synth" / "learn.py").touch()
    env["COSY_NATIVE_DIR"] = str(tmp_path)
    done = run([auto, "--learn", "--stats", "sh", "-c", "cat /dev/null; exit 3"], env)
    assert done.returncode == 3
    assert re.search(rb"\n  program images +2\n", done.stderr)


@needs_root
def test_cosy_auto_with_other_effective_ids(auto: Path, starts: Path, env: dict[str, str]) -> None:
    native, done = (run([starts, "effective-ids", *w, "env"], env) for w in ([], [auto]))
    assert (done.returncode, done.stdout) == (native.returncode, native.stdout)


def test_cosy_auto_keeps_an_empty_preload(auto: Path, env: dict[str, str]) -> None:
    env["LD_PRELOAD"] = ""
    assert b"\nLD_PRELOAD=\n" in b"\n" + run([auto, "--strict", "env"], env).stdout


def test_cosy_auto_takes_as_many_arguments_as_env(auto: Path, env: dict[str, str]) -> None:
    """Less than the shim's orders take is left: the program runs, without them."""
    env = {"HOME": env["HOME"], "PATH": env["PATH"]}
    fits, too_many = 100_000, 5_000_000
    while too_many - fits > 1:
        size = (fits + too_many) // 2
        words = ["x" * 100_000] * (size // 100_000) + ["y" * (size % 100_000)]
        try:
            ok = run([auto, "--strict", "true", *words], env).returncode == 0
        except OSError:
            # Not even cosy-auto can be started.
            too_many = size
            continue
        assert ok, size
        fits = size
    assert fits > 1_000_000


def test_cosy_auto_tells_what_the_loader_loads_without_ours(
    auto: Path, env: dict[str, str]
) -> None:
    env["LD_DEBUG"] = "libs"
    done = run([auto, "--strict", "true"], env)
    assert b"libc.so" in done.stderr
    assert LIBRARY not in done.stderr


@pytest.mark.parametrize("stats", [[], ["--stats"]], ids=["", "stats"])
@pytest.mark.parametrize(
    ("first_line", "code", "advice"),
    [
        ("#!/nonexistent\n", 127, "the interpreter that its file names is not there"),
        ("#!/etc/passwd\n", 126, "check the interpreter in its first line"),
    ],
)
def test_a_bad_interpreter_is_named_as_such(
    auto: Path,
    env: dict[str, str],
    tmp_path: Path,
    stats: list[str],
    first_line: str,
    code: int,
    advice: str,
) -> None:
    script = tmp_path / "script"
    script.write_text(first_line)
    script.chmod(0o755)
    done = run([auto, *stats, script], env)
    assert done.returncode == code
    assert re.fullmatch(rf"cosy-auto: cannot run: [^\n]*{advice}[^\n]*\n", done.stderr.decode())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["--explain", "true"]])
def test_a_full_output_is_an_error(auto: Path, env: dict[str, str], words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [auto, *words]
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def nameless(maps: bytes) -> int:
    """Bytes of a process's own memory that no file is behind."""
    found = 0
    for words in map(bytes.split, maps.splitlines()):
        first, last = (int(address, 16) for address in words[0].split(b"-"))
        if len(words) == 5 and words[1] == b"rw-p":
            found += last - first
    return found


def test_a_program_that_opens_no_directory_gets_nothing_to_answer_with(
    runner: Runner, image: Path
) -> None:
    """Neither the image nor memory for results: its start costs what pass-through costs."""

    def more(*words: str) -> int:
        fused = runner.cosy(words, mode="exec", orders={"image": str(image)}).stdout
        return nameless(fused) - nameless(runner.cosy(words, mode="pass").stdout)

    code = "import os; os.listdir(); print(open('/proc/self/maps').read(), end='')"
    assert more(*MAPS) == 0
    assert more("python3", "-c", code) >= 4 << 20
