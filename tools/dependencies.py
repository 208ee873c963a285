# SPDX-License-Identifier: MIT
"""Prints what `make setup` installs from the Python index: all that pyproject.toml names."""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
names = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(name for group in project["project"]["optional-dependencies"].values() for name in group),
]
print("\n".join(names))
