#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records the datasets of this folder again, as programs.toml says.

    datasets/record.py [NAME...]

Needs cosy-trace: beside this Python, in ../.venv/bin, or in $PATH. Debian packages that
are missing are installed when root runs it, named otherwise. Everything happens
in /tmp/cosy-datasets, with an environment that names no user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = Path("/tmp/cosy-datasets")
MAX_BYTES = 2_000_000
DEADLINE_S = 300


class RecordError(Exception):
    """One line: what failed, on what, what to do about it."""


def cosy_trace() -> str:
    """Return the command; raises RecordError."""
    places = [Path(sys.executable).parent, HERE.parent / ".venv" / "bin"]
    for place in places:
        if (place / "cosy-trace").exists():
            return str(place / "cosy-trace")
    found = shutil.which("cosy-trace")
    if not found:
        raise RecordError("no cosy-trace: run `make setup`")
    return found


def install(packages: set[str]) -> None:
    """Install what is missing; raises RecordError."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]
    lines = subprocess.run(query, stdout=subprocess.PIPE, text=True, check=True).stdout
    have = {line.split()[0] for line in lines.splitlines() if line.endswith(" installed")}
    missing = sorted(packages - have)
    if not missing:
        return
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "-qq"]
    command = [*apt, "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise RecordError(f"missing packages: as root: apt-get install {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*apt, "update"], env=env, check=False)
    if subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode:
        raise RecordError(f"cannot install: {' '.join(missing)}: see above")


def environment() -> dict[str, str]:
    """Return what the recorded programs see: nothing of whoever records."""
    home = WORK / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "CORPUS": str(WORK / "corpus"),
    }


def prepare(name: str, script: str, env: dict[str, str]) -> Path:
    """Make the program's folder anew; raises RecordError."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run(["sh", "-eu", "-c", script], cwd=folder, env=env, check=False)
    if done.returncode:
        raise RecordError(f"setup failed: {name}: exit code {done.returncode}: see above")
    return folder


def record(name: str, program: dict[str, Any], env: dict[str, str], trace: str) -> str:
    """Record one program; returns a line that says what came of it. Raises RecordError."""
    folder = prepare(name, program.get("setup", ""), env)
    # A scratch place first: the dataset is replaced only by a good one.
    fresh = WORK / f"{name}.cosytrace"
    shutil.rmtree(fresh, ignore_errors=True)
    words = [string.Template(word).safe_substitute(env) for word in program["command"]]
    log = WORK / f"{name}.log"
    with log.open("w") as err:
        process = subprocess.Popen(
            [trace, "-o", str(fresh), *words],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
        if "drive" in program:
            drive = ["sh", "-eu", "-c", program["drive"]]
            driven = subprocess.run(drive, cwd=folder, env=env, timeout=DEADLINE_S, check=False)
            process.send_signal(signal.SIGTERM)
            if driven.returncode:
                raise RecordError(f"drive failed: {name}: exit code {driven.returncode}")
        process.wait(DEADLINE_S)
    if not fresh.is_dir():
        raise RecordError(f"not recorded: {name}: see {log}")
    return check(name, fresh, process.returncode)


def check(name: str, fresh: Path, code: int) -> str:
    """Put a good dataset in its place; raises RecordError for another one."""
    import pyarrow.parquet as parquet

    meta = json.loads((fresh / "meta.json").read_text())
    size = sum(path.stat().st_size for path in fresh.iterdir())
    if meta["lost_events"]:
        raise RecordError(f"events lost: {name}: {meta['lost_events']}: free space in /dev/shm?")
    if size > MAX_BYTES:
        raise RecordError(f"too large: {name}: {size} bytes, at most {MAX_BYTES}: record less")
    target = HERE / fresh.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(fresh, target)
    events = parquet.read_metadata(target / "events.parquet").num_rows
    return f"{name:20} {events:8,} calls {size / 1000:8.1f} kB  exit {code}"


def main(names: list[str]) -> int:
    """Record these programs, or all; the exit code says whether all went well."""
    table = tomllib.loads((HERE / "programs.toml").read_text())
    programs: dict[str, Any] = table["programs"]
    unknown = [name for name in names if name not in programs]
    if unknown:
        print(f"record: unknown: {' '.join(unknown)}: see programs.toml", file=sys.stderr)
        return 2
    chosen = names or list(programs)
    failed = 0
    try:
        trace = cosy_trace()
        wanted = {p for name in chosen for p in programs[name]["packages"]}
        install(wanted | set(table["corpus"]["packages"]))
        WORK.mkdir(exist_ok=True)
        env = environment()
        prepare("corpus", table["corpus"]["setup"], env)
        for name in chosen:
            try:
                print(record(name, programs[name], env, trace), flush=True)
            except (RecordError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"record: {error}", file=sys.stderr)
    except RecordError as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
