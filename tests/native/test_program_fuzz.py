# SPDX-License-Identifier: MIT
"""The module's verifier, in user space: the programs of any image are refused or harmless.

Images with explicit compounds are damaged as in test_image_fuzz.py, which has these, too. What
Python's verifier and the shim's accept becomes a program (kmod/user/compound/), which the module's
verifier (kmod/module/verify.c itself) must accept, and which is run; and so are thousands of
programs that were changed by an instruction or two. All of it under the sanitizers.
"""

from __future__ import annotations

import random
import re
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from synth.compile import compile_profile, load_profile
from tests.conftest import ROOT
from tests.native.test_image_fuzz import in_python, mutated
from tests.vm.programs import UAPI, USER, VERIFIER, system_call_table

VECTOR = ROOT / "tests" / "vectors" / "explicit.cosy"
PROGRAMS = ROOT / "tests" / "native" / "programs"
MUTATIONS = 6000
CHANGES = 4000  # of each of the vector's programs
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-sign-compare")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/native/programs/verify_programs.c with all that it judges."""
    folder = tmp_path_factory.mktemp("programs")
    program = folder / "verify_programs"
    kernel = PROGRAMS / "kernel"
    common = ["cc", "-std=gnu11", "-D_GNU_SOURCE", *SANITIZED, *WARNINGS, f"-I{UAPI}"]
    # From standard input: then the module's own cosy.h is not the nearest one.
    subprocess.run(
        [*common, f"-I{kernel}", "-c", "-x", "c", "-", "-o", folder / "verify.o"],
        input=(ROOT / "kmod" / "module" / "verify.c").read_bytes(),
        cwd=kernel,
        check=True,
    )
    # The calls are pretended.
    calls = [*common, "-Dplain_call=real_call", f"-I{USER}", "-c", USER / "calls.c"]
    subprocess.run([*calls, "-o", folder / "calls.o"], check=True)
    own = [USER / name for name in ("context.c", "interpret.c", "program.c")]
    includes = [USER, ROOT / "shim", PROGRAMS, system_call_table(folder)]
    subprocess.run(
        [
            *common,
            *(f"-I{include}" for include in includes),
            *("-o", program, PROGRAMS / "verify_programs.c", *own, *VERIFIER),
            *sorted((USER / "compound").glob("*.c")),
            *(folder / "verify.o", folder / "calls.o"),
        ],
        check=True,
    )
    return program


@pytest.fixture(scope="module")
def vector() -> bytes:
    """A good image."""
    return compile_profile(load_profile(VECTOR), str(VECTOR))


def verdicts(judge: Path, images: Sequence[bytes], *arguments: str) -> list[str]:
    """A line of letters for each image, and what else is said."""
    stream = b"".join(struct.pack("<I", len(data)) + data for data in images)
    done = subprocess.run([judge, *arguments], input=stream, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_vectors_become_programs(judge: Path, vector: bytes) -> None:
    n = len(load_profile(VECTOR).compounds)
    assert verdicts(judge, [vector]) == ["a" * n]


def test_damaged_images_are_refused_or_harmless(judge: Path, vector: bytes) -> None:
    rng = random.Random(11)
    images = [mutated(vector, rng) for _ in range(MUTATIONS)]
    found = verdicts(judge, images)
    assert [line == "-" for line in found] == [not in_python(data) for data in images]
    letters = "".join(found)
    assert "X" not in letters, f"image {next(k for k, s in enumerate(found) if 'X' in s)}"
    # Both ends are met often enough for the test to mean something.
    assert letters.count("-") > MUTATIONS // 4
    assert letters.count("a") > MUTATIONS // 4


def test_changed_programs_are_refused_or_harmless(judge: Path, vector: bytes) -> None:
    last = verdicts(judge, [vector], str(CHANGES))[-1]
    found = re.fullmatch(r"(\d+) accepted, (\d+) refused", last)
    assert found
    accepted, refused = map(int, found.groups())
    assert accepted + refused == CHANGES * len(load_profile(VECTOR).compounds)
    assert min(accepted, refused) > CHANGES // 4


def test_the_image_verifier_is_fit_for_a_kernel(tmp_path: Path) -> None:
    """With the kernel's flags, and nothing from outside but what compilers take for granted."""
    flags = [
        "-ffreestanding",
        "-nostdlib",
        "-mgeneral-regs-only",
        "-mcmodel=kernel",
        "-mno-red-zone",
    ]
    flags += ["-fno-pic", "-fno-stack-protector", "-fcf-protection=none", "-O2", *WARNINGS]
    includes = [f"-I{folder}" for folder in (UAPI, ROOT / "shim", system_call_table(tmp_path))]
    linked = tmp_path / "verify.o"
    subprocess.run(["cc", *flags, *includes, "-r", "-o", linked, *VERIFIER], check=True)
    needs = subprocess.run(["nm", "-u", linked], capture_output=True, text=True, check=True).stdout
    assert set(needs.split()) - {"U"} <= {"memcpy", "memset", "memmove", "memcmp"}
