# SPDX-License-Identifier: MIT
"""How much of the time inside calls the ten largest motifs cover, in fresh traces of real programs.

Each program is recorded now, on files that are made for it, and mined. Programs that are not
installed are named and left out.

    python -m bench.shares [PROGRAM...]
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import miner
from bench.harness import save, script

PORT = 18490
GOAL = 0.8
RECORDINGS = 5  # of each program; the median counts, as the disk's own pauses are large
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{ access_log {folder}/access.log; server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""


@dataclass(frozen=True)
class Run:
    """A program to record: how its folder is prepared, and whether file work is all it does."""

    command: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda _: None
    files: bool = True
    server: bool = False


def _tree(folder: Path) -> None:
    """Source files of the Python library."""
    library = Path(os.__file__).parent
    for name in ("json", "email", "asyncio", "http", "xml", "unittest"):
        shutil.copytree(
            library / name, folder / "tree" / name, ignore=shutil.ignore_patterns("*.pyc")
        )


def _repository(folder: Path) -> None:
    _tree(folder)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run(["git", *who, *words], cwd=folder / "tree", check=True)


def _source(folder: Path) -> None:
    (folder / "main.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/stat.h>\n"
        '#include <pthread.h>\nint main(void) { puts(getenv("HOME")); return 0; }\n'
    )


def _sql(folder: Path) -> None:
    rows = "\n".join(f"insert into t values ({i}, hex(randomblob(300)));" for i in range(2000))
    (folder / "script").write_text(
        f"create table t(k integer primary key, v text);\nbegin;\n{rows}\ncommit;\n"
        "pragma cache_size = 10;\nselect count(*) from t where v like '%ABCD%';\n"
    )


def _site(folder: Path) -> None:
    (folder / "www").mkdir()
    for i in range(100):
        (folder / "www" / f"{i}.html").write_text("x" * 37 * i)
    (folder / "conf").write_text(_NGINX.format(folder=folder, port=PORT))


RUNS = {
    "git status": Run(("git", "-C", "tree", "status", "--short"), _repository),
    "rsync": Run(("rsync", "-a", "tree/", "copy/"), _tree),
    "sqlite3": Run(("sqlite3", "-init", "/dev/null", "db", ".read script"), _sql),
    "compileall": Run(("/usr/bin/python3", "-m", "compileall", "-q", "-f", "tree"), _tree),
    "nginx": Run(("nginx", "-e", "stderr", "-c", "{folder}/conf"), _site, server=True),
    "gcc": Run(("gcc", "-O2", "-o", "main", "main.c"), _source, files=False),
}


def _ask(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask the server for every page three times, then stop it."""
    for attempt in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/1.html").read()
            break
        except OSError:
            time.sleep(0.05 * (attempt < 99))
    for i in range(300):
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{i % 100}.html").read()
    for child in children:
        child.send_signal(signal.SIGTERM)


def record(run: Run, folder: Path) -> Path:
    """Prepare, run under cosy-trace, return the dataset."""
    run.prepare(folder)
    target = folder / "run.cosytrace"
    command = [word.format(folder=folder) for word in run.command]
    trace = [script("cosy-trace"), "-o", str(target), *command]
    with subprocess.Popen(
        trace, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        if run.server:
            _ask([child])
        child.wait(timeout=120)
    return target


def main(names: Sequence[str]) -> None:
    """Record, mine, print a line for each program, save them all."""
    rows: dict[str, dict[str, object]] = {}
    for name, run in RUNS.items():
        if names and name not in names:
            continue
        if not shutil.which(run.command[0]):
            print(f"{name:<12} not installed: apt-get install {run.command[0]}")
            continue
        found = []
        for _ in range(RECORDINGS):
            with tempfile.TemporaryDirectory(prefix="cosy-shares-") as folder:
                found.append(miner.load(record(run, Path(folder)), workers=1))
        covered = sorted(one.coverage(10) for one in found)
        middle = covered[RECORDINGS // 2]
        total = sum(int(one.traces.time_ns.sum()) for one in found)
        own: Counter[str] = Counter()
        for one in found:
            own.update(dict(zip(one.motifs.name, one.motifs.own_ns.tolist(), strict=True)))
        shares = {motif: round(ns / total, 3) for motif, ns in own.most_common(4)}
        calls = int(found[0].traces.events.sum())
        lost = sum(int(one.traces.lost_events.sum()) for one in found)
        rows[name] = {"covered": covered, "calls": calls, "lost": lost, "motifs": shares}
        what = ", ".join(f"{motif} {share:.0%}" for motif, share in shares.items())
        mark = "" if middle >= GOAL or not run.files else "  BELOW THE GOAL"
        print(
            f"{name:<12}{calls:>8,} calls {middle:>5.0%} ({covered[0]:.0%} to {covered[-1]:.0%})"
            f"{mark}  {what}"
        )
    print(f"saved {save('shares', rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
