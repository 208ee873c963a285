# SPDX-License-Identifier: MIT
"""Fixtures for everything that runs real programs under the shim."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "native" / "programs"
DEADLINE_S = 120

# How long an example takes says how busy the machine is.
settings.register_profile("cosy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cosy")

Compiler = Callable[..., Path]


@dataclass(frozen=True)
class Runner:
    """Runs one command natively or under a shim, with nothing between."""

    library: Path
    cache: Path
    base: Mapping[str, str] = field(default_factory=dict)

    def environment(self, mode: str, orders: Mapping[str, str]) -> dict[str, str]:
        """What the shim reads (docs/architecture.md): LD_PRELOAD and COSY_SHIM."""
        pairs = {"mode": mode, "cache": str(self.cache), **orders}
        text = ";".join(f"{key}={value}" for key, value in pairs.items())
        return {**self.base, "LD_PRELOAD": str(self.library), "COSY_SHIM": text}

    def native(
        self, command: Sequence[str | Path], **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        """The command without us."""
        return run(command, dict(self.base), **options)

    def cosy(
        self,
        command: Sequence[str | Path],
        mode: str = "pass",
        orders: Mapping[str, str] | None = None,
        **options: object,
    ) -> subprocess.CompletedProcess[bytes]:
        """The command under the shim in `mode`."""
        return run(command, self.environment(mode, orders or {}), **options)

    def both(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        """Under the shim, after asserting that nothing differs from a native run."""
        native, cosy = self.native(command), self.cosy(command)
        assert cosy.stdout == native.stdout
        assert cosy.stderr == native.stderr
        assert cosy.returncode == native.returncode
        return cosy


def run(
    command: Sequence[str | Path], env: dict[str, str], **options: object
) -> subprocess.CompletedProcess[bytes]:
    """Output and exit status of a command; a hang is a failure."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [str(word) for word in command],
        env=env,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
        **options,
    )


def built(folder: str, what: str) -> Path:
    """A file of a build folder, or a skip that says how to get it."""
    path = ROOT / folder / what
    if not path.exists():
        pytest.skip(f"{folder}/{what} is not built: make setup")
    return path


@pytest.fixture(scope="session")
def native_dir() -> Path:
    """Where the native parts are; tests that ask for it need the build."""
    return built("build", "shim/libcosy.so").parent.parent


@pytest.fixture(scope="session")
def text_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pre-patched library text that is nobody else's."""
    folder = tmp_path_factory.mktemp("text-cache")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="session")
def runner(native_dir: Path, text_cache: Path) -> Runner:
    """Runs under the library that users get."""
    return Runner(native_dir / "shim" / "libcosy.so", text_cache, plain_environment())


@pytest.fixture(scope="session")
def fence_runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs under the library that honours `nofence=`."""
    folder = tmp_path_factory.mktemp("fence-cache")
    folder.chmod(0o700)
    return Runner(built("build-fence", "shim/libcosy.so"), folder, plain_environment())


def plain_environment() -> dict[str, str]:
    """Ours without anything that a shim or a locale could add."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "COSY_", "LC_"))}
    return {**kept, "LANG": "C.UTF-8"}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles a program of tests/native/programs once: compiled("calls", "-pthread")."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_once(source: str, *flags: str, name: str | None = None) -> Path:
        path = PROGRAMS / source
        compiler = "c++" if path.suffix == ".cc" else "cc"
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        target = folder / (name or path.stem)
        if not target.exists():
            more = [PROGRAMS / flag if flag.endswith(".c") else flag for flag in flags]
            command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, path, *more]
            subprocess.run(command, check=True)
        return target

    return compile_once


@pytest.fixture(scope="session")
def executor() -> Path:
    """The shipped profile image, with the eBPF executor loaded; a skip says what lacks."""
    image = built("build", "synth/default.img")
    loader = built("build", "kmod/bpf/cosy-bpf-load")
    done = run([loader], plain_environment())
    if done.returncode != 0:
        pytest.skip(f"no eBPF executor here: {done.stderr.decode().strip()}")
    return image
