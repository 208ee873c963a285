# SPDX-License-Identifier: MIT
"""The worked examples of docs/explicit.md, for tests here and in a virtual machine."""

from __future__ import annotations

import re
import socket
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
