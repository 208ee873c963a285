# SPDX-License-Identifier: MIT
"""The user's profiles, one per program: BUILD-ID.cosy (text) and BUILD-ID.img (for the shim).

They lie in ${XDG_DATA_HOME:-~/.local/share}/cosy/profiles, which is the user's alone. `cosy-auto`
looks there by the build-id of the program (shim/launcher/profile.c) and falls back on the shipped
profile. What was learnt has two more: BUILD-ID.json says of which program, and BUILD-ID.runs/ holds
the motifs of the last runs, from which the profile is made anew after each.

Every file is written whole and renamed, so that a reader, who takes no lock, sees the old one or
the new one; writers take turns by a lock that a killed one gives up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synth.compile import compile_profile, write_whole
from synth.errors import SynthError
from synth.language import Profile, print_profile
from tracer import native

if TYPE_CHECKING:
    from miner.motifs import MotifFile
    from synth.synthesize import Decision

SHIPPED: Final = "default.img"
# Runs that a profile is made from: old ones go when new ones come.
RUNS_KEPT: Final = 8
# A profile that nothing was learnt for in so long goes; and so do the oldest beyond so many.
AGE_DAYS: Final = 365
PROFILES_KEPT: Final = 2000
_DAY_S: Final = 24 * 3600
_LOCK: Final = ".lock"
_TMP: Final = re.compile(r"\..*\.tmp-\d+\Z")
_BUILD_ID: Final = re.compile(r"[0-9a-f]{40}\Z")


def folder() -> Path:
    """Where the profiles are; it may not exist yet. Raises SynthError without a home folder."""
    root = native.xdg_folder("XDG_DATA_HOME", ".local/share")
    if root is None:
        raise SynthError("no home folder: set XDG_DATA_HOME to an absolute path")
    return root / "profiles"


def image_path(build_id: str) -> Path:
    """The image of the program with this build-id, there or not."""
    if not _BUILD_ID.match(build_id):
        raise SynthError(f"no build-id: {build_id!r}: 40 hexadecimal digits are needed")
    return folder() / f"{build_id}.img"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored profile. `learnt_s` is Unix time; a profile that was installed has no program."""

    build_id: str
    program: str = ""  # absolute path
    version: int = 1  # how often it was made anew
    runs: int = 0  # that it was made from
    learnt_s: int = 0

    @property
    def image(self) -> Path:
        """Its image, there or not."""
        return image_path(self.build_id)


def save(profile: Profile, build_id: str) -> Path:
    """Store a profile as that of a program, and return the image's path. Raises SynthError."""
    with _locked() as base:
        for path in (base / f"{build_id}.json", base / f"{build_id}.runs"):
            _delete(path)
        return _save(profile, build_id)


def _save(profile: Profile, build_id: str) -> Path:
    """The text is written first: an image never lacks the text that explains it."""
    image = image_path(build_id)
    profile = replace(profile, build_id=build_id)
    data = compile_profile(profile, f"profile of {build_id}")
    write_whole(image.with_suffix(".cosy"), print_profile(profile).encode(), 0o600)
    write_whole(image, data, 0o600)
    return image


def learn(build_id: str, program: str, run: MotifFile) -> tuple[Entry, list[Decision]]:
    """Add the motifs of a run to what is known of a program, and make its profile anew.

    When the runs that are kept justify none, the program has no profile afterwards, and the entry's
    image is not there. Raises SynthError.
    """
    from miner.motifs import MotifFileError
    from miner.motifs import save as save_motifs
    from synth.synthesize import synthesize

    image_path(build_id)
    with _locked() as base:
        folder = base / f"{build_id}.runs"
        old = entry(build_id)
        version = old.version if old else 0
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            save_motifs(run, folder / f"{time.time_ns():020d}.motifs.json")
        except (OSError, MotifFileError) as error:
            raise SynthError(f"cannot store a run in {folder}: {error}") from None
        runs = _runs(folder)
        profile, decisions = synthesize(runs)
        now = Entry(build_id, program, version + 1, len(runs), int(time.time()))
        write_whole(base / f"{build_id}.json", json.dumps(asdict(now)).encode(), 0o600)
        if profile.compounds:
            _save(profile, build_id)
        else:
            for suffix in (".img", ".cosy"):
                _delete(base / f"{build_id}{suffix}")
        for other in _entries(base):
            # The same file with another build-id: an earlier version of the program.
            if program and other.program == program and other.build_id != build_id:
                _remove(base, other.build_id)
        return now, decisions


def runs(build_id: str) -> list[MotifFile]:
    """The motifs of a program's last runs, as far as they can be read; newest first."""
    from miner.motifs import MotifFileError, load

    found: list[MotifFile] = []
    for path in sorted(image_path(build_id).with_suffix(".runs").glob("*.motifs.json")):
        with contextlib.suppress(MotifFileError, OSError):
            found.insert(0, load(path))
    return found


def _runs(folder: Path) -> list[MotifFile]:
    """The motifs of the last runs; older ones, and what cannot be read any more, goes."""
    from miner.motifs import MotifFileError, load

    found = []
    paths = sorted(folder.glob("*.motifs.json"), reverse=True)
    for number, path in enumerate(paths):
        try:
            if number >= RUNS_KEPT:
                raise MotifFileError("old")
            found.append(load(path))
        except (MotifFileError, OSError):
            _delete(path)
    return found


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """The store's folder, for one writer at a time; what killed writers left is swept away."""
    base = folder()
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SynthError(f"cannot make {base}: {error.strerror}") from None
    problem = refusal(base)
    if problem:
        raise SynthError(f"cannot store profiles in {base}: {problem}")
    try:
        lock = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SynthError(f"cannot lock {base}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(base)
        yield base
    finally:
        os.close(lock)


def _sweep(base: Path) -> None:
    """Drop temporary files of killed writers (all others wait), and what is too old."""
    for path in (*base.glob(".*"), *base.glob("*.runs/*.tmp-*")):
        if _TMP.match(path.name) or path.parent != base:
            _delete(path)
    learnt = sorted((e for e in _entries(base) if e.learnt_s), key=lambda e: -e.learnt_s)
    oldest = time.time() - AGE_DAYS * _DAY_S
    for number, each in enumerate(learnt):
        if number >= PROFILES_KEPT or each.learnt_s < oldest:
            _remove(base, each.build_id)


def _delete(path: Path) -> None:
    """A file or a folder, there or not."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove(base: Path, build_id: str) -> None:
    for suffix in (".img", ".cosy", ".json", ".runs"):
        _delete(base / f"{build_id}{suffix}")


def remove(build_id: str) -> None:
    """Forget a program: its profile, and the runs that it was made from. Raises SynthError."""
    image_path(build_id)
    with _locked() as base:
        _remove(base, build_id)


def entry(build_id: str) -> Entry | None:
    """What is stored of a program; None: nothing, or only a profile that was installed."""
    try:
        found = json.loads(image_path(build_id).with_suffix(".json").read_bytes())
        known = Entry(**found)
    except (OSError, ValueError, TypeError):
        return None
    return known if known.build_id == build_id else None


def _entries(base: Path) -> list[Entry]:
    ids = {path.stem for path in (*base.glob("*.img"), *base.glob("*.json"))}
    return [entry(i) or Entry(i) for i in sorted(ids) if _BUILD_ID.match(i)]


def entries() -> list[Entry]:
    """All programs of which something is stored, by build-id."""
    return _entries(folder())


def lookup(what: str) -> list[Entry]:
    """The entries that a person means: a build-id or the start of one, a program's path or name."""
    return [
        each
        for each in entries()
        if (len(what) >= 4 and each.build_id.startswith(what))
        or (each.program and what in (each.program, Path(each.program).name))
    ]


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
