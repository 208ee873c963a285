# SPDX-License-Identifier: MIT
"""cosy-auto: nobody can tell that it was there, and nothing is a reason not to run the program."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from miner.cost import Calibration, save_calibration
from synth.compile import compile_profile, load_profile
from synth.store import save
from tests.conftest import ROOT, built, plain_environment, run
from tracer.elf import inspect

DEFAULT = ROOT / "synth" / "profiles" / "default.cosy"


class Auto:
    """Runs commands under cosy-auto, with folders of our own for all that it keeps."""

    def __init__(self, program: Path, home: Path) -> None:
        self.program = program
        self.home = home
        self.env = {**plain_environment(), "HOME": str(home), "TMPDIR": str(home)}
        for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
            self.env.pop(name, None)

    def __call__(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        **options: object,
    ) -> subprocess.CompletedProcess[bytes]:
        return run([self.program, *words], {**self.env, **(env or {})}, **options)

    def native(
        self, *words: str | Path, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        return run(words, {**self.env, **(env or {})}, **options)


@pytest.fixture
def auto(tmp_path: Path) -> Auto:
    built("build", "shim/libcosy.so")
    return Auto(built("build", "shim/launcher/cosy-auto"), tmp_path)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "p.img"
    path.write_bytes(compile_profile(load_profile(DEFAULT), "test"))
    path.chmod(0o600)
    return path


# Watching needs no executor, so it is the same on every machine.
WAYS: Sequence[Sequence[str]] = [[], ["--executor", "none"], ["--stats"], ["--strict"]]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_output_and_exit_code_are_the_programs(auto: Auto, way: Sequence[str]) -> None:
    script = "cat; echo err >&2; exit 7"
    native = auto.native("sh", "-c", script, input=b"in\n")
    cosy = auto(*way, "sh", "-c", script, input=b"in\n")
    assert (cosy.returncode, cosy.stdout) == (7, b"in\n") == (native.returncode, native.stdout)
    assert cosy.stderr.startswith(native.stderr)
    if "--stats" not in way:
        assert cosy.stderr == native.stderr


@pytest.mark.parametrize("way", [[], ["--executor", "none"]], ids=" ".join)
def test_environment_arguments_and_working_directory(
    auto: Auto, way: Sequence[str], tmp_path: Path
) -> None:
    script = 'env -0; pwd; printf "%s\\n" "$@"'
    command = ["sh", "-c", script, "sh", "--stats", "", "a b"]
    native = auto.native(*command, cwd=tmp_path)
    cosy = auto(*way, *command, cwd=tmp_path)
    assert cosy.stdout == native.stdout


def test_a_users_preload_stays_visible_and_loaded(auto: Auto, tmp_path: Path) -> None:
    source, library = tmp_path / "own.c", tmp_path / "own.so"
    source.write_text("int own_library;\n")
    subprocess.run(["cc", "-shared", "-o", library, source], check=True)
    command = ["sh", "-c", 'echo "$LD_PRELOAD"; grep -c own.so /proc/$$/maps']
    cosy = auto("--executor", "none", *command, env={"LD_PRELOAD": str(library)})
    shown, maps = cosy.stdout.split()
    assert shown == str(library).encode()
    assert int(maps) > 0


def test_the_process_is_the_same(auto: Auto) -> None:
    command = [str(auto.program), "--executor", "none", "sh", "-c", "echo $$"]
    with subprocess.Popen(command, env=auto.env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_not_found_is_127(auto: Auto, way: Sequence[str], tmp_path: Path) -> None:
    for name in ("no-such-program", "./no-such-program", str(tmp_path / "x" / "y"), ""):
        done = auto(*way, name)
        assert done.returncode == 127
        assert done.stdout == b""
        assert done.stderr.count(b"\n") == 1
        assert done.stderr.startswith(b"cosy-auto: cannot run: ")


def test_not_executable_is_126(auto: Auto, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text\n")
    for name in (str(plain), str(tmp_path)):
        done = auto(name)
        assert done.returncode == 126
        assert done.stderr.count(b"\n") == 1


def test_path_is_searched_as_env_does(auto: Auto, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "tool").write_text("#!/bin/sh\necho a\n")
    (tmp_path / "b" / "tool").write_text("#!/bin/sh\necho b\n")
    (tmp_path / "b" / "tool").chmod(0o755)
    path = f"{tmp_path}/a:{tmp_path}/b"
    assert auto("tool", env={"PATH": path}).stdout == b"b\n"
    assert auto("tool", env={"PATH": f"{tmp_path}/a"}).returncode == 126
    # Without a magic number it is a shell script, for env as for us.
    (tmp_path / "b" / "tool").write_text("echo plain\n")
    assert auto("tool", env={"PATH": path}).stdout == b"plain\n"


@pytest.mark.parametrize("way", [[], ["--stats"]], ids=" ".join)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL])
def test_death_by_signal(auto: Auto, way: Sequence[str], number: signal.Signals) -> None:
    done = auto(*way, "sh", "-c", f"kill -{number.value} $$")
    assert done.returncode == -number.value


def test_signals_reach_the_program_under_stats(auto: Auto) -> None:
    script = 'trap "echo got; exit 3" TERM; echo ready; while :; do sleep 0.01; done'
    command = [str(auto.program), "--stats", "--executor", "none", "sh", "-c", script]
    with subprocess.Popen(
        command, env=auto.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert out == b"got\n"
    assert process.returncode == 3


def test_a_stopped_program_stops_us_and_goes_on(auto: Auto) -> None:
    script = "kill -STOP $$; echo went on"
    command = [str(auto.program), "--stats", "--executor", "none", "sh", "-c", script]
    with subprocess.Popen(
        command, env=auto.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert out == b"went on\n"
    assert process.returncode == 0


def test_ignored_child_signals_do_no_harm(auto: Auto) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    done = auto("--stats", "--executor", "none", "sh", "-c", "exit 5", preexec_fn=ignore)
    assert done.returncode == 5


# What runs native, and says why


def test_static_programs_run_native(auto: Auto, tmp_path: Path) -> None:
    program = tmp_path / "static"
    source = '#include <stdio.h>\nint main(void) { return puts("static") < 0; }\n'
    command = ["cc", "-static", "-x", "c", "-o", str(program), "-"]
    if subprocess.run(command, input=source.encode(), check=False).returncode:
        pytest.skip("no static C library to link with (Debian: apt-get install libc6-dev)")
    assert auto(program).stdout == b"static\n"
    done = auto("--stats", program)
    assert done.stdout == b"static\n"
    assert done.stderr.count(b"\n") == 1
    assert b"ran native: statically linked" in done.stderr


def test_set_id_programs_run_native(auto: Auto, tmp_path: Path) -> None:
    program = tmp_path / "echo"
    shutil.copy(shutil.which("echo") or "/bin/echo", program)
    program.chmod(0o6755)
    done = auto("--stats", program, "hi")
    assert done.stdout == b"hi\n"
    assert b"ran native: set-id" in done.stderr


def test_32_bit_programs_run_native(auto: Auto, tmp_path: Path) -> None:
    # A header alone, which no kernel runs: it ends as it would without us.
    program = tmp_path / "program32"
    program.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x03\x00" + bytes(200))
    program.chmod(0o755)
    native, cosy = auto.native("env", program), auto(program)
    assert cosy.returncode == native.returncode
    assert b"not a 64-bit x86 program" in auto("--explain", program).stdout


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (corrupt, b"it is corrupt"),
        (give_away, b"it belongs to someone else"),
        (lambda path: path.chmod(0o620), b"others may write to it"),
        (lambda path: path.write_bytes(b""), b"it is no profile image"),
        (lambda path: path.write_bytes(b"x" * 5000), b"it is no profile image"),
        (lambda path: path.unlink(), b"it is not there"),
        (lambda path: (path.unlink(), path.mkdir()), b"it is no regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), b"it is no regular file"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_bad_profiles_are_refused_and_the_program_runs(
    auto: Auto, profile: Path, spoil: object, reason: bytes, stored: bool
) -> None:
    options: list[str | Path] = ["--profile", profile]
    if stored:
        folder = auto.home / ".local" / "share" / "cosy" / "profiles"
        folder.mkdir(parents=True)
        echo = shutil.which("echo") or "/bin/echo"
        profile = profile.rename(folder / f"{inspect(echo).build_id}.img")
        options = []
    assert callable(spoil)
    spoil(profile)
    if stored and not profile.exists():
        # Nothing to refuse: a program without a profile of its own uses the shipped one.
        assert b"default.img\n" in auto("--explain", "echo").stdout
        return
    quiet = auto(*options, "echo", "hi")
    assert (quiet.stdout, quiet.stderr) == (b"hi\n", b"")
    done = auto("--stats", *options, "echo", "hi")
    assert done.stdout == b"hi\n"
    assert done.stderr.count(b"\n") == 1
    assert reason in done.stderr


def test_a_program_has_its_own_profile(auto: Auto, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = shutil.which("echo") or "/bin/echo"
    monkeypatch.setenv("XDG_DATA_HOME", str(auto.home / ".local" / "share"))
    image = save(load_profile(DEFAULT), inspect(echo).build_id or "")
    assert str(image).encode() in auto("--explain", "echo").stdout
    assert str(image).encode() not in auto("--explain", "cat").stdout


def test_a_profile_of_an_earlier_version_gives_way(
    auto: Auto, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = shutil.which("echo") or "/bin/echo"
    monkeypatch.setenv("XDG_DATA_HOME", str(auto.home / ".local" / "share"))
    image = save(load_profile(DEFAULT), inspect(echo).build_id or "")
    data = bytearray(image.read_bytes())
    data[7] = 1
    image.write_bytes(data)
    assert b"default.img\n" in auto("--explain", "echo").stdout
    assert b"another version" in auto("--explain", "--profile", image, "echo").stdout


def test_explain_runs_nothing(auto: Auto, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = auto("--explain", "touch", target)
    assert done.returncode == 0
    assert b"compound  dirscan-stat" in done.stdout
    assert not target.exists()
    assert auto("--explain", "no-such-program").returncode == 127


@pytest.mark.parametrize("kind", ["unwritable", "file", "foreign"])
def test_no_cache_is_no_trouble(auto: Auto, kind: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = {"XDG_CACHE_HOME": str(cache)}
    if kind == "unwritable":
        env["XDG_CACHE_HOME"] = "/proc/nowhere"
    elif kind == "file":
        cache.write_text("")
    else:
        (cache / "cosy").mkdir(parents=True)
        (cache / "cosy").chmod(0o777)
    done = auto("--executor", "none", "echo", "hi", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
    assert b"cache     none" in auto("--explain", "echo", env=env).stdout


# The system's folders are the test's own. A user without a session has none.
SERVICES = """
mount -t tmpfs tmpfs /var/cache && mount -t tmpfs tmpfs /run && mkdir -p /run/user/4711 || exit 77
explain() { "$@" "$AUTO" --explain true | sed -n 's/^cache  *//p'; }
as_user() { explain setpriv --reuid="$1" --regid="$1" --clear-groups; }
explain; stat -c '%a %u' /var/cache/cosy
chown 1 /var/cache/cosy; explain
chown 4711 /run/user/4711; chmod 700 /run/user/4711; as_user 4711; as_user 4712
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: run it as root")
def test_without_a_home_the_cache_is_the_systems(auto: Auto) -> None:
    env = {"XDG_CACHE_HOME": "", "HOME": "", "AUTO": str(auto.program)}
    done = auto.native("unshare", "-m", "sh", "-c", SERVICES, env=env)
    if done.returncode == 77:
        pytest.skip("no mounts in a namespace here")
    none = "none: no folder of our own"
    found = ["/var/cache/cosy/text", "700 0", none, "/run/user/4711/cosy/text", none]
    assert done.stdout.decode().splitlines() == found, done.stderr


def test_no_executor_is_no_trouble(auto: Auto, tmp_path: Path) -> None:
    # A folder with nothing but the library and the profile: as if BPF had not been built.
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("shim/libcosy.so", "synth/default.img"):
        shutil.copy(built("build", name), bare)
    env = {"COSY_NATIVE_DIR": str(bare)}
    done = auto("echo", "hi", env=env)
    assert (done.stdout, done.stderr) == (b"hi\n", b"")
    done = auto("echo", "hi", env={"COSY_NATIVE_DIR": str(tmp_path / "nowhere")})
    assert (done.stdout, done.stderr) == (b"hi\n", b"")
    done = auto("--stats", "echo", "hi", env={"COSY_NATIVE_DIR": str(tmp_path / "nowhere")})
    assert b"ran native: libcosy.so is not where it belongs" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--nosuch"],
        ["--max-age"],
        ["--max-age", "x", "true"],
        ["--executor", "gpu", "true"],
        ["--executor=", "true"],
        ["--profile=", "true"],
        ["--profile", "", "true"],
    ],
)
def test_wrong_usage_is_2(auto: Auto, words: list[str]) -> None:
    done = auto(*words)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_options_end_at_the_command(auto: Auto) -> None:
    assert auto("echo", "--stats").stdout == b"--stats\n"
    assert auto("--", "echo", "--").stdout == b"--\n"
    assert auto("--executor=none", "--max-age=50", "echo", "hi").stdout == b"hi\n"


def test_nested(auto: Auto) -> None:
    inner = [auto.program, "--executor", "none"]
    done = auto("--executor", "none", *inner, "sh", "-c", "ls /etc; env; exit 4")
    native = auto.native("sh", "-c", "ls /etc; env; exit 4")
    assert done.returncode == native.returncode == 4
    assert done.stdout == native.stdout


@pytest.mark.parametrize("later", ["ahead", "inline", "inline,ahead"])
def test_executors_that_go_along_with_another(auto: Auto, later: str) -> None:
    done = auto("--executor", later, "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
    done = auto("--executor", later, "--stats", "echo", "hi")
    assert done.returncode == 0
    assert b"ahead and inline go along with another: allow bpf or module" in done.stderr
    done = auto("--executor", "aheed", "echo", "hi")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"use bpf, module, inline, ahead, reference or none" in done.stderr


def test_stats_count_and_leave_no_file(auto: Auto, executor: Path, tmp_path: Path) -> None:
    assert executor.exists()
    tree = tmp_path / "tree"
    tree.mkdir()
    for i in range(300):
        (tree / f"file{i}").write_text("x")
    (tree / "sub").mkdir()
    native = auto.native("du", "-a", tree)
    done = auto("--stats", "du", "-a", tree)
    assert done.stdout == native.stdout
    assert b"dirscan-stat" in done.stderr
    row = next(line for line in done.stderr.splitlines() if line.startswith(b"  dirscan-stat"))
    fired, _, served = (int(word.replace(b",", b"")) for word in row.split()[1:])
    assert fired >= 1
    assert served > 100
    assert not list(tmp_path.glob("cosy-stats-*"))


# Is the library in this process? The program's own work comes before.
PRESENT = "open M, '/proc/self/maps'; print 0 + grep /libcosy/, <M>;"
WORK = {
    "long": "$n += $_ for 1 .. 3_000_000;",
    "gains": "for (1 .. 3) { opendir D, '.'; lstat for readdir D; closedir D }",
    "starts another": "system '/bin/true';",
}


def presence(auto: Auto, command: Sequence[str | Path], **options: object) -> list[bool]:
    """Of twelve runs: was the library there?"""
    return [auto(*command, **options).stdout.strip() != b"0" for _ in range(12)]


@pytest.mark.usefixtures("executor")
def test_the_short_that_never_gains_runs_without_the_shim(auto: Auto) -> None:
    command = ["grep", "-c", "libcosy", "/proc/self/maps"]
    assert presence(auto, command) == [True] * 8 + [False] * 4
    # Whoever says more than the command wants to see it at work.
    assert auto("--stats", *command).stdout.strip() != b"0"


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("kind", WORK)
def test_all_others_keep_it(auto: Auto, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(400):
        (folder / f"file-{k}").touch()
        (folder / f"file-{k}").stat()
    # A file of its own, so that it is taken for no other program.
    perl = shutil.copy(shutil.which("perl") or "perl", tmp_path / "perl")
    assert presence(auto, [perl, "-e", WORK[kind] + PRESENT], cwd=folder) == [True] * 12


def test_learning_stores_a_profile(auto: Auto) -> None:
    """The whole chain: the run is traced, mined and synthesized in the background."""
    pytest.importorskip("pyarrow", reason="reading traces needs pyarrow")
    # A build tree has no Python of its own: the learner is the first python3 in PATH.
    env = {"PATH": f"{Path(sys.executable).parent}:{auto.env['PATH']}"}
    costs = Calibration(serve_ns=151.5, machine="as cosy-doctor measured it")
    save_calibration(costs, auto.home / ".local" / "share" / "cosy" / "calibration.json")
    native = auto.native("du", "-s", "/usr/share")
    done = auto("--learn", "du", "-s", "/usr/share", env=env)
    assert (done.returncode, done.stdout) == (0, native.stdout)
    du = shutil.which("du") or "/usr/bin/du"
    stored = auto.home / ".local" / "share" / "cosy" / "profiles" / f"{inspect(du).build_id}.img"
    log = auto.home / ".cache" / "cosy" / "learn.log"
    for _ in range(600):
        if stored.exists() or (log.exists() and b"cannot" in log.read_bytes()):
            break
        time.sleep(0.1)
    assert stored.exists(), log.read_text() if log.exists() else "no log"
    (motifs,) = stored.with_suffix(".runs").glob("*.motifs.json")
    assert json.loads(motifs.read_bytes())["calibration"] == costs.to_json()
    text = stored.with_suffix(".cosy").read_text()
    assert re.search(r"from traces .*: du-\d{4}-\d\d-\d\d-\d{4} [\d,]+", text), text
    assert str(stored).encode() in auto("--explain", "du").stdout
