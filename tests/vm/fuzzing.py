# SPDX-License-Identifier: MIT
"""Fuzzes /dev/cosy in a virtual machine: `python -m tests.vm.fuzzing --kernel 6.1-debug`.

In each boot, a fifth of the time is a stress of right compounds from many processes at once, whose
results are checked (programs/stress.c), the rest random and nearly right requests (fuzz.c there).
Prints one line of JSON per boot: what was done, and by how much a deadline was overrun at worst; on
standard error what the kernel complained of. Exit code 1 if anything was found.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from kmod.vm import Disk, GuestError, Kernel, Machine, build_module, make_ext4, obtain
from kmod.vm.debug_kernel import SUFFIX, obtain_debug
from kmod.vm.log import excerpt, keep
from tests.vm.programs import build_program

DISK_MIB = 64
LEAKS_EVERY = 5
STRESS_PART = 5
# Boot and the way back: minutes for each in a debug kernel on a busy host.
AROUND_S = 900
SCRIPT = """
step() {{ echo "<4>fuzz: $*" >/dev/kmsg; }}
chmod 666 /dev/cosy
mkdir -p /tree
{mount}
chmod 777 /tree
step stress
/stress /tree {stress} {workers} || echo "stress: exit code $?" >&2
step requests
/fuzz /tree {seconds} {seed} {workers} || echo "exit code $?" >&2
step remove the module
cat /sys/module/cosy/refcnt
rmmod cosy || echo "cosy cannot be removed" >&2
umount /tree || echo "the tree is still in use" >&2
leaks=/sys/kernel/debug/kmemleak
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
if (step look for leaks; echo scan >$leaks) 2>/dev/null; then
	sleep 6 # what is younger than 5 s is not reported
	echo scan >$leaks
	cat $leaks >&2
	echo leaks looked for
fi
step end
"""


@dataclass(frozen=True)
class Finding:
    """One boot: what the fuzzer counted, and everything that should not have been."""

    counted: dict[str, object]
    complaints: list[str]

    @property
    def clean(self) -> bool:
        """Nothing was found."""
        return not self.complaints


def fuzz(
    kernel: Kernel,
    module: Path,
    seconds: int,
    seed: int,
    cpus: int = 2,
    ext4: bool = False,
    append: str = "",
) -> Finding:
    """Boot, fuzz for `seconds` over a tree on tmpfs or ext4, look for what stayed behind."""
    with tempfile.TemporaryDirectory(prefix="cosy-fuzz-") as name:
        folder = Path(name)
        disks = []
        mount = "mount -t tmpfs -o size=64m tree /tree"
        if ext4:
            disks = [Disk(make_ext4(None, folder / "disk.img", DISK_MIB), "/tree")]
            mount = "true"
        machine = Machine(
            kernel,
            files={f"/{name}": build_program(name, folder) for name in ("fuzz", "stress")},
            own_modules=[(module, "")],
            disks=disks,
            memory_mib=1024,
            cpus=cpus,
            append=append,
        )
        stress = seconds // STRESS_PART
        script = SCRIPT.format(
            mount=mount, stress=stress, seconds=seconds - stress, seed=seed, workers=2 * cpus
        )
        try:
            result = machine.run(script, seconds + AROUND_S)
        except GuestError as error:
            return Finding({"seed": seed}, [str(error)])
    lines = result.stdout.decode().splitlines()
    complaints = [*result.complaints, *result.stderr.decode(errors="replace").splitlines()]
    leaks = lines[3:] == ["leaks looked for"]
    if len(lines) != 3 + leaks or lines[2] != "0":
        complaints.append(f"the module is still in use, or the fuzzer failed: {lines}")
    if complaints:
        complaints.append(f"{excerpt(result.dmesg)}\nall of its log: {keep(result.dmesg)}")
    counted: dict[str, object] = {"seed": seed}
    if len(lines) > 1:
        counted = {"stress": json.loads(lines[0]), **json.loads(lines[1])}
    facts = {"kernel": kernel.release, "ext4": ext4, "kmemleak": leaks}
    return Finding({**facts, **counted, "wall_s": round(result.wall_s)}, complaints)


def rounds(
    kernel: Kernel, module: Path, seconds: int, each: int, seed: int, leaks_every: int = LEAKS_EVERY
) -> Iterator[Finding]:
    """Boots of `each` seconds of fuzzing until `seconds` are over, tmpfs and ext4 in turn.

    leaks_every: kmemleak follows allocations in boots whose seed is a multiple of this.
    """
    end = time.monotonic() + seconds
    for number in range(seed, seed + seconds):
        left = int(end - time.monotonic())
        if left <= 0:
            return
        # Following each allocation makes all five times slower.
        append = "" if number % leaks_every == 0 else "kmemleak=off"
        even = number % 2 == 0
        yield fuzz(kernel, module, min(each, left), number, ext4=even, append=append)


@click.command(help=__doc__)
@click.option("--kernel", "version", default="6.1-debug", show_default=True)
@click.option("--seconds", default=3600, show_default=True)
@click.option("--each", default=300, show_default=True, help="Seconds of fuzzing in one boot.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--leaks-every",
    default=LEAKS_EVERY,
    show_default=True,
    help="Look for leaks in one boot of so many: it makes all five times slower.",
)
def main(version: str, seconds: int, each: int, seed: int, leaks_every: int) -> None:
    """Fuzz, print, tell."""
    debug = version.endswith(SUFFIX)
    kernel = obtain_debug(version.removesuffix(SUFFIX)) if debug else obtain(version)
    module = build_module(kernel)
    clean = True
    with tempfile.TemporaryDirectory(prefix="cosy-fuzz-") as folder:
        # Ours: a build meanwhile changes nothing.
        copy = Path(shutil.copy(module, folder))
        for finding in rounds(kernel, copy, seconds, each, seed, leaks_every):
            print(json.dumps(finding.counted), flush=True)
            for line in finding.complaints:
                print(line, file=sys.stderr, flush=True)
            clean = clean and finding.clean
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()
