# SPDX-License-Identifier: MIT
"""What `cosy-auto --learn` leaves running: raw trace to dataset to motifs to a stored profile.

`python -m synth.learn FOLDER` reads the raw files in FOLDER, adds them to what is known of each
program that ran, and removes FOLDER. The launcher starts it at the lowest priority, with its output
in the cache folder's learn.log. It is bounded: one at a time, so much CPU time, so large a trace.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from synth.errors import SynthError

MOST_RAW_BYTES: Final = 1 << 30
MOST_CPU_S: Final = 600
LEFT_BEHIND_S: Final = 24 * 3600  # folders of learners that were killed


def learn(folder: Path) -> list[Path]:
    """Store profiles from the raw trace in `folder`; returns the images written.

    Costs are those that `cosy-doctor --calibrate` measured here, if it did. Raises SynthError when
    nothing can be learnt from it.
    """
    from miner.cost import CalibrationError, here
    from miner.mine import mine
    from miner.motifs import Motif, MotifFile
    from synth import store
    from tracer.raw import RawError
    from tracer.target import DatasetError

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_RAW_BYTES:
        raise SynthError(
            f"cannot learn from {folder}: {size >> 20} MiB of trace, at most "
            f"{MOST_RAW_BYTES >> 20}: use cosy-trace and cosy-mine"
        )
    try:
        costs = here()
        found = mine([_convert(folder)], costs)
    except (CalibrationError, DatasetError, RawError, OSError) as error:
        raise SynthError(f"cannot learn from {folder}: {error}") from None

    def programs(motif: Motif) -> Iterator[tuple[str, str]]:
        for exe in motif.instances_by_program:
            if exe in motif.build_ids:
                yield motif.build_ids[exe], exe

    images = []
    for build_id, exe in sorted({each for motif in found.motifs for each in programs(motif)}):
        own = [motif for motif in found.motifs if (build_id, exe) in programs(motif)]
        mined: MotifFile = replace(found, motifs=own)
        known, decisions = store.learn(build_id, exe, mined)
        for decision in decisions:
            print(f"{exe}: {', '.join(decision.motifs)}: {decision.reason}", file=sys.stderr)
        if known.image.exists():
            images.append(known.image)
    return images


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One learner of a user at a time; folders that others left behind go."""
    lock = os.open(folder.parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in folder.parent.iterdir():
            with contextlib.suppress(OSError):
                if other.is_dir() and other.stat().st_mtime < time.time() - LEFT_BEHIND_S:
                    shutil.rmtree(other, ignore_errors=True)
        yield
    finally:
        os.close(lock)


def _convert(folder: Path) -> Path:
    """The dataset, named by the program that was run and when: profiles say where they are from."""
    from tracer.convert import write_dataset
    from tracer.dataset import Dataset, Writer
    from tracer.raw import read_folder

    raw = read_folder(folder)
    now = datetime.datetime.now().astimezone()
    dataset = folder / "run.cosytrace"
    meta = {
        "backend": "shim",
        "kernel": os.uname().release,
        "clock": "tsc, CLOCK_MONOTONIC",
        "command": [],
        "recorded": now.isoformat(timespec="seconds"),
        "wall_ns": 0,
        "tool_version": "cosy-auto --learn",
    }
    with Writer(dataset) as writer:
        write_dataset(raw, writer, meta)
    exes = Dataset(dataset).processes().sort_by("start_ns")["exe"].to_pylist()
    program = Path(exes[0]).name if exes and exes[0] else "run"
    return dataset.rename(folder / f"{program}-{now:%Y-%m-%d-%H%M}.cosytrace")


def main(argv: list[str]) -> int:
    """Exit code: 0 done, 1 nothing could be learnt, 2 wrong usage."""
    if len(argv) != 2:
        print("usage: python -m synth.learn FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 10))
    try:
        with _alone(folder):
            for image in learn(folder):
                print(f"stored {image}", file=sys.stderr)
    except SynthError as error:
        print(f"cosy-auto: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
