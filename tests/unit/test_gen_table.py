# SPDX-License-Identifier: MIT
"""The generated C table: it compiles without a warning and says what Python says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tracer import gen_table
from tracer.syscalls import ArgKind, SyscallClass, by_name

PROGRAM = """
#include "syscall_table.h"
#include <stdio.h>

int main(void)
{
	for (int nr = 0; nr < COSY_NR_MAX; nr++) {
		const struct cosy_syscall *s = &cosy_syscalls[nr];

		if (s->cls == COSY_CLASS_UNKNOWN)
			continue;
		printf("%d %d %d %d", nr, s->cls, s->n_args, s->returns_fd);
		for (int i = 0; i < s->n_args; i++)
			printf(" %d", s->args[i]);
		printf("\\n");
	}
	return 0;
}
"""


def generate(out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-E", gen_table.__file__, str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c_and_python_agree(tmp_path: Path, compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    assert generate(tmp_path / "syscall_table.h").returncode == 0
    (tmp_path / "main.c").write_text(PROGRAM)
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", "main", "main.c"]
    subprocess.run([compiler, *flags], cwd=tmp_path, check=True)
    output = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    kinds = {kind: i for i, kind in enumerate(gen_table.KINDS)}
    expected = [
        [
            call.nr,
            gen_table.CLASSES.index(call.cls),
            len(call.args),
            int(call.returns_fd),
            *[kinds[kind] for kind in call.args],
        ]
        for call in by_name().values()
    ]
    assert [[int(word) for word in line.split()] for line in output.splitlines()] == expected


def test_classes_and_kinds_are_those_of_python() -> None:
    assert set(gen_table.KINDS[1:]) == set(ArgKind)
    assert list(gen_table.CLASSES) == list(SyscallClass)


def test_unwritable_target_is_one_clear_line(tmp_path: Path) -> None:
    done = generate(tmp_path / "none" / "out.h")
    assert done.returncode == 1
    assert done.stderr.startswith("gen_table.py: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "call",
    [
        {"nr": 512, "class": "pure", "args": []},
        {"nr": 1, "class": "harmless", "args": []},
        {"nr": 1, "class": "pure", "args": ["fd", "buffer"]},
        {"nr": 1, "class": "pure", "args": ["fd"] * 7},
        {"nr": 1, "class": "pure", "args": [], "arguments": 0},
    ],
)
def test_a_wrong_line_is_refused(call: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^wrong: "):
        gen_table.check("wrong", call)
