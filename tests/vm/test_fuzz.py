# SPDX-License-Identifier: MIT
"""Random and nearly right requests to /dev/cosy: nothing breaks, the module keeps its word."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmod.vm import Disk, Kernel, Machine, UnavailableError, build_module, make_ext4
from kmod.vm.debug_kernel import obtain_debug
from tests.vm.conftest import kernel_or_skip
from tests.vm.fuzzing import Finding, fuzz, rounds
from tests.vm.programs import build_program

SHORT_S = 15
SOAK_DEBUG_S = 3600
SOAK_NEW_S = 600


def check(finding: Finding) -> None:
    """Nothing was found, and something was done."""
    assert finding.clean, "\n".join(finding.complaints)
    for what in ("loads", "refused", "runs", "fused", "interrupted", "deadline"):
        assert finding.counted[what], f"the fuzzer did nothing: {finding.counted}"
    stress = finding.counted["stress"]
    assert isinstance(stress, dict)
    for what in ("files", "ahead", "names", "absent"):
        assert stress[what], f"the stress did nothing: {stress}"


def test_what_was_found_once(kernel: Kernel, cosy_module: Path, tmp_path: Path) -> None:
    """Each bug that fuzzing found, by the request that showed it."""
    program = build_program("found", tmp_path)
    machine = Machine(kernel, files={"/found": program}, own_modules=[(cosy_module, "")])
    machine.run(["/found"]).check()


@pytest.mark.parametrize("deadline_ms", [0, 1])
def test_late_is_not_wrong(
    kernel: Kernel, cosy_module: Path, tmp_path: Path, deadline_ms: int
) -> None:
    """A host may stop a guest's CPU for longer than any deadline: the stress knows.

    What is late may end in the middle of a file of which the page cache has a part.
    """
    machine = Machine(
        kernel,
        files={"/stress": build_program("stress", tmp_path)},
        own_modules=[(cosy_module, f"max_deadline_ms={deadline_ms}")],
        disks=[Disk(make_ext4(None, tmp_path / "disk.img", 64), "/tree")],
    )
    machine.run("/stress /tree 10 2").check()


def test_fuzz(kernel: Kernel, cosy_module: Path) -> None:
    """A short run: the same first seed each time, though not the same interleavings."""
    check(fuzz(kernel, cosy_module, SHORT_S, seed=1))


@pytest.mark.soak
def test_fuzz_debug_kernel() -> None:
    """An hour under KASAN, lockdep and kmemleak."""
    kernel_or_skip("6.1")
    try:
        kernel = obtain_debug("6.1")
    except UnavailableError as error:
        pytest.skip(f"no debug kernel: {error}")
    for finding in rounds(kernel, build_module(kernel), SOAK_DEBUG_S, 300, seed=1):
        check(finding)


@pytest.mark.soak
def test_fuzz_newer_kernel() -> None:
    """Debian's newer kernel, from backports."""
    kernel = kernel_or_skip("6.12")
    for finding in rounds(kernel, build_module(kernel), SOAK_NEW_S, 300, seed=1):
        check(finding)
