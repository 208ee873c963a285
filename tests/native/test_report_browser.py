# SPDX-License-Identifier: MIT
"""The page of cosy-report in a real browser, offline."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from miner import cost, mine
from miner.page import page

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 1100, 1600


def chromium(*options: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("no browser: apt-get install chromium")
    # It has no sandbox for root.
    base = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    base.append("--enable-logging=stderr")
    done = subprocess.run([*base, *options], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done


def complaints(log: bytes) -> list[bytes]:
    """What the console of the browser said."""
    return [line for line in log.splitlines() if b":CONSOLE:" in line]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "r.html"
    paths = [ROOT / "datasets" / f"{name}.cosytrace" for name in ("du", "md5sum")]
    target.write_text(page(mine.mine(paths, cost.Calibration(), workers=1), 6))
    return target


def test_the_browser_sees_the_sequences(html: Path) -> None:
    done = chromium("--dump-dom", html.as_uri())
    text = done.stdout.decode()
    assert complaints(done.stderr) == []
    assert text.count('<section class="motif"') == 6
    assert text.count("<svg class=") == 6
    assert "newfstatat(D, e.name, AT_SYMLINK_NOFOLLOW)" in text


def test_a_broken_page_is_complained_about(tmp_path: Path) -> None:
    """That nothing is said of ours means something."""
    broken = tmp_path / "broken.html"
    broken.write_text("<body><script>nowhere();</script></body>")
    (line,) = complaints(chromium("--dump-dom", broken.as_uri()).stderr)
    assert b"nowhere is not defined" in line


def colours(png: bytes) -> set[bytes]:
    """Pixels of a PNG (8-bit RGB or RGBA) that occur, scan lines unfiltered as far as needed."""
    at, data, channels = 8, b"", 3
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        if kind == b"IHDR":
            channels = {2: 3, 6: 4}[png[at + 8 + 9]]
        elif kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    raw = zlib.decompress(data)
    step = WIDTH * channels + 1
    found: set[bytes] = set()
    above = bytes(step - 1)
    for y in range(HEIGHT):
        line = bytearray(raw[y * step + 1 : (y + 1) * step])
        _unfilter(raw[y * step], line, above, channels)
        above = bytes(line)
        found |= {above[x : x + 3] for x in range(0, len(above), channels * 3)}
    return found


def _unfilter(kind: int, line: bytearray, above: bytes, channels: int) -> None:
    """Undo a scan line's filter (PNG specification, section 9)."""
    for i in range(len(line)):
        left = line[i - channels] if i >= channels else 0
        up, corner = above[i], above[i - channels] if i >= channels else 0
        if kind == 1:
            line[i] = (line[i] + left) & 255
        elif kind == 2:
            line[i] = (line[i] + up) & 255
        elif kind == 3:
            line[i] = (line[i] + (left + up) // 2) & 255
        elif kind == 4:
            guess = left + up - corner
            near = min((left, up, corner), key=lambda v: abs(guess - v))
            line[i] = (line[i] + near) & 255


def test_bars_boxes_and_arrows_are_painted(html: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    size = f"--window-size={WIDTH},{HEIGHT}"
    chromium("--blink-settings=preferredColorScheme=1", size, f"--screenshot={shot}", html.as_uri())
    found = colours(shot.read_bytes())
    for name, colour in {"bar": "3b6fb6", "pure": "d7ecdd", "data": "b4532a"}.items():
        assert bytes.fromhex(colour) in found, name
