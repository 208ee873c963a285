# SPDX-License-Identifier: MIT
"""Damaged images: the verifier in Python and the one in C give the same verdict, and neither trips.

The C side is shim/verify*.c in a program of its own, under the address and undefined behaviour
sanitizers. Vectors are the compounds of tests/vectors/ and the shipped profile.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from synth import image, verify
from synth.compile import compile_profile, load_profile
from synth.errors import SynthError
from synth.lowering import lift, lower

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "synth" / "profiles" / "default.cosy",
    ROOT / "tests" / "vectors" / "shapes.cosy",
    ROOT / "tests" / "vectors" / "explicit.cosy",
]
MUTATIONS = 12_000  # per vector
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 0x7F, 0x80, 0xFF)
WORDS = (0, 1, 16, 17, 256, 0xFFFF, 1 << 20, 1 << 31, (1 << 32) - 1)
TABLES = (image.COMPOUND.size, image.OP_SIZE, image.PATTERN.size, image.COND.size, image.PATH.size)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shim/verify*.c as a program."""
    folder = tmp_path_factory.mktemp("verify")
    table = [sys.executable, str(ROOT / "tracer" / "gen_table.py"), str(folder / "syscall_table.h")]
    subprocess.run(table, check=True)
    program = folder / "verify_images"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-fsanitize=address,undefined"]
    command += ["-fno-sanitize-recover=all", "-I", str(folder), "-I", str(ROOT / "kmod" / "uapi")]
    command += ["-I", str(ROOT / "shim"), "-o", str(program)]
    command += map(str, sorted((ROOT / "shim").glob("verify*.c")))
    command.append(str(ROOT / "tests" / "native" / "programs" / "verify_images.c"))
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module", params=SOURCES, ids=lambda path: path.stem)
def vector(request: pytest.FixtureRequest) -> bytes:
    """A good image."""
    path: Path = request.param
    return compile_profile(load_profile(path), str(path))


def in_c(verifier: Path, images: Sequence[bytes]) -> list[bool]:
    """The verdicts of shim/verify*.c."""
    stream = b"".join(struct.pack("<I", len(data)) + data for data in images)
    done = subprocess.run([verifier], input=stream, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [digit == "1" for digit in done.stdout.decode()]


def in_python(data: bytes) -> bool:
    """The verdict of synth.image and synth.verify."""
    try:
        verify.check(image.read(data), "mutation")
    except SynthError:
        return False
    return True


def table_places(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each item of each table lies, and its size."""
    counts = image.HEADER.unpack_from(data)[3:13]
    for (count, first), size in zip(
        zip(counts[::2], counts[1::2], strict=True), TABLES, strict=True
    ):
        for k in range(count):
            yield first + k * size, size


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes or words changed, an item copied over another, or the end cut; sealed again."""
    out = bytearray(data)
    places = list(table_places(data))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, size = rng.choice(places)
        how = rng.randrange(10)
        if how < 5:
            out[at + rng.randrange(size)] = rng.choice((*INTERESTING, rng.randrange(256)))
        elif how < 7:
            struct.pack_into("<I", out, at + rng.randrange(size // 4) * 4, rng.choice(WORDS))
        elif how == 7:
            other, same = rng.choice([place for place in places if place[1] == size])
            out[at : at + size] = out[other : other + same]
        elif how == 8:
            out[rng.randrange(16, len(out))] ^= 1 << rng.randrange(8)
        else:
            struct.pack_into("<I", out, 16 + 4 * rng.randrange(13), rng.choice(WORDS))
    if rng.randrange(50) == 0:
        out = out[: rng.randrange(16, len(out))]
        if rng.randrange(2) and len(out) >= image.HEADER.size:
            struct.pack_into("<I", out, 8, len(out))
    return image.seal(bytes(out))


def test_vectors_are_accepted_by_both(verifier: Path, vector: bytes) -> None:
    assert in_python(vector)
    assert in_c(verifier, [vector]) == [True]


def test_mutations_meet_the_same_verdict(verifier: Path, vector: bytes) -> None:
    rng = random.Random(6)
    images = [mutated(vector, rng) for _ in range(MUTATIONS)]
    ours = [in_python(data) for data in images]
    theirs = in_c(verifier, images)
    differ = [k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    assert not differ, difference(vector, images[differ[0]], ours[differ[0]])
    # Both verdicts are met often enough for the test to mean something.
    assert MUTATIONS // 20 < sum(ours) < MUTATIONS * 3 // 4
    for data, accepted in zip(images, ours, strict=True):
        if accepted:
            read = image.read(data)
            assert lower(lift(read)) == read


def difference(good: bytes, bad: bytes, ours: bool) -> str:
    """For the reader of a failure: what was changed, and why Python says what it says."""
    changed = [(k, a, b) for k, (a, b) in enumerate(zip(good, bad, strict=False)) if a != b][:20]
    try:
        problems = verify.problems(image.read(bad))
    except SynthError as error:
        problems = [str(error)]
    return f"Python says {ours}: {problems}; changed bytes: {changed}"


def test_damage_without_a_right_checksum_is_refused_by_both(verifier: Path, vector: bytes) -> None:
    rng = random.Random(7)
    images = []
    for _ in range(2000):
        data = bytearray(vector)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        images.append(bytes(data))
    images += [vector[:size] for size in range(0, len(vector), 7)]
    assert not any(in_python(data) for data in images)
    assert not any(in_c(verifier, images))
