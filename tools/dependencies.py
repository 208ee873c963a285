# SPDX-License-Identifier: MIT
"""Prints what `make setup` installs from the Python index: all that pyproject.toml names.

But for what reads the stores of one vendor, which is large, and which no test has a server for.
"""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
extras = project["project"]["optional-dependencies"]
names = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *(name for extra, group in extras.items() if extra != "s3" for name in group),
]
print("\n".join(names))
