# SPDX-License-Identifier: MIT
"""Compounds of the language, handed over: an `explicit compound` runs in one crossing.

    from synth.explicit import Context
    from synth.submit import Ready

    with Context() as c:
        done = Ready(c, text).run()
        print(done.results[0].ret)

It is compiled, verified, and made into a program of synth.explicit, which runs in the kernel where
there is the module, else as plain calls, with the same results. docs/compound-language.md has the
language, docs/explicit.md an example; the library behind this is kmod/user/compound/.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass

from synth.compile import compile_profile
from synth.errors import SynthError
from synth.explicit import Context, OutcomeStructure, load_library
from synth.language import Compound, Profile
from synth.parser import parse

ENTRY = (1 << 32) - 1
_NO_DIRECTORY = -1


class _Result(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_uint32),
        ("op", ctypes.c_uint32),
        ("iteration", ctypes.c_uint32),
        ("data", ctypes.c_uint32),
        ("ret", ctypes.c_int64),
    )


class _Ready(ctypes.Structure):
    _fields_ = (
        ("program", ctypes.c_uint32),
        ("op", ctypes.c_uint32),
        ("entries", ctypes.c_bool),
        ("strings_size", ctypes.c_uint32),
        ("n_paths", ctypes.c_uint32),
        ("paths", ctypes.c_uint32),
        ("prefix", ctypes.c_uint32),
        ("arena", ctypes.c_uint32),
        ("most_record", ctypes.c_uint32),
        ("strings", ctypes.c_void_p),
        ("path_offsets", ctypes.c_void_p),
        ("limit_ops", ctypes.c_uint64),
        ("limit_bytes", ctypes.c_uint64),
        ("limit_time_ns", ctypes.c_uint64),
    )


STRUCTURES = {"cosy_result": _Result, "cosy_compound_ready": _Ready}
_TAKE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True)
class Result:
    """What one call returned: `op` is its index in the body, `ret` is negative for -errno.

    `item` is the path or the entry's name that it was made for, b"" where there is no loop; `data`
    is what the kernel filled its buffer with. An `until` call has a result for each time.
    """

    op: int
    item: bytes
    ret: int
    data: bytes


@dataclass(frozen=True)
class Done:
    """A run. `status` is 0, or -E2BIG, -ENOBUFS, -ETIME: the compound's limit of calls, of bytes,
    of time; or -errno of reading D. The results up to there are good.
    """

    status: int
    results: tuple[Result, ...]
    time_ns: int


class Ready:
    """An explicit compound that is ready to run in a context, any number of times."""

    def __init__(
        self, context: Context, compound: str | Profile | Compound, name: str | None = None
    ) -> None:
        """`compound`: text, or what synth.language knows; of several the one called `name`.

        Raises SynthError for one that means nothing or that cannot be handed over, OSError where
        the context has no room.
        """
        if isinstance(compound, str):
            profile = parse(compound)
        elif isinstance(compound, Compound):
            profile = Profile((compound,))
        else:
            profile = compound
        found = [c for c in profile.compounds if c.explicit and name in (None, c.name)]
        if not found:
            raise SynthError(f"no explicit compound{f' {name}' if name else ''}: nothing to run")
        self._compound = found[0]
        self._context = context
        self._library = load_library()
        data = compile_profile(profile, "explicit compound")
        self._image = (ctypes.c_uint64 * ((len(data) + 7) // 8))()  # aligned, and kept
        ctypes.memmove(self._image, data, len(data))
        self._raw = _Ready()
        failed = self._library.cosy_compound_load(
            context.reference,
            self._image,
            ctypes.c_size_t(len(data)),
            self._compound.name.encode(),
            ctypes.byref(self._raw),
        )
        if failed == -errno.EOPNOTSUPP:
            call = self._compound.body[self._raw.op]
            raise SynthError(
                f"compound {self._compound.name}: call {self._raw.op}: {call.name} is not "
                "among the calls that may be handed over, or asks for a triggering call's argument"
            )
        if failed:
            raise OSError(-failed, os.strerror(-failed))

    def run(self, directory: int | None = None) -> Done:
        """Run it. `directory`: D, open for reading, from where its offset is; None: it has none.

        Raises OSError if it does not run at all.
        """
        records: list[Result] = []
        item = b""

        def take(_: int | None, first: int, size: int) -> None:
            nonlocal item
            block = ctypes.string_at(first, size)
            at = 0
            while at < size:
                raw = _Result.from_buffer_copy(block, at)
                data = block[at + ctypes.sizeof(_Result) :][: raw.data]
                at += raw.bytes
                if raw.op == ENTRY:
                    item = data
                    continue
                if self._compound.paths:
                    item = os.fsencode(self._compound.paths[raw.iteration])
                records.append(Result(raw.op, item, raw.ret, data))

        outcome = OutcomeStructure()
        failed = self._library.cosy_compound_run(
            self._context.reference,
            ctypes.byref(self._raw),
            ctypes.c_int(_NO_DIRECTORY if directory is None else directory),
            _TAKE(take),
            None,
            ctypes.byref(outcome),
        )
        if failed:
            raise OSError(-failed, os.strerror(-failed))
        return Done(outcome.status, tuple(records), outcome.time_ns)
