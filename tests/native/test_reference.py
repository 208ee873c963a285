# SPDX-License-Identifier: MIT
"""The reference executor: compounds of every shape, run as plain calls, change nothing.

Each shape runs a real program that it fits, and must answer most of what that program asks. The
consistency contract is held up by the same victims as for the eBPF executor (test_fences.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth.compile import compile_profile
from synth.parser import parse
from tests.conftest import DEADLINE_S, Compiler, Runner, built, plain_environment, run
from tests.native import test_fences as fences

FILES = 40
SIZE = 3000

SHAPES = {
    "stat": """
compound shape
  on newfstatat(D, name, flags within AT_SYMLINK_NOFOLLOW), lstat(path), stat(path)
  on statx(D, name, flags within AT_SYMLINK_NOFOLLOW|AT_NO_AUTOMOUNT, mask within BASIC)
  where scanned(D) and child(D, name)
  when nth 2, entries 4
  each e in entries(D)
    call newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)
  serve newfstatat, lstat, stat, statx
""",
    "stat-xattr": """
compound shape
  on statx(D, name, flags within AT_SYMLINK_NOFOLLOW|AT_NO_AUTOMOUNT, mask within BASIC)
  where scanned(D) and child(D, name)
  when nth 1, entries 4
  each e in entries(D)
    call newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)
    maybe lgetxattr(D/e.name, "security.selinux")
    maybe getxattr(D/e.name, "system.posix_acl_access")
    maybe getxattr(D/e.name, "user.cosy")
  serve statx, lgetxattr("security.selinux"), getxattr("system.posix_acl_access")
  serve getxattr("user.cosy")
""",
    "readlink": """
compound shape
  on readlink(path)
  on statx(D, name, flags within AT_SYMLINK_NOFOLLOW|AT_NO_AUTOMOUNT, mask within BASIC)
  where scanned(D) and child(D, name)
  when nth 1, entries 4
  each e in entries(D)
    call newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)
    call readlinkat(D, e.name) if type(0) == S_IFLNK and size(0) <= 4095
  serve statx, readlink
""",
    "slurp": """
compound shape
  on openat(D, name, flags within O_CLOEXEC)
  once
    call openat(trigger(0), trigger(1), O_CLOEXEC)
    call newfstatat(result(0), "", AT_EMPTY_PATH)
    until read(result(0)) if type(1) == S_IFREG
    call close(result(0))
  serve newfstatat(flags within AT_EMPTY_PATH), read
""",
    "directory-slurp": """
compound shape
  on openat(D, name, flags within O_CLOEXEC|O_NOFOLLOW|O_NOCTTY|O_NONBLOCK)
  where scanned(D) and child(D, name)
  when nth 2, entries 4
  each e in entries(D)
    call openat(D, e.name, O_CLOEXEC)
    call fstat(result(0))
    until read(result(0)) if type(1) == S_IFREG and size(1) <= 65536
    call close(result(0))
  limit ops 4096, bytes 8M, time 500ms
  serve newfstatat(flags within AT_EMPTY_PATH), fstat, read
""",
    "until-eof": """
compound shape
  on read(F)
  where regular(F)
  when nth 1
  once
    until read(trigger(0))
  serve read
""",
    "probes": """
compound shape
  on newfstatat(D, name), stat(path), openat(D, name, flags within O_CLOEXEC), access(path)
  where listed(path)
  PATHS
  each p in paths
    call newfstatat(AT_FDCWD, p, 0)
    call openat(AT_FDCWD, p, O_CLOEXEC) if errno(0) == ENOENT
    call access(p, 4) if errno(0) == ENOENT
  serve newfstatat, stat, openat, access
""",
}

SERVER = """
import os, socket, sys
ours, theirs = socket.socketpair()
files = sorted(e.name for e in os.scandir(sys.argv[1]) if e.name[0] == 'f' and e.is_file())
names = [os.path.join(sys.argv[1], name) for name in files]
if os.fork() == 0:
    ours.close()
    for name in names:
        theirs.sendall(name.encode() + b'\\n')
        length = int.from_bytes(theirs.recv(8, socket.MSG_WAITALL), 'little')
        body = theirs.recv(length, socket.MSG_WAITALL) if length else b''
        print(name, length, sum(body))
    sys.stdout.flush()
    os._exit(0)
theirs.close()
while request := ours.recv(4096):
    fd = os.open(request[:-1], os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    body = b''
    while part := os.read(fd, 4096):
        body += part
    os.close(fd)
    ours.sendall(size.to_bytes(8, 'little') + body)
os.wait()
"""

PROBES = """
import os, sys
top = sys.argv[1]
for name in [f'{top}/f1'] + [f'{top}/none{i}' for i in range(30)]:
    for ask in (os.stat, lambda p: os.open(p, os.O_RDONLY | os.O_CLOEXEC)):
        try:
            print(name, ask(name) is not None)
        except OSError as error:
            print(error)
    print(os.access(name, os.R_OK))
"""

XATTRS = """
import os, sys
for e in os.scandir(sys.argv[1]):
    os.stat(e.path, follow_symlinks=False)
    for size in (0, 1, 100):
        try:
            print(e.name, os.getxattr(e.path, 'user.cosy'))
        except OSError as error:
            print(error)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose access times reading does not move, links, a directory and a FIFO."""
    top = tmp_path_factory.mktemp("tree")
    for i in range(FILES):
        (top / f"f{i}").write_bytes(bytes([i % 251]) * (i * SIZE))
        (top / f"l{i}").symlink_to(f"f{i}")
    with contextlib.suppress(OSError):
        os.setxattr(top / "f3", "user.cosy", b"value")
    (top / "sub").mkdir()
    os.mkfifo(top / "fifo")
    settle(top)
    return top


def settle(top: Path) -> None:
    """Access times younger than all other times: relatime then leaves them alone."""
    old = time.time_ns() - 3600 * 10**9
    for path in top.iterdir():
        os.utime(path, ns=(old, old), follow_symlinks=False)
    time.sleep(1.1)
    for path in top.iterdir():
        if path.is_symlink():
            path.readlink()
        elif path.is_file():
            path.read_bytes()
        elif path.is_dir():
            os.listdir(path)


class Reference:
    """Runs programs under cosy-auto with one profile on the reference executor."""

    def __init__(self, home: Path) -> None:
        built("build", "shim/libcosy.so")
        self.auto = built("build", "shim/launcher/cosy-auto")
        self.image = home / "shape.img"
        self.env = {**plain_environment(), "HOME": str(home), "LC_ALL": "C.UTF-8"}

    def use(self, text: str) -> None:
        """This profile from now on."""
        self.image.write_bytes(compile_profile(parse(text), "test"))
        self.image.chmod(0o600)

    def run(self, *command: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        """Output through pipes: a program may do something else for a regular file."""
        words = [self.auto, "--stats", "--executor", "reference", "--profile", self.image, *command]
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [str(word) for word in words],
            env=self.env,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
            **options,
        )

    def same(self, *command: str | Path) -> tuple[int, int]:
        """Run natively and under us; how many answers there were, and how many were given."""
        native = run(command, self.env)
        done = self.run(*command)
        assert (done.stdout, done.returncode) == (native.stdout, native.returncode)
        assert done.stderr.startswith(native.stderr)
        return numbers(done.stderr)


def numbers(report: bytes) -> tuple[int, int]:
    """Results and answers of the compound `shape`, as --stats reports them."""
    found = re.search(rb"^  shape +([\d,]+) +([\d,]+) +([\d,]+)$", report, re.M)
    assert found is not None, report
    return int(found[2].replace(b",", b"")), int(found[3].replace(b",", b""))


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return Reference(tmp_path)


def program(shape: str, top: Path) -> list[str | Path]:
    """A real program that asks in this shape."""
    files = sorted(top.glob("f[0-9]*"))
    python = [sys.executable, "-S", "-E", "-c"]
    return {
        "stat": ["ls", "-l", top],
        "stat-xattr": ["ls", "-l", top],
        "readlink": ["ls", "-l", top],
        "slurp": ["cat", *files],
        "directory-slurp": ["grep", "-rc", "x", top],
        "until-eof": ["cat", *files],
        "probes": [*python, PROBES, top],
    }[shape]


@pytest.mark.parametrize(
    ("shape", "least"),
    [
        ("stat", FILES),
        ("stat-xattr", FILES),
        ("readlink", 2 * FILES),
        ("slurp", 2 * FILES),
        ("directory-slurp", 2 * FILES),
        ("until-eof", FILES),
        ("probes", 60),
    ],
)
def test_shapes_answer_and_change_nothing(
    reference: Reference, tree: Path, shape: str, least: int
) -> None:
    paths = "\n".join(f'  path "{tree}/none{i}"' for i in range(30))
    reference.use(SHAPES[shape].replace("  PATHS", paths))
    asked, served = reference.same(*program(shape, tree))
    assert least <= served
    assert served >= asked / 3


def test_a_server_loop(reference: Reference, tree: Path) -> None:
    reference.use(SHAPES["slurp"])
    _, served = reference.same(sys.executable, "-S", "-E", "-c", SERVER, tree)
    assert served >= 2 * FILES


def test_values_of_attributes_come_as_the_kernel_gives_them(
    reference: Reference, tree: Path
) -> None:
    text = SHAPES["stat-xattr"].replace(
        "on statx", "on newfstatat(D, name, AT_SYMLINK_NOFOLLOW)\n  on statx"
    )
    # Python asks for a few children of its own folders when it starts.
    reference.use(text.replace("nth 1", "nth 6"))
    _, served = reference.same(sys.executable, "-S", "-E", "-c", XATTRS, tree)
    assert served >= FILES


def test_the_offset_is_the_kernels(reference: Reference, tree: Path) -> None:
    # What is served moves the offset: a child that inherits the descriptor goes on from there.
    script = (
        "import os, subprocess, sys\n"
        "for n in (1, 10, 4096):\n"
        "    fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)\n"
        "    first = os.read(fd, n), os.read(fd, n)\n"
        "    rest = subprocess.run(['cat'], stdin=fd, capture_output=True).stdout\n"
        "    print(list(map(len, first)), len(rest), os.lseek(fd, 0, os.SEEK_CUR))\n"
        "    os.lseek(fd, 5, os.SEEK_SET)\n"
        "    print(len(os.read(fd, 1 << 20)), os.pread(fd, 3, 7), os.read(fd, 5))\n"
    )
    for shape in ("slurp", "until-eof"):
        reference.use(SHAPES[shape])
        _, served = reference.same(sys.executable, "-S", "-E", "-c", script, tree / "f7")
        assert served > 6


def test_writes_are_seen(reference: Reference, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "p = sys.argv[1]\n"
        "open(p, 'wb').write(b'as it was')\n"
        "os.utime(p, ns=(2 * 10**18, 10**18))\n"
        "r = os.open(p, os.O_RDONLY | os.O_CLOEXEC)\n"
        "print(os.read(r, 2), os.fstat(r).st_size)\n"
        "w = os.open(p, os.O_WRONLY)\n"
        "os.write(w, b'WRITTEN ANEW')\n"
        "print(os.read(r, 100), os.fstat(r).st_size)\n"
    )
    for shape in ("slurp", "until-eof"):
        reference.use(SHAPES[shape])
        reference.same(sys.executable, "-S", "-E", "-c", script, tmp_path / "file")


def test_no_descriptor_stays(reference: Reference, tree: Path) -> None:
    script = (
        "import os, sys\n"
        "for name in sorted(os.listdir(sys.argv[1])):\n"
        "    path = os.path.join(sys.argv[1], name)\n"
        "    if os.path.isfile(path):\n"
        "        with open(path, 'rb') as f: f.read()\n"
        "    print(name, sorted(os.listdir('/proc/self/fd')))\n"
    )
    reference.use(SHAPES["directory-slurp"])
    _, served = reference.same(sys.executable, "-S", "-E", "-c", script, tree)
    assert served >= FILES


@contextlib.contextmanager
def writer(fifo: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who waits until the FIFO is opened for reading."""
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", f"open({str(fifo)!r}, 'wb')"])
    try:
        time.sleep(0.3)
        yield process
    finally:
        process.kill()
        process.wait()


def test_devices_and_fifos_are_not_opened(reference: Reference, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for i in range(8):
        (top / f"f{i}").write_bytes(b"x" * 100)
    os.mkfifo(top / "fifo")
    (top / "to-fifo").symlink_to("fifo")
    settle(top)
    reference.use(SHAPES["directory-slurp"])
    with writer(top / "fifo") as process:
        _, served = reference.same("grep", "-rc", "x", "--devices=skip", top)
        assert served >= 8
        assert process.poll() is None


def test_reading_ahead_moves_no_access_time(reference: Reference, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for i in range(12):
        (top / f"f{i}").write_bytes(b"x" * 100)
    old = 10**18
    for path in top.iterdir():
        os.utime(path, ns=(old, 2 * old))
    script = (
        "import os, sys\n"
        "names = sorted(os.listdir(sys.argv[1]))\n"
        "for name in names[:3]:\n"
        "    open(os.path.join(sys.argv[1], name), 'rb').read()\n"
    )
    reference.use(SHAPES["directory-slurp"])
    done = reference.run(sys.executable, "-S", "-E", "-c", script, top)
    assert done.returncode == 0
    asked, _ = numbers(done.stderr)
    assert asked > 0
    read = {path.name for path in top.iterdir() if path.stat().st_atime_ns != old}
    assert read <= {"f0", "f1", "f10"}


def test_what_wastes_is_left_alone(reference: Reference, tmp_path: Path) -> None:
    # Two files of each directory are looked at, and each has many.
    for d in range(40):
        for i in range(50):
            path = tmp_path / "top" / f"d{d}" / f"f{i}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    script = (
        "import os, sys\n"
        "for d in range(40):\n"
        "    names = os.listdir(f'{sys.argv[1]}/d{d}')\n"
        "    for n in names[:3]: print(os.lstat(f'{sys.argv[1]}/d{d}/{n}').st_size)\n"
    )
    reference.use(SHAPES["stat"])
    asked, served = reference.same(sys.executable, "-S", "-E", "-c", script, tmp_path / "top")
    assert 500 <= asked < 700  # of 2,000: the loss is bounded
    assert served < asked / 4


def test_it_is_off_unless_asked_for(reference: Reference, tree: Path) -> None:
    reference.use(SHAPES["slurp"])
    command = [str(reference.auto), "--stats", "--profile", str(reference.image), "cat"]
    done = subprocess.run(
        [*command, str(tree / "f1")], env=reference.env, capture_output=True, check=False
    )
    assert done.stdout == (tree / "f1").read_bytes()
    assert b"ran native" in done.stderr


@pytest.fixture(scope="session")
def stage(
    fence_runner: Runner, compiled: Compiler, tmp_path_factory: pytest.TempPathFactory
) -> fences.Stage:
    folder = tmp_path_factory.mktemp("reference")
    folder.chmod(0o755)
    image = built("build", "synth/default.img")
    victim = fences.victim(compiled)
    return fences.Stage(fence_runner, victim, image, folder, executors="reference")


ALONE = {  # with a second thread nothing is read ahead, so nothing can be stale
    kind: fence
    for kind, fence in [*fences.NEWS.items(), *fences.OWN.items()]
    if not kind.startswith("thread-") and kind != "condition"
}


def test_answers_are_held_at_all(stage: fences.Stage) -> None:
    before = stage.native("nothing")
    assert stage.native("untold") != before
    assert stage.cosy("untold") == before


@pytest.mark.parametrize(("kind", "fence"), ALONE.items())
def test_the_truth_is_seen(stage: fences.Stage, kind: str, fence: str) -> None:
    if kind in fences.AS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to change who owns a file, or who we are")
    truth = stage.native(kind)
    stale = stage.native(fences.ASKED_FOR.get(kind, "nothing"))
    if truth == stale:
        pytest.skip(f"this file system does not show it: {kind}")
    assert stage.cosy(kind) == truth
    assert stage.goes_stale(kind, stale, nofence=fence)


@pytest.mark.parametrize("kind", [*fences.TRUTH_ONLY, "through-link", "thread-chmod"])
def test_nothing_is_mistaken(stage: fences.Stage, kind: str) -> None:
    if kind in fences.AS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to change the root directory")
    assert stage.cosy(kind) == stage.native(kind)


# Programs that never gain are left alone when they are exec'ed (shim/leaf.c).

LOOP = 'n=0; while [ $n -lt 40 ]; do "$@" > /dev/null; n=$((n + 1)); done'


def images(report: bytes) -> int:
    """Program images that ran under the shim, as --stats reports them."""
    found = re.search(rb"^  program images +([\d,]+)$", report, re.M)
    assert found is not None, report
    return int(found[1])


def test_a_leaf_that_never_gains_is_left_alone(reference: Reference) -> None:
    reference.use(SHAPES["stat"])
    done = reference.run("sh", "-c", LOOP, "sh", "/bin/true")
    assert done.returncode == 0
    # The shell, the first runs, and one that tries again.
    assert 8 <= images(done.stderr) <= 12
    assert b"never gained before" in done.stderr
    # It is not forgotten, and tried again now and then.
    assert 2 <= images(reference.run("sh", "-c", LOOP, "sh", "/bin/true").stderr) <= 4


def test_what_gains_stays(reference: Reference, tmp_path: Path) -> None:
    """Hundreds of answers are a gain: a start takes its time, too."""
    many = tmp_path / "many"
    many.mkdir()
    for k in range(300):
        (many / f"{k}").touch()
    reference.use(SHAPES["stat"])
    done = reference.run("sh", "-c", LOOP, "sh", "du", "-a", str(many))
    assert images(done.stderr) == 41
    assert numbers(done.stderr)[1] >= 40 * 280


def test_what_starts_others_stays(reference: Reference) -> None:
    reference.use(SHAPES["stat"])
    done = reference.run("sh", "-c", LOOP, "sh", "env", "/bin/true")
    # Each env, and the first few of true.
    assert 48 <= images(done.stderr) <= 52


def test_a_strange_table_is_no_trouble(reference: Reference, tree: Path) -> None:
    reference.use(SHAPES["stat"])
    table = Path(reference.env["HOME"]) / ".cache" / "cosy" / "text" / "leaves"
    reference.same("sh", "-c", "du -a $0", tree)
    size = table.stat().st_size
    for spoil in (b"", b"x", os.urandom(size), bytes(size), b"\xff" * size):
        table.write_bytes(spoil)
        reference.same("sh", "-c", "du -a $0", tree)
    table.unlink()
    table.symlink_to("/nowhere")
    reference.same("sh", "-c", "du -a $0", tree)
