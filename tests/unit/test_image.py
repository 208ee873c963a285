# SPDX-License-Identifier: MIT
"""The binary image: the same as the C header's, read back as written, damage refused."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from synth import image, verify
from synth.compile import compile_profile, load_profile
from synth.errors import SynthError
from synth.language import print_profile
from synth.lowering import lift, lower
from synth.parser import parse

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "kmod" / "uapi" / "cosy_image.h"
DEFAULT = ROOT / "synth" / "profiles" / "default.cosy"

# Each C structure, its Python layout and its fields in that order (arrays once per element).
LAYOUTS = {
    "cosy_image": image.HEADER,
    "cosy_compound": image.COMPOUND,
    "cosy_arg": image.ARG,
    "cosy_cond": image.COND,
    "cosy_pattern": image.PATTERN,
}
FIELD = re.compile(r"^\t(?:__[us]\d+|struct cosy_arg)\s+([^;]+);", re.MULTILINE)


def header_fields(name: str) -> list[str]:
    """Field expressions of a structure of the header: `a`, `b[0]`, `b[1]`, ..."""
    body = re.search(rf"^struct {name} {{\n(.*?)^}};", HEADER.read_text(), re.M | re.S)
    assert body is not None
    text = re.sub(r"/\*.*?\*/", "", body[1])
    found: list[str] = []
    for declared in FIELD.findall(text):
        for field in re.split(r",\s*", declared):
            array = re.fullmatch(r"(\w+)\[(\w+)\]", field)
            if array and array[1] in ("magic", "build_id"):
                found.append(array[1])
            elif array and array[2].isdigit():
                found += [f"{array[1]}[{i}]" for i in range(int(array[2]))]
            else:
                found.append(field.partition("[")[0])
    return found


def compile_and_run(lines: list[str], folder: Path) -> list[int]:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    prints = "".join(f'printf("%llu\\n", (unsigned long long)({line}));\n' for line in lines)
    source = f'#include <stdio.h>\n#include <stddef.h>\n#include "{HEADER}"\n'
    source += f"int main(void) {{\n{prints}return 0; }}\n"
    program = folder / "layout"
    command = ["cc", "-x", "c", "-o", str(program), "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return [int(n) for n in subprocess.check_output([str(program)], text=True).split()]


def offsets(layout: struct.Struct) -> list[int]:
    """The offset of each member of a packed little-endian layout."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        members = 1 if code == "s" else int(count or 1)
        size = struct.calcsize(f"<{count}s") if code == "s" else struct.calcsize(f"<{code}")
        for _ in range(members):
            found.append(at)
            at += size
    return found


def test_layout_is_the_headers(tmp_path: Path) -> None:
    lines, expected = [], []
    for name, layout in LAYOUTS.items():
        fields = header_fields(name)
        assert len(fields) == len(offsets(layout)), name
        lines += [f"sizeof(struct {name})"]
        lines += [f"offsetof(struct {name}, {field})" for field in fields]
        expected += [layout.size, *offsets(layout)]
    fields = ["nr", "n_args", "flags", "first_cond", "n_conds", "args"]
    assert header_fields("cosy_op") == fields
    lines += [f"offsetof(struct cosy_op, {field})" for field in fields[:-1]]
    expected += offsets(image.OP)
    lines += ["sizeof(struct cosy_op)", "offsetof(struct cosy_op, args)"]
    expected += [image.OP_SIZE, image.OP.size]
    assert compile_and_run(lines, tmp_path) == expected


def test_constants_are_the_headers(tmp_path: Path) -> None:
    text = HEADER.read_text()
    expected = {
        "COSY_IMAGE_MAX_SIZE": image.MAX_SIZE,
        "COSY_MAX_ARGS": image.MAX_ARGS,
        "COSY_MAX_COMPOUNDS": image.MAX_COMPOUNDS,
        "COSY_MAX_OPS": image.MAX_OPS,
        "COSY_MAX_PATTERNS": image.MAX_PATTERNS,
        "COSY_MAX_PATHS": image.MAX_PATHS,
        "COSY_MAX_CONDS": image.MAX_CONDS,
        **{f"COSY_{flag.name}": int(flag) for flag in image.CompoundFlag},
        **{f"COSY_GUARD_{flag.name}": int(flag) for flag in image.Guard},
        **{f"COSY_LOOP_{loop.name}": int(loop) for loop in image.Loop},
        **{f"COSY_EXECUTOR_{flag.name}": int(flag) for flag in image.Executor},
        **{f"COSY_ARG_{kind.name}": int(kind) for kind in image.ArgKind},
        **{f"COSY_OP_{flag.name}": int(flag) for flag in image.OpFlag},
        **{f"COSY_FIELD_{field.name}": int(field) for field in image.Field},
        **{f"COSY_{relation.name}": int(relation) for relation in image.Relation},
    }
    named = re.findall(r"^(?:#define\s+|\t)(COSY_\w+)(?:\s+[(\d]|\s*=)", text, re.M)
    assert set(named) == set(expected)
    assert compile_and_run(list(expected), tmp_path) == list(expected.values())
    assert f'"{image.MAGIC[:7].decode()}\\x{image.MAGIC[7]:02}"' in text


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_profile(load_profile(DEFAULT), str(DEFAULT))


def test_reads_back_as_written(default: bytes) -> None:
    read = image.read(default)
    assert read == lower(load_profile(DEFAULT))
    assert image.write(read) == default
    assert lower(lift(read)) == read
    assert lower(parse(print_profile(lift(read)))) == read


def test_build_step_needs_no_packages(default: bytes, tmp_path: Path) -> None:
    target = tmp_path / "default.img"
    script = ROOT / "synth" / "compile.py"
    command = [sys.executable, "-S", "-I", str(script), str(DEFAULT), str(target)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert target.read_bytes() == default
    assert target.stat().st_mode & 0o777 == 0o644


def test_cut_images_are_refused(default: bytes) -> None:
    for size in range(len(default)):
        with pytest.raises(image.ImageError):
            image.read(default[:size])


def test_2000_mutations_are_refused(default: bytes) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        data = bytearray(default)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(data))
            data[at] ^= 1 << rng.randrange(8)
        if bytes(data) == default:
            continue
        with pytest.raises(image.ImageError):
            image.read(bytes(data))


def test_2000_mutations_with_a_right_checksum_mean_what_they_say_or_are_refused(
    default: bytes,
) -> None:
    rng = random.Random(2)
    refused = 0
    for _ in range(2000):
        data = bytearray(default)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(16, len(data))
            data[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        try:
            read = image.read(image.seal(bytes(data)))
            verify.check(read, "mutation")
        except SynthError:
            refused += 1
            continue
        # Accepted: then it is a profile that could have been written as text.
        assert lower(lift(read)) == read
    assert refused > 1000


def test_a_table_too_many(default: bytes) -> None:
    read = image.read(default)
    many = image.Image(read.compounds[:1] * (image.MAX_COMPOUNDS + 1))
    with pytest.raises(image.ImageError, match="257 compounds"):
        image.read(image.write(many))
