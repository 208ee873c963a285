# SPDX-License-Identifier: MIT
"""From the trace of a program to a profile that runs it: the commands, as a user types them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bench.harness import script
from bench.never_slower import adversary
from tests.conftest import DEADLINE_S, Compiler, plain_environment

FILES = 400


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own, so that no profile of this user's is used or changed."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    kept = plain_environment()
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        kept.pop(name, None)
    return {**kept, "HOME": str(home)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories with files of many sizes, links and a FIFO."""
    top = tmp_path_factory.mktemp("tree")
    for i in range(FILES):
        folder = top / f"folder{i % 8}" / f"deeper{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{i}").write_bytes(b"x" * (i * 37))
    (top / "link").symlink_to("folder0")
    os.mkfifo(top / "fifo")
    os.sync()
    return top


def call(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """One of our commands; a hang is a failure."""
    command = [script(str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, env=env, capture_output=True, timeout=DEADLINE_S, check=False)


PROGRAMS = [
    ("du", "-a"),
    ("ls", "-lRa"),
    ("find",),
    ("tar", "cf", "-"),
    (
        "python3",
        "-c",
        "import os, sys; print(sum(e.stat().st_size for e in os.scandir(sys.argv[1])))",
    ),
]


@pytest.fixture(scope="module")
def profile(env: dict[str, str], tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is learnt from a trace of du and one of ls."""
    folder = tmp_path_factory.mktemp("profile")
    traces = []
    for command in PROGRAMS[:2]:
        traces.append(folder / f"{command[0]}.cosytrace")
        done = call(env, "cosy-trace", "-o", traces[-1], *command, tree)
        assert done.returncode == 0, done.stderr
    motifs, image = folder / "both.motifs.json", folder / "both.img"
    done = call(env, "cosy-mine", *traces, "-o", motifs)
    assert done.returncode == 0, done.stderr
    done = call(env, "cosy-synth", motifs, "-o", image)
    assert done.returncode == 0, done.stderr
    return image


@pytest.mark.usefixtures("native_dir")
def test_the_profile_holds_the_loop_over_entries(env: dict[str, str], profile: Path) -> None:
    text = call(env, "cosy-synth", "show", profile).stdout.decode()
    assert "each e in entries(D)" in text
    assert "newfstatat(D, e.name" in text


@pytest.mark.usefixtures("native_dir")
def test_tracing_changes_nothing(env: dict[str, str], tree: Path, tmp_path: Path) -> None:
    native = subprocess.run(["ls", "-lRa", tree], env=env, capture_output=True, check=True)
    traced = call(env, "cosy-trace", "-o", tmp_path / "x.cosytrace", "ls", "-lRa", tree)
    assert (traced.stdout, traced.returncode) == (native.stdout, 0)


@pytest.mark.usefixtures("native_dir")
@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command[0])
def test_outputs_are_identical(
    env: dict[str, str], tree: Path, profile: Path, command: tuple[str, ...]
) -> None:
    native = subprocess.run([*command, tree], env=env, capture_output=True, check=False)
    for options in ((), ("--profile", str(profile)), ("--executor", "none")):
        under = call(env, "cosy-auto", *options, *command, tree)
        assert (under.stdout, under.stderr, under.returncode) == (
            native.stdout,
            native.stderr,
            native.returncode,
        )


@pytest.mark.usefixtures("executor")
def test_compounds_answer_most_questions(env: dict[str, str], tree: Path, profile: Path) -> None:
    done = call(env, "cosy-auto", "--stats", "--profile", profile, "ls", "-lRa", tree)
    assert b"served" in done.stderr
    numbers = [int(word) for word in done.stderr.replace(b",", b"").split() if word.isdigit()]
    assert max(numbers) >= FILES


@pytest.mark.usefixtures("executor")
def test_nothing_fires_for_a_copy(env: dict[str, str], tmp_path: Path) -> None:
    """It makes a file after each question: answers to the next ones would be dead at once."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(FILES):
        (source / f"file{i}").write_text(str(i))
    done = call(env, "cosy-auto", "--stats", "cp", "-r", source, tmp_path / "copy")
    assert done.returncode == 0
    assert b"executor runs       0, 0 results" in done.stderr
    copied = {path.name: path.read_text() for path in (tmp_path / "copy").iterdir()}
    assert copied == {f"file{i}": str(i) for i in range(FILES)}


@pytest.mark.usefixtures("executor")
def test_pointers_that_lead_nowhere(
    env: dict[str, str], compiled: Compiler, tmp_path: Path
) -> None:
    """The kernel says EFAULT; the shim, which looks first, must not fall over them."""
    for i in range(FILES):
        (tmp_path / f"a-name-of-some-length-{i}").touch()
    program = compiled("pointers.c")
    native = subprocess.run([program, tmp_path], env=env, capture_output=True, check=True)
    assert native.stdout.count(b"EFAULT") == 38
    under = call(env, "cosy-auto", "--stats", program, tmp_path)
    assert (under.stdout, under.returncode) == (native.stdout, 0)
    served = re.search(rb"dirscan-stat +[\d,]+ +[\d,]+ +([\d,]+)", under.stderr)
    assert served is not None
    assert int(served[1]) > FILES // 4


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("source", ["abs_path.c", "lent.c"])
def test_an_absolute_path_leads_where_it_leads_now(
    env: dict[str, str], compiled: Compiler, tmp_path: Path, source: str
) -> None:
    """What is known of a descriptor's directory is not of the one that has its path by now, nor of
    what a child of vfork opened under that descriptor in its parent's memory, also if the parent is
    a child of fork that asked nothing before."""
    program, top = compiled(source), tmp_path / "top"
    top.mkdir()
    under = call(env, "cosy-auto", "--stats", "--profile", adversary(tmp_path), program, top)
    assert under.stdout == b"20 20000\n"
    served = re.search(rb"dirscan-stat +[\d,]+ +[\d,]+ +([\d,]+)", under.stderr)
    assert served is not None
    assert int(served[1]) > 10


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize(("thread", "fires"), [((), True), (("thread",), False)])
def test_no_thread_meets_a_descriptor_that_is_not_the_programs(
    env: dict[str, str], compiled: Compiler, tmp_path: Path, thread: tuple[str], fires: bool
) -> None:
    """By path, a directory that the program closed must be opened, which others could see."""
    program, top = compiled("by_path.c", "-pthread"), tmp_path / "top"
    top.mkdir()
    for i in range(40):
        (top / f"f{i}").write_bytes(b"x" * i)
        (top / f"f{i}").stat()
    eager = adversary(tmp_path)
    under = call(env, "cosy-auto", "--stats", "--profile", eager, program, top, *thread)
    assert under.stdout == b"%d\n" % sum(range(40))
    found = re.search(rb"dirscan-stat +([\d,]+)", under.stderr)
    assert bool(found and int(found[1])) == fires


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("how", ["ftruncate", "truncate", "open", "creat", "collapse"])
def test_a_buffer_whose_file_was_cut(
    env: dict[str, str], compiled: Compiler, tmp_path: Path, how: str
) -> None:
    """The kernel says EFAULT where the program itself would die of a bus error."""
    program, tops = compiled("cut_buffer.c"), [tmp_path / name for name in ("one", "other")]
    for top in tops:
        top.mkdir()
        for i in range(FILES // 4):
            (top / f"f{i}").touch()
            (top / f"f{i}").stat()
    native = subprocess.run([program, how, *tops], env=env, capture_output=True, check=True)
    if native.stdout.startswith(b"not here"):
        pytest.skip(f"this file system cannot do it: {how}")
    assert native.stdout == (FILES // 4 - 8) * b"EFAULT\n"
    eager = adversary(tmp_path)
    under = call(env, "cosy-auto", "--stats", "--profile", eager, program, how, *tops)
    assert (under.returncode, under.stdout) == (0, native.stdout)
    found = re.search(rb"dirscan-stat +([\d,]+) +[\d,]+ +[\d,]+", under.stderr)
    assert found is not None
    assert int(found[1]) > 1


REST = """
import os, sys
top = sys.argv[1]
def names(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    found = sorted(os.listdir(fd))
    return fd, found
def ask(turn):
    # By descriptors whose numbers were others' while nobody looked.
    for d in range(40):
        fd, found = names(f'{top}/d{d}')
        for name in found:
            os.chmod(name, 0o600 + (d + turn) % 8 * 8, dir_fd=fd)
        print([oct(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode) for name in found])
        other = os.dup(fd)
        os.close(fd)
        print(os.stat(found[0], dir_fd=other).st_mode)
        os.close(other)
for turn in range(6):
    ask(turn)
    # Directories only, until the shim has seen enough of it.
    for again in range(60):
        for d in range(40):
            fd, found = names(f'{top}/d{d}')
            os.stat('..', dir_fd=fd)
            os.close(fd)
"""


@pytest.mark.usefixtures("executor")
def test_what_rests_wakes_up_to_the_truth(env: dict[str, str], tmp_path: Path) -> None:
    for d in range(40):
        (tmp_path / f"d{d}").mkdir()
        for i in range(12):
            (tmp_path / f"d{d}" / f"f{i}").write_bytes(b"x")
    command = ["python3", "-c", REST, str(tmp_path)]
    native = subprocess.run(command, env=env, capture_output=True, check=True)
    cosy = call(env, "cosy-auto", *command)
    assert (cosy.stdout, cosy.stderr, cosy.returncode) == (native.stdout, b"", 0)


LARGE, SMALL = 6000, 300


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory that no single run of the executor holds, and many that it does."""
    top = tmp_path_factory.mktemp("large")
    for i in range(SMALL):
        (top / "many" / f"folder-{i}").mkdir(parents=True)
        for k in range(i % 7):
            (top / "many" / f"folder-{i}" / f"file-{k}").write_bytes(b"x" * k)
    for i in range(LARGE):
        (top / "many" / f"file-{i * 7919}").touch()
    os.sync()
    # A change time that nobody saw yet is not told (multigrain timestamps).
    subprocess.run(["ls", "-lR", top], stdout=subprocess.DEVNULL, check=True)
    return top


def served(stderr: bytes) -> int:
    """Answers of all compounds, from what --stats prints."""
    table = stderr.replace(b",", b"").partition(b"served\n")[2].partition(b"  call site")[0]
    return sum(int(line.split()[-1]) for line in table.splitlines())


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize(
    "command",
    [("ls", "-lR"), ("du", "-a"), ("find", "-size", "+1"), ("tar", "cf", "-")],
    ids=lambda command: command[0],
)
def test_a_directory_larger_than_one_run(
    env: dict[str, str], large: Path, command: tuple[str, ...]
) -> None:
    words = [command[0], str(large), *command[1:]] if command[0] == "find" else [*command, large]
    native = subprocess.run(words, env=env, capture_output=True, check=False)
    under = call(env, "cosy-auto", *words)
    assert (under.stdout, under.returncode) == (native.stdout, native.returncode)
    # On a busy machine results may grow old meanwhile; that is not what this is about.
    counted = call(env, "cosy-auto", "--stats", "--max-age", "60000", *words)
    # Opening a file gives up its answers, and to watch it costs: an archive with contents is left
    # to the kernel sooner or later, as the pace is.
    share = 0.2 if command[0] == "tar" else 0.9
    assert served(counted.stderr) >= share * (LARGE + SMALL)


# Perl reads no directory of its own when it starts.
READING = """
my ($top, $n, $shown) = ($ARGV[0], 0, 0);
opendir(my $d, $top) or die;
while (defined(my $name = readdir $d)) {
    $shown += (lstat "$top/$name")[7] if $name =~ /length/ and $n++ < 40;
}
print "$shown\\n";
"""


@pytest.mark.usefixtures("executor")
def test_a_directory_that_is_still_read_is_not_run_over_whole(
    env: dict[str, str], tmp_path: Path
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for i in range(8000):
        (top / f"a-name-of-a-usual-length-{i}").touch()
    command = ["/usr/bin/perl", "-e", READING, str(top)]
    done = call(env, "cosy-auto", "--stats", *command)
    assert done.stdout == b"0\n"
    (row,) = [line for line in done.stderr.decode().splitlines() if "dirscan-stat " in line]
    fired, results, _ = (int(word.replace(",", "")) for word in row.split()[1:])
    # Some 500 names were known at the first question.
    assert fired >= 1
    assert results < 3000
