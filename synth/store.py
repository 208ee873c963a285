# SPDX-License-Identifier: MIT
"""The user's profiles, one per program: BUILD-ID.cosy (text) and BUILD-ID.img (for the shim).

They lie in ${XDG_DATA_HOME:-~/.local/share}/cosy/profiles, which is the user's alone. `cosy-auto`
looks there by the build-id of the program (shim/launcher/profile.c) and falls back on the shipped
profile.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from synth.compile import compile_profile, write_whole
from synth.errors import SynthError
from synth.language import Profile, print_profile
from tracer import native

SHIPPED: Final = "default.img"
_BUILD_ID: Final = re.compile(r"[0-9a-f]{40}\Z")


def folder() -> Path:
    """Where the profiles are; it may not exist yet. Raises SynthError without a home folder."""
    base = os.environ.get("XDG_DATA_HOME", "")
    if base.startswith("/"):  # the specification: a relative path is to be ignored
        return Path(base) / "cosy" / "profiles"
    try:
        return Path.home() / ".local" / "share" / "cosy" / "profiles"
    except RuntimeError:
        raise SynthError("no home folder: set XDG_DATA_HOME to an absolute path") from None


def image_path(build_id: str) -> Path:
    """The image of the program with this build-id, there or not."""
    if not _BUILD_ID.match(build_id):
        raise SynthError(f"no build-id: {build_id!r}: 40 hexadecimal digits are needed")
    return folder() / f"{build_id}.img"


def save(profile: Profile, build_id: str) -> Path:
    """Store a profile as that of a program, and return the image's path.

    The text is written first: an image never lacks the text that explains it. Raises SynthError.
    """
    image = image_path(build_id)
    profile = replace(profile, build_id=build_id)
    data = compile_profile(profile, f"profile of {build_id}")
    try:
        image.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SynthError(f"cannot make {image.parent}: {error.strerror}") from None
    problem = refusal(image.parent)
    if problem:
        raise SynthError(f"cannot store profiles in {image.parent}: {problem}")
    write_whole(image.with_suffix(".cosy"), print_profile(profile).encode(), 0o600)
    write_whole(image, data, 0o600)
    return image


def refusal(path: Path) -> str | None:
    """Why a stored file or folder is not to be trusted, or None: ours or root's, ours to write."""
    try:
        status = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    if status.st_uid not in (os.geteuid(), 0):
        return "it belongs to someone else"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (chmod go-w {path})"
    return None


def find(build_id: str | None) -> Path:
    """The image that `cosy-auto` would use: the program's own, else the shipped one.

    Raises SynthError when its own is there but not to be trusted, or when nothing is built.
    """
    if build_id:
        image = image_path(build_id)
        if image.exists():
            problem = refusal(image)
            if problem:
                raise SynthError(f"profile {image} is refused: {problem}")
            return image
    try:
        return native.find(SHIPPED)
    except native.NativeFileError as error:
        raise SynthError(str(error)) from None


def stored() -> list[Path]:
    """The images in the store, by name."""
    return sorted(folder().glob("*.img"))
