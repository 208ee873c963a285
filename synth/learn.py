# SPDX-License-Identifier: MIT
"""What `cosy-auto --learn` leaves running: raw trace to dataset to motifs to a stored profile.

`python -m synth.learn FOLDER` reads the raw files in FOLDER, stores a profile for each program that
ran and is worth one, and removes FOLDER. The launcher starts it at the lowest priority, with its
output in the cache folder's learn.log.
"""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from synth.errors import SynthError


def learn(folder: Path) -> list[Path]:
    """Store profiles from the raw trace in `folder`; returns the images written.

    Raises SynthError when nothing can be learnt from it.
    """
    from miner.cost import Calibration
    from miner.mine import mine
    from miner.motifs import Motif, MotifFile
    from synth.store import save
    from synth.synthesize import synthesize
    from tracer.raw import RawError
    from tracer.target import DatasetError

    dataset = folder / "run.cosytrace"
    try:
        _convert(folder, dataset)
        found = mine([dataset], Calibration())
    except (DatasetError, RawError, OSError) as error:
        raise SynthError(f"cannot learn from {folder}: {error}") from None

    def programs(motif: Motif) -> Iterator[str]:
        return (motif.build_ids[e] for e in motif.instances_by_program if e in motif.build_ids)

    images = []
    for build_id in sorted({b for motif in found.motifs for b in programs(motif)}):
        own = [motif for motif in found.motifs if build_id in programs(motif)]
        mined: MotifFile = replace(found, motifs=own)
        profile, decisions = synthesize([mined])
        for decision in decisions:
            print(f"{build_id}: {', '.join(decision.motifs)}: {decision.reason}", file=sys.stderr)
        if profile.compounds:
            images.append(save(profile, build_id))
    return images


def _convert(folder: Path, dataset: Path) -> None:
    from tracer.convert import write_dataset
    from tracer.dataset import Writer
    from tracer.raw import read_folder

    raw = read_folder(folder)
    meta = {
        "backend": "shim",
        "kernel": os.uname().release,
        "clock": "tsc, CLOCK_MONOTONIC",
        "command": [],
        "recorded": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "wall_ns": 0,
        "tool_version": "cosy-auto --learn",
    }
    with Writer(dataset) as writer:
        write_dataset(raw, writer, meta)


def main(argv: list[str]) -> int:
    """Exit code: 0 done, 1 nothing could be learnt, 2 wrong usage."""
    if len(argv) != 2:
        print("usage: python -m synth.learn FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[1])
    try:
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
