# SPDX-License-Identifier: MIT
"""From a profile's text to its image file: parse, lower, verify, write.

Run as a program (`python synth/compile.py IN.cosy OUT.img`) it is the build step of the shipped
profile; it needs nothing but the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file by the build, from any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synth import image, verify
from synth.errors import SynthError
from synth.language import Profile
from synth.lowering import lift, lower
from synth.parser import parse
from tracer import output


def compile_profile(profile: Profile, source: str) -> bytes:
    """The verified image of a profile.

    Raises SynthError when it cannot be lowered or the verifier refuses it.
    """
    lowered = lower(profile)
    verify.check(lowered, source)
    data = image.write(lowered)
    if image.read(data) != lowered:
        raise SynthError(f"{source}: the image does not read back as written: report this")
    return data


def load_profile(path: Path) -> Profile:
    """Read a profile, text or image; raises SynthError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SynthError(f"cannot read {path}: {error.strerror}") from None
    if not data.strip():
        raise SynthError(f"{path} is empty: no profile's text, and no image")
    if data[: len(image.MAGIC)] == image.MAGIC:
        try:
            lowered = image.read(data)
        except image.ImageError as error:
            raise SynthError(f"{path} is damaged: {error}: write it again") from None
        verify.check(lowered, str(path))
        return lift(lowered)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SynthError(f"{path} is neither a profile's text nor its image") from None
    return parse(text, str(path))


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all (tracer/output.py); raises SynthError.

    `mode` is set as given, whatever the umask: images must not be writable by others.
    """
    try:
        with output.written(path, mode) as file:
            file.write(data)
    except OSError as error:
        raise SynthError(f"cannot write {path}: {error.strerror}") from None


def main(argv: list[str]) -> int:
    """The build step: exit code 0, 1 when the profile is refused, 2 on wrong usage."""
    if len(argv) != 3:
        print("usage: compile.py PROFILE.cosy PROFILE.img", file=sys.stderr)
        return 2
    source, target = Path(argv[1]), Path(argv[2])
    try:
        write_whole(target, compile_profile(load_profile(source), str(source)))
    except SynthError as error:
        print(f"cosy-synth: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
