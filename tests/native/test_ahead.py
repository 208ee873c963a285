# SPDX-License-Identifier: MIT
"""Directories that are read ahead, and ends that are known without asking: no program can tell.

How far the thread that reads ahead comes is the machine's to say. What a program prints must be
right every time; that directories were really taken from the thread must be seen once in a few
attempts, or the test would prove nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import Compiler, Runner

ATTEMPTS = 40  # the machine may be busy; as a rule the first will do
FEW = 5  # directories taken, of some hundred
NEVER_MS = "1000000"
NOBODY = 65534
HOUR_NS = 3600 * 10**9
STATS_BYTES = 16384
STATS_MAGIC = b"COSYSTA\x04"
ENDS_AT, THREADS_AT, TAKEN_AT, RUNS_AT = 48, 56, 72, 80  # offsets in struct cosy_stats
AHEAD = "bpf+ahead+inline"
ALWAYS = "account"  # fires whatever it costs (shim/fence.h)

Result = tuple[bytes, bytes, int]

# What happens in every second directory.
POSITIONS = (
    *("none", "tell", "again", "middle", "beyond", "end", "short", "short-first", "too-short"),
    *("old", "old-first", "bad", "torn", "dup", "dup-first", "dup2", "dup3", "fcntl", "high"),
    *("high-first", "reopen", "reopen-first", "many", "keep", "pass", "timer"),
)
# These end the thread in each directory; it begins only some times.
PROCESSES = ("fork", "vfork", "spawn", "exec", "thread", "child-walks")
# What happens once.
ONCE = (
    *(
        "no-new-privs",
        "seccomp",
        "dumpable",
        "chdir",
        "umount2",
        "affinity",
        "thread-exit",
        "abort",
    ),
    *("new-users", "half"),
)
ONCE_AS_ROOT = ("new-mounts", "setns", "setuid", "chroot")
SIGNALS = ("storm", "handler-walks", "jumps")


def quiet(top: Path) -> Path:
    """The tree, with access times that no reading moves, of inodes that were asked about."""
    for folder, _, files in os.walk(top, topdown=False):
        for path in (*(Path(folder, name) for name in files), Path(folder)):
            if not path.is_symlink():
                os.utime(path, ns=(time.time_ns() + HOUR_NS, time.time_ns() - HOUR_NS))
            path.lstat()
    return top


def fill(folder: Path, files: int) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(files):
        fd = os.open(folder / f"file{i}", os.O_CREAT | os.O_RDWR, 0o644)
        # Blocks allocated now: with delayed allocation the executor would rightly decline.
        os.posix_fallocate(fd, 0, 1 + i * 7 % 50)
        os.close(fd)


def too_busy(what: str) -> NoReturn:
    """All outputs were right, but whether the thread is ahead is up to the machine's pace."""
    pytest.skip(f"the machine is too busy: in {ATTEMPTS} runs {what}")


class Walking:
    """Runs programs over trees, natively and with a thread that reads ahead."""

    def __init__(self, runner: Runner, image: Path, home: Path, **orders: str) -> None:
        self.runner, self.home = runner, home
        self.stats = home / "stats"
        self.orders = {"image": str(image), "executors": AHEAD, **orders}

    def native(self, *command: str | Path, **options: object) -> Result:
        done = self.runner.native(command, **options)
        return done.stdout, done.stderr, done.returncode

    def cosy(
        self, *command: str | Path, orders: dict[str, str] | None = None, **options: object
    ) -> Result:
        self.stats.write_bytes(STATS_MAGIC + bytes(STATS_BYTES))
        self.stats.chmod(0o666)
        orders = {**self.orders, "stats": str(self.stats), **(orders or {})}
        done = self.runner.cosy(command, mode="exec", orders=orders, **options)
        return done.stdout, done.stderr, done.returncode

    def counted(self, at: int) -> int:
        (count,) = struct.unpack_from("<Q", self.stats.read_bytes(), at)
        return int(count)

    @property
    def taken(self) -> int:
        """Directories of the last run that the thread had read."""
        return self.counted(TAKEN_AT)

    def both(self, *command: str | Path, least: int = FEW, **options: object) -> Result:
        """The same every time, and once with so many directories taken."""
        truth = self.native(*command, **options)
        for _ in range(ATTEMPTS):
            assert self.cosy(*command, **options) == truth
            if self.taken >= least:
                return truth
        too_busy(f"the thread was never {least} directories ahead")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that others may walk in."""
    top = tmp_path_factory.mktemp("ahead")
    for path in (top, *top.parents[:2]):
        if path.owner() == Path.home().owner():
            path.chmod(path.stat().st_mode | 0o055)
    return top


@pytest.fixture(scope="module")
def walking(fence_runner: Runner, executor: Path, folder: Path) -> Walking:
    """Compounds fire at every chance, and nothing is too old."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("there is no second processor to read ahead on")
    return Walking(fence_runner, executor, folder, nofence=ALWAYS, max_age_ms=NEVER_MS)


@pytest.fixture(scope="module")
def usual(runner: Runner, executor: Path, folder: Path) -> Walking:
    """As users run it."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("there is no second processor to read ahead on")
    return Walking(runner, executor, folder)


@pytest.fixture(scope="module")
def victim(compiled: Compiler) -> Path:
    return compiled("ahead.c", "ahead_kinds.c", "ahead_news.c", "-pthread")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A hundred directories, some empty, the same names in many."""
    top = folder / "plain"
    fill(top, 6)
    for i in range(15):
        fill(top / f"part{i}", 8)
        for name in ("include", "src", "test", "doc", "a-name-of-more-than-eight-bytes"):
            fill(top / f"part{i}" / name, 6 + i)
            fill(top / f"part{i}" / name / "empty", 0)
    return quiet(top)


# --- a program of our own ---------------------------------------------------


@pytest.mark.parametrize("kind", [*POSITIONS, *ONCE])
def test_nobody_can_tell(walking: Walking, victim: Path, plain: Path, kind: str) -> None:
    walking.both(victim, kind, plain)


@pytest.mark.parametrize("kind", ONCE_AS_ROOT)
def test_nobody_can_tell_as_root(walking: Walking, victim: Path, plain: Path, kind: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to change who and where it is")
    walking.both(victim, kind, plain)


@pytest.mark.parametrize("kind", PROCESSES)
def test_processes_in_between(walking: Walking, victim: Path, plain: Path, kind: str) -> None:
    walking.both(victim, kind, plain, least=1)


@pytest.mark.parametrize("kind", SIGNALS)
def test_signals_in_between(walking: Walking, victim: Path, plain: Path, kind: str) -> None:
    truth = walking.native(victim, kind, plain)
    for _ in range(3):
        assert walking.cosy(victim, kind, plain) == truth


def limited(which: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (limit, limit))


def test_no_thread_where_its_time_counts(walking: Walking, victim: Path, plain: Path) -> None:
    truth = walking.native(victim, "none", plain)
    limit = limited(resource.RLIMIT_CPU, 1000)
    assert walking.cosy(victim, "none", plain, preexec_fn=limit) == truth
    assert walking.counted(THREADS_AT) == 0
    assert walking.cosy(victim, "profiled", plain) == truth
    assert walking.counted(THREADS_AT) == 0
    walking.both(victim, "none", plain)
    assert walking.counted(THREADS_AT) >= 1


def test_no_thread_where_there_is_no_processor(walking: Walking, victim: Path, plain: Path) -> None:
    (first, *_) = os.sched_getaffinity(0)
    truth = walking.native(victim, "none", plain)
    assert walking.cosy("taskset", "-c", str(first), victim, "none", plain) == truth
    assert walking.counted(THREADS_AT) == 0


def test_no_thread_unless_asked_for(walking: Walking, victim: Path, plain: Path) -> None:
    truth = walking.native(victim, "none", plain)
    for executors in ("bpf", "bpf+inline", "ahead+inline"):
        assert walking.cosy(victim, "none", plain, orders={"executors": executors}) == truth
        assert walking.counted(THREADS_AT) == 0


def test_where_there_may_be_no_thread(walking: Walking, victim: Path, plain: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody with a limit")

    def become() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    command = (shutil.copy(victim, walking.home / "victim"), "none", plain)
    truth = walking.native(*command, preexec_fn=become)
    assert truth[2] == 0
    assert walking.cosy(*command, preexec_fn=become) == truth


def test_a_file_system_is_let_go(walking: Walking, victim: Path, plain: Path) -> None:
    """Nothing of ours keeps a file system busy that the program unmounts."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    mounted = walking.home / "mounted"
    mounted.mkdir(exist_ok=True)
    script = (
        f"mount -t tmpfs x {mounted} && cp -a {plain}/. {mounted}/ && {victim} unmount {mounted}"
    )
    command = ("unshare", "-m", "sh", "-c", script)
    truth = walking.native(*command)
    assert b"umount: 0" in truth[0]
    for _ in range(3):
        assert sorted(walking.cosy(*command)[0].splitlines()) == sorted(truth[0].splitlines())


# --- news -------------------------------------------------------------------

# kind -> the fence without which what was read ahead is taken for the truth
NEWS = {
    "own": "mutate",
    "pipe": "read_sync",
    "poll": "poll",
    "wait4": "wait",
    "signal": "signal",
    "quiet": "read_sync",
}
MADE = b"  new: "  # the file that is made in the next directory


class Twins:
    """Directories that look alike but for the names of their files; some hold empty ones."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for part in range(12):
            for sub in range(26):
                (top / f"part{part}" / f"sub{sub}").mkdir(parents=True)
                for i in range(3):
                    (top / f"part{part}" / f"sub{sub}" / f"file-{part}-{i}").touch()
            for i in range(40 if part % 3 == 0 else 0):
                (top / f"part{part}" / "quiet" / f"quiet{i}").mkdir(parents=True)
        quiet(top)

    def fresh(self) -> Path:
        """As it was before any program changed it."""
        for path in self.top.rglob("new"):
            path.unlink()
            self._quiet(path.parent)
        for path in self.top.glob("part*"):
            (file, *_) = path.glob("sub0/file-*-0")
            path.rename(self.top / f"renamed{file.name.split('-')[1]}")
        for path in self.top.glob("renamed*"):
            self._quiet(path.rename(self.top / f"part{path.name.removeprefix('renamed')}"))
        self._quiet(self.top)
        return self.top

    @staticmethod
    def _quiet(path: Path) -> None:
        os.utime(path, ns=(time.time_ns() + HOUR_NS, time.time_ns() - HOUR_NS))
        path.lstat()


@pytest.fixture(scope="module")
def twins(walking: Walking) -> Twins:
    return Twins(walking.home / "twins")


@pytest.mark.parametrize(("kind", "fence"), NEWS.items())
def test_news_of_what_was_read_ahead(
    walking: Walking, victim: Path, twins: Twins, kind: str, fence: str
) -> None:
    truth = walking.native(victim, kind, twins.fresh())
    assert MADE in truth[0]
    assert walking.cosy(victim, kind, twins.fresh()) == truth
    orders = {"nofence": f"{ALWAYS}+{fence}"}
    if not any(
        MADE not in walking.cosy(victim, kind, twins.fresh(), orders=orders)[0]
        for _ in range(ATTEMPTS)
    ):
        too_busy("nothing was stale without the fence")


def test_what_was_read_ahead_grows_old(walking: Walking, victim: Path, twins: Twins) -> None:
    truth = walking.native(victim, "untold", twins.fresh())
    assert MADE in truth[0]
    orders = {"max_age_ms": "50"}
    assert walking.cosy(victim, "untold", twins.fresh(), orders=orders) == truth
    orders["nofence"] = f"{ALWAYS}+max_age"
    if not any(
        MADE not in walking.cosy(victim, "untold", twins.fresh(), orders=orders)[0]
        for _ in range(ATTEMPTS)
    ):
        too_busy("nothing was stale without the fence")


@pytest.mark.parametrize("kind", ["swap", "swap-above", "swap-middle"])
def test_a_name_that_means_another(walking: Walking, victim: Path, twins: Twins, kind: str) -> None:
    """A directory is taken for another of the same name by nobody, whatever was known before."""
    truth = walking.native(victim, kind, twins.fresh())
    assert truth[2] == 0
    for _ in range(4):
        assert walking.cosy(victim, kind, twins.fresh()) == truth


def test_a_child_goes_on(walking: Walking, victim: Path, twins: Twins) -> None:
    """In a child of fork, directories of before have other numbers."""
    top = twins.fresh()
    truth = walking.native(victim, "child-walks", top)
    for _ in range(ATTEMPTS):
        assert walking.cosy(victim, "child-walks", top) == truth
        if walking.counted(THREADS_AT) > 1:
            return
    too_busy("the child never had a thread")


# --- access times -----------------------------------------------------------


def moved(top: Path, folders: set[Path], old: set[Path], run: Callable[[], object]) -> set[Path]:
    """Of which a run moves the access times, where reading those in `old` would."""
    quiet(top)
    for path in old:
        os.utime(path, ns=(HOUR_NS, 2 * HOUR_NS))
        path.lstat()
    before = {path: path.lstat().st_atime_ns for path in folders}
    run()
    return {path for path, at in before.items() if path.lstat().st_atime_ns != at}


def test_access_times(walking: Walking, victim: Path, plain: Path) -> None:
    """No directory's moves that the program does not read, and each that it does."""
    top = walking.home / "read"
    shutil.copytree(plain, top)
    folders = {path for path in top.rglob("*") if path.is_dir()}

    def native() -> None:
        walking.native(victim, "half", top)

    def cosy() -> None:
        assert walking.cosy(victim, "half", top)[2] == 0

    walked = moved(top, folders, folders, native)
    assert FEW < len(walked) < len(folders) - FEW
    for _ in range(ATTEMPTS):
        assert moved(top, folders, folders - walked, cosy) == set()
        if walking.taken >= FEW:
            break
    else:
        too_busy("nothing was read ahead")
    some = {path for path in folders if len(path.name) % 2}
    assert moved(top, folders, some, cosy) == some & walked


# --- real programs ----------------------------------------------------------

WALK = """
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        print(folder, name, os.lstat(os.path.join(folder, name)).st_size)
"""
PROGRAMS: dict[str, tuple[str, ...]] = {
    "find": ("find",),
    "find-size": ("find", "-size", "+0"),
    "du": ("du", "-a", "--apparent-size"),
    "ls": ("ls", "-lR"),
    "tree": ("tree", "-s"),
    "tar": ("tar", "cvf", "/dev/null"),
    "python": ("python3", "-c", WALK),
}


def command(program: str, top: Path) -> tuple[str | Path, ...]:
    name, *options = PROGRAMS[program]
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return (name, top, *options) if program == "find-size" else (name, *options, top)


def deep(top: Path) -> None:
    """Downwards, with something on each level."""
    for branch in range(4):
        at = top / f"branch{branch}"
        for level in range(60):
            at.mkdir(parents=True)
            fill(at, 5)
            fill(at / "aside", 6 + level % 3)
            at = at / "down"


def wide(top: Path) -> None:
    """More child directories than are read at a time, each with a few files."""
    top.mkdir()
    for i in range(1100):
        fill(top / f"{i * 7919 % 1100:04}-with-a-name-that-takes-room", 5 if i % 4 else 0)


def named(top: Path) -> None:
    """Names of all lengths, and a listing of more than 32 KiB in the middle."""
    for length in (*range(1, 256, 3), 255):
        fill_parents(top / ("n" * length), 6)
    for i in range(1500):
        (top / "n" / f"file-with-a-long-name-{i}").touch()


def same(top: Path) -> None:
    """The same names everywhere, links to directories, and a directory that nobody may read."""
    for i in range(30):
        for j in range(4):
            for name in ("include", "__pycache__", "src"):
                fill_parents(top / f"module{i}" / f"part{j}" / name, 2 + (i + j) % 9)
            fill_parents(top / f"module{i}" / f"part{j}", 8)
        (top / f"module{i}" / "include").symlink_to("part0/include")
    (top / "module7" / "part1").chmod(0)


def fill_parents(folder: Path, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, files)


SHAPES = {"deep": deep, "wide": wide, "named": named, "same": same}


@pytest.fixture(scope="module")
def shape_of(folder: Path) -> Callable[[str], Path]:
    """A tree of this shape, made once."""

    def made(shape: str) -> Path:
        top = folder / shape
        if not top.exists():
            SHAPES[shape](top)
            quiet(top)
        return top

    return made


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_real_programs(
    usual: Walking, shape_of: Callable[[str], Path], program: str, shape: str
) -> None:
    words = command(program, shape_of(shape))
    truth = usual.native(*words)
    for _ in range(2):
        assert usual.cosy(*words) == truth


@pytest.mark.parametrize("program", ["find-size", "du", "ls"])
def test_real_programs_take_what_was_read_ahead(
    usual: Walking, shape_of: Callable[[str], Path], program: str
) -> None:
    usual.both(*command(program, shape_of("same")))


@pytest.mark.soak
@pytest.mark.parametrize("program", PROGRAMS)
def test_real_programs_many_times(usual: Walking, program: str) -> None:
    """One directory in a thousand taken for another of the same name would show."""
    words = command(program, Path("/usr"))
    for _ in range(20):
        truth, answer = usual.native(*words), usual.cosy(*words)
        assert answer == truth or usual.native(*words) != truth


# --- ends of directories ----------------------------------------------------


def ends_say_so(path: Path) -> None:
    """A skip where the last entry does not tell that nothing is behind it."""
    fd = os.open(path, os.O_RDONLY)
    ctypes.CDLL(None).syscall(GETDENTS64, fd, ctypes.create_string_buffer(1 << 15), 1 << 15)
    last = os.lseek(fd, 0, os.SEEK_CUR)
    os.close(fd)
    if last != 0x7FFFFFFFFFFFFFFF:
        pytest.skip("the last entry of a directory of this file system is like the others")


GETDENTS64 = 217
INLINE = {"executors": "bpf+inline"}
NOT_INLINE = {"executors": "bpf"}


@pytest.mark.parametrize("kind", [*POSITIONS, *PROCESSES, *SIGNALS[:2]])
def test_ends_known_without_asking(walking: Walking, victim: Path, plain: Path, kind: str) -> None:
    ends_say_so(plain)
    truth = walking.native(victim, kind, plain)
    assert walking.cosy(victim, kind, plain, orders=INLINE) == truth
    assert walking.counted(ENDS_AT) > FEW
    assert walking.cosy(victim, kind, plain, orders=NOT_INLINE) == truth
    assert walking.counted(ENDS_AT) == 0
