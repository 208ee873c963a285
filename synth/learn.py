# SPDX-License-Identifier: MIT
"""What `cosy-auto --learn` leaves running: raw trace to dataset to motifs to a stored profile.

`python -m synth.learn QUEUE [LOCK]` works off the recordings in the folder QUEUE, oldest first:
each is added to what is known of the programs that ran, and removed. Names tell how far a recording
is (shim/launcher/learn.c). The launcher starts a learner at the lowest priority, with its output in
the cache folder's learn.log, if no other one holds the queue's lock; LOCK is the descriptor on
which it holds it already. A recording is mined by a child, which has so much CPU time.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from synth.errors import SynthError

RECORDING: Final = "rec-"
DUE: Final = "due-"
MINING: Final = "now-"
STOP: Final = "stop"  # the shim's sign that recording has ended (shim/adopt.c)
MOST_CPU_S: Final = 600
YOUNG_S: Final = 60  # a folder may be this old before whoever made it has locked it
LEFT_BEHIND_S: Final = 24 * 3600  # of anything else in the queue


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


def _convert(folder: Path) -> Path:
    """The dataset, named by the program that was run and when: profiles say where they are from."""
    from tracer import processes
    from tracer.convert import write_dataset
    from tracer.dataset import Writer
    from tracer.raw import read_folder

    raw = read_folder(folder)
    first = min(processes.find(raw).images, key=lambda image: image.start_tsc, default=None)
    command = [os.fsdecode(word) for word in first.argv] if first else []
    program = Path(os.fsdecode(first.exe)).name if first and first.exe else "run"
    now = datetime.datetime.now().astimezone()
    cut = was_cut(folder)
    name = f"{program}-{now:%Y-%m-%d-%H%M}{'-cut' if cut else ''}"
    print(
        f"{now:%Y-%m-%d %H:%M} {name}: {raw.n_calls:,} calls"
        + (", cut: the program made more than are recorded at most" if cut else ""),
        file=sys.stderr,
    )
    dataset = folder / f"{name}.cosytrace"
    meta = {
        "backend": "shim",
        "kernel": os.uname().release,
        "clock": "tsc, CLOCK_MONOTONIC",
        "command": [word.encode("utf-8", "replace").decode() for word in command],
        "recorded": now.isoformat(timespec="seconds"),
        "wall_ns": 0,
        "tool_version": "cosy-auto --learn",
    }
    with Writer(dataset) as writer:
        write_dataset(raw, writer, meta)
    return dataset


def was_cut(folder: Path) -> bool:
    """Whether the recording ended before its program, since it was large enough."""
    try:
        return (folder / STOP).read_bytes().startswith(b"cut")
    except OSError:
        return False


# -- the queue ---------------------------------------------------------------------------------


def work_off(queue: Path, lock: int) -> bool:
    """Mine all that is due, and what comes meanwhile; says whether all could be learnt from.

    `lock` is the descriptor of the queue's lock file, held; it is given up in the end.
    """
    good = True
    while True:
        _tidy(queue)
        while recordings := _due(queue):
            good = _attempt(recordings[0]) and good
        # A launcher that finds the lock taken leaves its recording to us: look again without it.
        fcntl.flock(lock, fcntl.LOCK_UN)
        if not _due(queue) or not _take(lock):
            return good


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _due(queue: Path) -> list[Path]:
    """What waits, oldest first."""
    found = []
    for path in queue.glob(f"{DUE}*"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _tidy(queue: Path) -> None:
    """Take up, or remove, what killed ones left: nobody else holds the queue's lock."""
    for path in sorted(queue.iterdir()):
        try:
            age_s = time.time() - path.stat().st_mtime
        except OSError:
            continue
        if path.name.startswith(MINING):
            # It may be what killed the learner: not again.
            print(f"{path.name}: its learner was killed: removed", file=sys.stderr)
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(RECORDING):
            if age_s > YOUNG_S and not _kept(path):
                (path / STOP).touch(mode=0o600)
                path.rename(queue / (DUE + path.name.removeprefix(RECORDING)))
        elif path.is_dir() and not path.name.startswith(DUE) and age_s > LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)


def _kept(recording: Path) -> bool:
    """Whether its keeper lives."""
    fd = os.open(recording, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not _take(fd)
    finally:
        os.close(fd)


def _attempt(recording: Path) -> bool:
    """Learn from one, in a child: what it needs of time and memory is its own."""
    folder = recording.rename(recording.with_name(MINING + recording.name.removeprefix(DUE)))
    child = os.fork()
    if not child:
        os._exit(_child(folder))
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        print(f"{folder.name}: its learner was ended by {name}: removed", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    return status == 0


def _child(folder: Path) -> int:
    # The lock stays with us as well: as long as we are at it nobody else begins.
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    try:
        for image in learn(folder):
            print(f"stored {image}", file=sys.stderr)
    except SynthError as error:
        print(f"cosy-auto: {error}", file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stderr.flush()
    return 0


def main(argv: list[str]) -> int:
    """Exit code: 0 done, or somebody else is at it; 1 of something nothing could be learnt; 2 wrong
    usage.
    """
    if len(argv) not in (2, 3):
        print("usage: python -m synth.learn QUEUE [LOCK]", file=sys.stderr)
        return 2
    queue = Path(argv[1])
    if len(argv) == 3:
        lock = int(argv[2])
    else:
        lock = os.open(queue / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _take(lock):
            return 0
    return 0 if work_off(queue, lock) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
