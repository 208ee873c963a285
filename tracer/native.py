# SPDX-License-Identifier: MIT
"""Where the built files are: libcosy.so, the BPF objects, the shipped profile.

docs/architecture.md, "Where the built files are", is the definition.
"""

from __future__ import annotations

import os
from pathlib import Path

LIBRARY = "libcosy.so"


class NativeFileError(Exception):
    """A built file is not where it should be; the message says what to do."""


def folders() -> list[Path]:
    """Return the folders to look in, best first; they may not exist."""
    named = os.environ.get("COSY_NATIVE_DIR")
    if named:
        return [Path(named)]
    packages = Path(__file__).resolve().parent.parent
    return [packages / "cosy_native", packages / "build"]


def find(name: str) -> Path:
    """Return the absolute path of the built file `name`.

    Raises NativeFileError when it is in none of the folders. In a build tree,
    where every room has a folder of its own, subfolders are searched too.
    """
    for folder in folders():
        for path in (folder / name, *sorted(folder.glob(f"*/{name}")), *folder.glob(f"*/*/{name}")):
            if path.is_file():
                return path.absolute()
    places = " or ".join(str(folder) for folder in folders())
    raise NativeFileError(
        f"no {name} in {places}: run `make setup`, or set COSY_NATIVE_DIR to its folder"
    )


def library() -> Path:
    """Return the absolute path of the shim, libcosy.so."""
    return find(LIBRARY)


def xdg_folder(variable: str, in_home: str) -> Path | None:
    """Return our folder below an XDG base directory; None where the environment names none.

    As shim/launcher/places.c does it: relative paths are ignored (the specification), and so is
    a HOME that is no absolute path.
    """
    base, home = os.environ.get(variable, ""), os.environ.get("HOME", "")
    if base.startswith("/"):
        return Path(base) / "cosy"
    return Path(home) / in_home / "cosy" if home.startswith("/") else None


def cache_root() -> Path:
    """Return our cache folder, which may not be there; without a home one of the system's.

    As shim/launcher/places.c does it.
    """
    found = xdg_folder("XDG_CACHE_HOME", ".cache")
    uid = os.geteuid()
    return found or (Path(f"/run/user/{uid}/cosy") if uid else Path("/var/cache/cosy"))


def cache_folder() -> Path:
    """Return the user's cache folder of patched library text, made if need be.

    Raises OSError when it cannot be made. Nobody else may write to it.
    """
    folder = cache_root() / "text"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
