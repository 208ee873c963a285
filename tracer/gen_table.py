#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the shim's C table of system calls from syscalls.toml.

Usage: gen_table.py OUT.h. Runs at build time, with nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

NR_MAX = 512
MAX_ARGS = 6
CLASSES = ("unknown", "pure", "positional", "mutating", "sync", "process")
# fmt: off
KINDS = (
    "none", "fd", "dirfd", "path", "path2", "name", "str", "flags", "at_flags", "open_flags",
    "statx_mask", "mode", "size", "offset", "count", "buf_in", "buf_out", "iov_in", "iov_out",
    "stat_out", "statx_out", "dirents_out", "ptr", "pid", "sig", "int", "cmd", "dev",
)
# fmt: on

HEAD = """\
/* SPDX-License-Identifier: MIT */
/* Made by tracer/gen_table.py from tracer/syscalls.toml: change those. */
#ifndef COSY_SYSCALL_TABLE_H
#define COSY_SYSCALL_TABLE_H

#define COSY_NR_MAX {nr_max}

enum {{
{classes}
}};

enum {{
{kinds}
}};

struct cosy_syscall {{
\tunsigned char cls; /* COSY_CLASS_* */
\tunsigned char n_args;
\tunsigned char returns_fd;
\tunsigned char pad;
\tunsigned char args[{max_args}]; /* COSY_ARGT_* */
}};

static const struct cosy_syscall cosy_syscalls[COSY_NR_MAX] = {{
{calls}
}};

#endif
"""


def check(name: str, call: dict[str, Any]) -> None:
    """Raise ValueError when one line of the table is not what it should be."""
    extra = set(call) - {"nr", "class", "args", "returns_fd", "moves"}
    if extra:
        raise ValueError(f"{name}: unknown key {min(extra)}")
    if not 0 <= call["nr"] < NR_MAX:
        raise ValueError(f"{name}: number {call['nr']} is not below {NR_MAX}")
    if call["class"] not in CLASSES[1:]:
        raise ValueError(f"{name}: unknown class {call['class']}")
    if len(call["args"]) > MAX_ARGS or not set(call["args"]) <= set(KINDS[1:]):
        raise ValueError(f"{name}: wrong arguments {call['args']}")


def row(name: str, call: dict[str, Any]) -> str:
    """Return the C initializer of one call."""
    args = ", ".join(f"COSY_ARGT_{kind.upper()}" for kind in call["args"] or ["none"])
    return (
        f"\t[{call['nr']}] = {{ COSY_CLASS_{call['class'].upper()}, {len(call['args'])}, "
        f"{int(call.get('returns_fd', False))}, 0, {{ {args} }} }}, /* {name} */"
    )


def table(calls: dict[str, dict[str, Any]]) -> str:
    """Return the whole header."""
    for name, call in calls.items():
        check(name, call)
    if len({call["nr"] for call in calls.values()}) != len(calls):
        raise ValueError("two calls have the same number")
    return HEAD.format(
        nr_max=NR_MAX,
        max_args=MAX_ARGS,
        classes="\n".join(f"\tCOSY_CLASS_{name.upper()}," for name in CLASSES),
        kinds="\n".join(f"\tCOSY_ARGT_{name.upper()}," for name in KINDS),
        calls="\n".join(row(name, call) for name, call in calls.items()),
    )


def main() -> int:
    """Read the table beside this file, write the header."""
    if len(sys.argv) != 2:
        print("usage: gen_table.py OUT.h", file=sys.stderr)
        return 2
    source = Path(__file__).with_name("syscalls.toml")
    try:
        with source.open("rb") as file:
            text = table(tomllib.load(file)["calls"])
        tmp = f"{sys.argv[1]}.tmp-{os.getpid()}"
        Path(tmp).write_text(text)
        os.replace(tmp, sys.argv[1])
    except (OSError, KeyError, ValueError) as error:
        print(f"gen_table.py: no C table from {source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
