# SPDX-License-Identifier: MIT
"""Prints what `make setup` installs from the Python index: all that pyproject.toml names."""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
names = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *project["project"]["optional-dependencies"]["dev"],
]
print("\n".join(names))
