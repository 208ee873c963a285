# SPDX-License-Identifier: MIT
"""Reading strace's output: each form of a line, and what is no line of it."""

from __future__ import annotations

import json
import os
import random
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from miner import cli as mine_cli
from tracer import dirents, import_strace, show, strace_blocks, strace_text
from tracer.convert import write_dataset
from tracer.dataset import Dataset, Writer
from tracer.strace_blocks import Sorted
from tracer.strace_text import Importer, split, split_nested
from tracer.strace_words import number, unescape
from tracer.stream import StreamWriter, read_stream
from tracer.syscalls import name_of


def imported(folder: Path, text: str) -> tuple[list[dict[str, Any]], Dataset, Importer]:
    """Events, dataset and importer of this text."""
    with StreamWriter(folder / "s") as writer:
        importer = Importer(writer)
        for _ in importer.read(text.encode("latin-1").splitlines(keepends=True)):
            pass
    meta: dict[str, Any] = {"backend": "strace", "kernel": "", "clock": ""}
    meta |= {"command": importer.command, "recorded": "", "wall_ns": 0, "tool_version": ""}
    with Writer(folder / "d") as out:
        write_dataset(read_stream(folder / "s"), out, meta, importer.inherited, importer.ends)
    data = Dataset(folder / "d")
    return data.events().to_pylist(), data, importer


START = '7 100000001.000000 execve("/bin/x", ["x", "-a"], 0x7ff /* 3 vars */) = 0 <0.000100>\n'


def test_a_plain_line(tmp_path: Path) -> None:
    line = '7 100000001.000200 openat(AT_FDCWD</tmp>, "a\\"b\\n", O_RDONLY|O_CLOEXEC) = 3</tmp/a>'
    events, data, importer = imported(tmp_path, START + line + " <0.000012>\n")
    event = events[0]
    assert (name_of(event["nr"]), event["ret"], event["path"]) == ("openat", 3, 'a"b\n')
    assert (event["t_ns"], event["dur_ns"]) == (100000001000200000, 12000)
    assert (event["a0"], event["a2"], event["pid"]) == (0xFFFFFF9C, 0o2000000, 7)
    assert event["site"] is None
    assert importer.unread == 0
    (process,) = data.processes().to_pylist()
    assert (process["exe"], process["argv"], process["cwd"]) == ("/bin/x", ["x", "-a"], "/tmp")


def test_lines_that_nobody_understands_are_in_each_summary(tmp_path: Path) -> None:
    text = tmp_path / "t"
    text.write_text(START + "7 1700000001.000300 nosuchcall(3) = 0 <0.000003>\n" * 3)
    data = tmp_path / "t.cosytrace"
    done = CliRunner().invoke(import_strace.main, ["-o", str(data), str(text)])
    assert done.exit_code == 1, "no calls at all"
    text.write_text(text.read_text() + "7 1700000001.000400 getpid() = 7 <0.000003>\n")
    done = CliRunner().invoke(import_strace.main, ["-o", str(data), str(text)])
    assert done.exit_code == 0, done.output
    said = "lost events: 0; lines not understood: 3"
    assert said in done.output
    assert said in CliRunner().invoke(show.main, [str(data)]).output
    shown = CliRunner().invoke(show.main, ["--json", str(data)]).output
    assert json.loads(shown)["unread_lines"] == 3
    mined = CliRunner().invoke(mine_cli.main, ["-o", str(tmp_path / "m"), str(data)])
    assert "lines not understood: 3" in " ".join(mined.output.split())


def test_times_are_as_exact_as_the_text(tmp_path: Path) -> None:
    text = (
        "1 1700000000.500000 getpid() = 1 <0.000001>\n1 1700000000.600001 getpid() = 1 <0.500003>\n"
    )
    events, _, importer = imported(tmp_path, text)
    assert [event["dur_ns"] for event in events] == [1000, 500003000]
    assert [event["t_ns"] for event in events] == [1700000000500000000, 1700000000600001000]
    assert importer.wall_ns == 600004000, "up to the end of the last call"


def test_the_wall_time_of_one_call_is_its_own(tmp_path: Path) -> None:
    _, _, importer = imported(tmp_path, '1 1700000000.5 read(3, "", 10) = 0 <0.500000>\n')
    assert importer.wall_ns == 500000000


RELATIVE = """\
7          0.000000 execve("/bin/x", ["x"], 0x7ff /* 3 vars */) = 0 <0.000100>
7          0.000200 read(3</a>, "x"..., 4096) = 17 <0.000004>
7          1.500000 clone(child_stack=NULL, flags=SIGCHLD) = 8 <0.000050>
8          0.000300 close(3</a>) = 0 <0.000003>
"""


@pytest.mark.parametrize("before", ["7     ", "12345 ", "[pid    7] ", ""])
def test_relative_times_add_up(tmp_path: Path, before: str) -> None:
    lines = RELATIVE.splitlines(keepends=True)
    text = "".join(before + line[6:] for line in lines)
    events, _, importer = imported(tmp_path, text)
    start = events[0]["t_ns"]
    assert [e["t_ns"] - start for e in events] == [0, 1500000000, 1500300000]
    assert importer.wall_ns == 1500503000
    assert importer.unread == 0


def test_what_other_options_add(tmp_path: Path) -> None:
    plain = [
        '7 1700000001.000000 execve("/bin/x", ["x"], 0x7ff /* 3 vars */) = 0 <0.000100>',
        '7 1700000001.000200 read(3</a>, "x"..., 4096) = 17 <0.000004>',
        "7 1700000001.000300 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>",
        "8 1700000001.000310 close(3</a> <unfinished ...>",
        "7 1700000001.000320 <... clone resumed>) = 8 <0.000020>",
        "8 1700000001.000330 <... close resumed>) = 0 <0.000020>",
        "8 1700000001.000340 +++ exited with 0 +++",
    ]
    (tmp_path / "plain").mkdir()
    expected, data, _ = imported(tmp_path / "plain", "".join(f"{line}\n" for line in plain))
    text = ""
    for line in plain:
        pid, time, rest = line.split(" ", 2)
        number = "" if rest.startswith("+++") else "[ 257] "
        text += f"{pid}<some name> {time} {number}[00007f49305e99f0] {rest}\n"
    events, named, importer = imported(tmp_path, text)
    assert events == expected
    assert named.processes()["ppid"].to_pylist() == data.processes()["ppid"].to_pylist() == [0, 7]
    assert importer.unread == 0


def test_text_that_is_cut_anywhere(tmp_path: Path) -> None:
    start = START.replace("7 10", "7 170")  # ten digits: read many at a time
    text = start + (
        '7 1700000001.000200 openat(AT_FDCWD</tmp>, "a", O_RDONLY) = 3</tmp/a> <0.000012>\n'
        '7 1700000001.000300 read(3</tmp/a>, "x"..., 4096) = 17 <0.000004>\n'
        "7 1700000001.000400 close(3</tmp/a>) = 0 <0.000003>\n"
    )
    for at in range(len(start), len(text)):
        (tmp_path / str(at)).mkdir()
        events, _, importer = imported(tmp_path / str(at), text[:at])
        whole = text[:at].count("\n") - 1
        # Of the last line there may be enough to read it.
        assert whole <= len(events) <= whole + 1
        assert len(events) + importer.unread <= whole + 1


def test_lines_that_end_as_on_other_systems(tmp_path: Path) -> None:
    start = START.replace("7 10", "7 170")
    line = '7 1700000001.000300 read(3</tmp/a>, "x"..., 4096) = 17 <0.000004>\n'
    (tmp_path / "cr").mkdir()
    expected = imported(tmp_path, start + line * 3)[0]
    events, _, importer = imported(tmp_path / "cr", (start + line * 3).replace("\n", "\r\n"))
    assert events == expected
    assert importer.unread == 0


def test_errors_restarts_and_hexadecimal_results(tmp_path: Path) -> None:
    text = START + (
        '7 100000001.1 stat("/none", 0x7ffc) = -1 ENOENT (No such file or directory) <0.000004>\n'
        "7 100000001.2 read(0</dev/pts/1>, 0x5, 10) = ? ERESTARTSYS (To be restarted if SA_RESTART"
        " is set) <1.5>\n"
        "7 100000001.3 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = "
        "0x7f0000001000 <0.000007>\n"
        "7 100000001.4 --- SIGINT {si_signo=SIGINT, si_code=SI_KERNEL} ---\n"
        "7 100000001.5 exit_group(3) = ?\n"
        "7 100000001.6 +++ exited with 3 +++\n"
    )
    events, data, importer = imported(tmp_path, text)
    assert [e["ret"] for e in events] == [-2, -512, 0x7F0000001000, None]
    assert (events[2]["a2"], events[2]["a3"], events[2]["a4"]) == (3, 0x22, 2**64 - 1)
    assert events[0]["path"] == "/none"
    assert data.processes()["exit"].to_pylist() == [3 << 8]
    assert importer.unread == 0
    kinds = {o["path"]: o["kind"] for o in data.objects().to_pylist()}
    assert kinds["/dev/pts/1"] == "tty"


def test_unfinished_and_resumed_calls_of_two_tasks(tmp_path: Path) -> None:
    text = START + (
        "7 100000002.0 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>\n"
        "8 100000002.1 read(3</a>,  <unfinished ...>\n"
        "7 100000002.2 <... clone resumed>, child_tidptr=0x7f) = 8 <0.2>\n"
        '8 100000002.3 <... read resumed>"xyz", 100) = 3 <0.2>\n'
        "8 100000002.4 futex(0x7f, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>\n"
        "8 100000002.5 +++ killed by SIGKILL +++\n"
    )
    events, data, importer = imported(tmp_path, text)
    assert importer.unread == 0
    assert [(e["pid"], name_of(e["nr"]), e["ret"]) for e in events] == [
        (7, "clone", 8),
        (8, "read", 3),
        (8, "futex", None),
    ]
    assert (events[1]["a0"], events[1]["a2"], events[1]["dur_ns"]) == (3, 100, 200_000_000)
    child = data.processes().to_pylist()[-1]
    assert (child["ppid"], child["exit"], child["exe"]) == (7, 9, "/bin/x")


def test_a_thread_belongs_to_its_process(tmp_path: Path) -> None:
    flags = "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM"
    text = START + (
        f"7 100000002.0 clone3({{flags={flags}, child_tid=0x7f}}, 88 <unfinished ...>\n"
        "9 100000002.1 getpid() = 7 <0.000001>\n"
        "7 100000002.2 <... clone3 resumed> => {parent_tid=[9]}, 88) = 9 <0.2>\n"
    )
    events, data, _ = imported(tmp_path, text)
    assert {(e["pid"], e["tid"]) for e in events} == {(7, 7), (7, 9)}
    assert len(data.processes()) == 1


def test_attributes_names_and_pairs(tmp_path: Path) -> None:
    text = START + (
        '7 100000002.0 newfstatat(3</d>, "n", {st_dev=makedev(0x8, 0x1), st_ino=42, '
        "st_mode=S_IFREG|0644, st_nlink=1, st_size=99, ...}, AT_SYMLINK_NOFOLLOW) = 0 <0.000001>\n"
        '7 100000002.1 getdents64(3</d>, [{d_ino=1, d_off=1, d_reclen=24, d_type=DT_DIR, d_name="."'
        '}, {d_ino=2, d_off=2, d_reclen=24, d_type=DT_REG, d_name="n"}], 32768) = 48 <0.000001>\n'
        "7 100000002.2 pipe2([5, 6], O_CLOEXEC) = 0 <0.000001>\n"
        '7 100000002.3 write(6<pipe:[11]>, "x", 1) = 1 <0.000001>\n'
    )
    events, data, importer = imported(tmp_path, text)
    assert importer.unread == 0
    stat = events[0]
    assert (stat["st_mode"], stat["st_size"], stat["st_ino"]) == (0o100644, 99, 42)
    assert (stat["a3"], stat["bytes_out"]) == (0x100, 144)
    assert events[1]["names"] == dirents.hashes([(b"n", 8)]).tolist()
    kinds = {o["object_id"]: o["kind"] for o in data.objects().to_pylist()}
    assert kinds[events[3]["object_id"]] == "pipe"


def test_numbers_in_brackets_and_no_times(tmp_path: Path) -> None:
    text = (
        '[pid    12] close(3)   = 0\n[pid 12] open("x", O_RDONLY) = -1 EACCES (Permission denied)\n'
    )
    events, _, importer = imported(tmp_path, text)
    assert [(e["pid"], name_of(e["nr"]), e["ret"]) for e in events] == [
        (12, "close", 0),
        (12, "open", -13),
    ]
    assert events[0]["t_ns"] < events[1]["t_ns"]
    assert importer.unread == 0


def test_what_is_no_call_is_counted(tmp_path: Path) -> None:
    text = (
        START
        + "7 100000002.0 close(4) = 0\nhello\n7 100000002.0 nosuchcall(1) = 0\n"
        + "7 100000002.0 close(3\n\n"
    )
    events, _, importer = imported(tmp_path, text)
    assert len(events) == 1
    assert importer.unread == 3
    assert importer.lines == 6


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (b"0644", 0o644),
        (b"0x10", 16),
        (b"12", 12),
        (b"-1", 2**64 - 1),
        (b"3</a, b>", 3),
        (b"O_WRONLY|O_CREAT|O_TRUNC", 0o1101),
        (b"AT_FDCWD</tmp>", 0xFFFFFF9C),
        (b"0x1 /* FOO_ONE */", 1),
        (b"NULL", 0),
        (b"SOMETHING_ELSE", 0),
    ],
)
def test_numbers(word: bytes, value: int) -> None:
    assert number(word) == value


def test_a_structure_that_does_not_end_takes_no_longer() -> None:
    assert split(b"{" + b"aaaa, {b" * 5000) == [b"{" + b"aaaa, {b" * 5000]


def test_splitting() -> None:
    text = b'3</a, b>, "x, \\"y", {a=[1, 2], b=3}, [{iov_base="q)", iov_len=2}], 0 /* c, d */, A|B'
    assert len(split(text)) == 6
    assert unescape(b"a\\tb\\303\\x41\\0") == b"a\tb\xc3A\0"


@pytest.mark.parametrize(
    "text",
    [
        '3</tmp/a, b>, "x, y", 5',
        'AT_FDCWD</tmp>, "a\\"b", {st_mode=S_IFREG|0644, st_name="}", st_size=1}, 0',
        'AT_FDCWD</tmp>, "cut"..., 10',
        "3<socket:[1]>, [{events=EPOLLIN, data={u32=5}}], 2, -1",
        '{a={b=1}, c="{"}, "d", [1, 2]',
        'NULL, 4096, PROT_READ /* 0x1 */, "a/b"',
        "1, 2, ",
    ],
)
def test_both_ways_of_splitting_agree(text: str) -> None:
    assert split(text.encode()) == split_nested(text.encode())


MANY = """\
70 1700000000.000001 execve("/bin/x", ["x"], 0x7ffd /* 3 vars */) = 0 <0.000100>
70 1700000000.000002 getcwd("/w", 4096)       = 3 <0.000004>
70 1700000000.000003 openat(AT_FDCWD, "a, b(\\"c\\\\", O_RDONLY|O_CLOEXEC) = 4</w/a, b(c> <0.000004>
70 1700000000.000004 read(5</was/here>, "x)y\\"}"..., 100) = 9 <12.000004>
70 1700000000.000005 newfstatat(4</w>, "", {st_dev=makedev(0xfe, 0), \
st_ino=7, st_mode=S_IFREG|0644, st_nlink=1, st_uid=0, st_gid=0, st_blksize=4096, \
st_blocks=8, st_size=99, st_atime=1}, AT_EMPTY_PATH) = 0 <0.000004>
70 1700000000.000006 getdents64(4</w>, [{d_ino=1, d_off=1, \
d_reclen=24, d_type=DT_DIR, d_name="."}, \
{d_ino=2, d_off=2, d_reclen=24, d_type=DT_REG, d_name="n,m"}], 32768) = 48 <0.000004>
70 1700000000.000007 getdents64(4</w>, [], 32768) = 0 <0.000004>
70 1700000000.000008 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD) = 71 <0.000004>
71 1700000000.000009 read(0</dev/tty>,  <unfinished ...>
70 1700000000.000010 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 4</w>, 0) = 0x7f0000001000 <0.000004>
70 1700000000.000011 write(6<TCP:[1.2.3.4:1->1.2.3.4:2]>, "x", 1 <unfinished ...>
71 1700000000.000012 <... read resumed>"q", 1) = 1 <0.000020>
70 1700000000.000013 <... write resumed>)     = 1 <0.000004>
71 1700000000.000014 read(0</dev/tty>,  <unfinished ...>
71 1700000000.000015 <... read resumed>0x7ff, 1) = ? ERESTARTSYS (To be restarted) <0.000004>
71 1700000000.000016 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---
71 1700000000.000017 access("/no", R_OK)      = -1 ENOENT (No such file or directory) <0.000004>
71 1700000000.000018 pause( <unfinished ...>
71 1700000000.000019 +++ killed by SIGKILL +++
70 1700000000.000020 --- SIGCHLD {si_signo=SIGCHLD, si_pid=71, si_status=SIGKILL} ---
70 1700000000.000021 nobody_knows(1)          = 0 <0.000004>
70 1700000000.000022 fcntl(1</dev/null>, F_GETFL) = 0x8002 (flags O_RDWR|O_LARGEFILE) <0.000004>
70 1700000000.000023 pipe2([7<pipe:[12]>, 8<pipe:[12]>], O_CLOEXEC) = 0 <0.000004>
70 1700000000.000024 close(3)                 = 0 <0.000004>
71 1700000000.000025 read(3, "", 10)          = 0
70 1700000000.000026 exit_group(0)            = ?
70 1700000000.000027 +++ exited with 0 +++
"""


def line_by_line(lines: Sequence[bytes], *_rest: object) -> Sorted:
    return Sorted([], [], [], list(enumerate(lines)))


def stream_of(folder: Path, text: bytes) -> tuple[bytes, object]:
    out = folder / "stream"
    out.unlink(missing_ok=True)
    with StreamWriter(out) as writer:
        importer = Importer(writer)
        for _ in importer.read(text.splitlines(keepends=True)):
            pass
    said = (importer.inherited, importer.ends, importer.command, importer.lines, importer.unread)
    return out.read_bytes(), said


def variants() -> list[bytes]:
    """Lines as they are, in other orders, and damaged."""
    whole = MANY.encode()
    lines = whole.splitlines(keepends=True)
    whole_calls = [at for at, line in enumerate(lines) if not re.search(rb"resumed|unfin", line)]
    rng = random.Random(7)
    found = [whole, whole * 3, whole.replace(b"> ", b">"), re.sub(rb" <\d+\.\d+>", b"", whole)]
    found.append(b"".join(line[3:] for line in lines if line.startswith(b"70")))
    for _ in range(60):
        damaged = [bytearray(line) for line in lines]
        for _ in range(rng.randrange(1, 12)):
            line = damaged[rng.choice(whole_calls)]
            line[rng.randrange(27, len(line) - 1)] = rng.choice(b'"\\,({<> =-0a')
        found.append(b"".join(damaged))
        left = rng.randrange(1, len(lines))
        found.append(b"".join(lines[:left] + lines[left + 1 :]))
    return found


def test_many_lines_at_once_are_read_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = variants()
    at_once = []
    for block_lines in (strace_text.BLOCK_LINES, 3):
        monkeypatch.setattr(strace_text, "BLOCK_LINES", block_lines)
        at_once.append([stream_of(tmp_path, text) for text in texts])
    lines = MANY.encode().splitlines(keepends=True)
    plain = strace_blocks.sort(lines, {70, 71}, frozenset(), bool)
    assert strace_blocks.parse(plain.plain).good.sum() >= 14
    monkeypatch.setattr(strace_blocks, "sort", line_by_line)
    for text, *found in zip(texts, *at_once, strict=True):
        expected = stream_of(tmp_path, text)
        assert found == [expected, expected], text.decode("latin-1")


def test_a_device_with_minor_zero_is_known(tmp_path: Path) -> None:
    found, _ = stream_of(tmp_path, MANY.encode())
    assert struct.pack("<QQQ", os.makedev(0xFE, 0), 7, 99) in found
