# SPDX-License-Identifier: MIT
"""The worked examples of docs/explicit.md, and layouts, for tests here and in a virtual machine."""

from __future__ import annotations

import ctypes
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT

EXAMPLES = ROOT / "kmod" / "user" / "examples"
DOCUMENT = ROOT / "docs" / "explicit.md"


def python_examples() -> list[str]:
    """The page's programs, as they stand."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def request(port: int, path: str) -> bytes:
    """What a web server on the loopback answers to GET `path`, head included."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def files_of(folder: Path) -> list[Path]:
    """A few files that differ in what matters: empty, small, larger than a batch's share."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "empty": b"",
        "small": b"one needle\ntwo\nand a needle without an end",
        "large": b"some text\n" * 20000 + b"a needle far behind\n" + b"x" * 100000,
        "none": b"nothing\n" * 100,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def c_numbers(header: str, expressions: Sequence[str], folder: Path) -> list[int]:
    """What a header of kmod/user/ makes of constant expressions."""
    source, program = folder / "numbers.c", folder / "numbers"
    lines = "".join(f'printf("%zu ", (size_t)({expression}));' for expression in expressions)
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{ROOT}/kmod/user/{header}"\n'
        f"int main(void) {{ {lines} return 0; }}"
    )
    include = f"-I{ROOT / 'kmod' / 'uapi'}"
    subprocess.run(["cc", include, "-o", program, source], check=True)
    return [int(word) for word in subprocess.check_output([program]).split()]


def check_layout(
    structures: Mapping[str, type[ctypes.Structure]], header: str, folder: Path
) -> None:
    """Assert that each structure and field has the size and the place that the header says."""
    expressions, ours = [], []
    for name, structure in structures.items():
        expressions.append(f"sizeof(struct {name})")
        ours.append(ctypes.sizeof(structure))
        for field in structure._fields_:
            expressions.append(f"offsetof(struct {name}, {field[0]})")
            ours.append(getattr(structure, field[0]).offset)
    assert c_numbers(header, expressions, folder) == ours
