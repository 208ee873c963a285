# SPDX-License-Identifier: MIT
"""Where a dataset may be written: known before the program runs, with nothing loaded."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIX = ".cosytrace"


class DatasetError(Exception):
    """A folder is no dataset, or cannot become one; one line says why and what to do."""


def check_target(path: Path, force: bool) -> None:
    """Raise DatasetError when no dataset can be written at `path`."""
    if path.exists() or path.is_symlink():
        if not force:
            raise DatasetError(f"exists already: {path}: use --force to replace it, or -o NAME")
        if not (path / "meta.json").is_file():
            raise DatasetError(f"is no trace dataset: {path}: not replaced, use another name")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise DatasetError(f"no such folder: {parent}: make it, or use -o NAME")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DatasetError(f"cannot write to folder: {parent}: use -o NAME")
