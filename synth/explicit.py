# SPDX-License-Identifier: MIT
"""Compounds by hand: write a program of system calls and run it in one crossing.

With the kernel module (/dev/cosy) it runs in the kernel, without it as plain calls of this process,
with the same results. docs/explicit.md has worked examples; instructions, registers, memory and
limits are those of kmod/uapi/cosy_module.h. The library behind this is kmod/user/.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import TracebackType

from tracer import native
from tracer.syscalls import by_name

LIBRARY = "libcosy-compound.so"
N_REGISTERS = 32
MAX_PROGRAMS = 64
MAX_INSNS = 4096
OPEN_PLAIN = 1
LOAD_PURE = 1
RUN_RESUME = 1
FUSED_ENTRIES, FUSED_FILES, FUSED_COPY = 1, 2, 3
AT_FDCWD = (1 << 64) - 100
BLOCK_END = 1
WRITABLE = 0x200  # PyBUF_WRITE


class Op(IntEnum):
    """enum cosy_insn_op."""

    EXIT = 0
    MOV = 1
    MOVI = 2
    MOVHI = 3
    ADD = 4
    ADDI = 5
    SUB = 6
    MUL = 7
    DIV = 8
    MOD = 9
    AND = 10
    ANDI = 11
    OR = 12
    XOR = 13
    SHLI = 14
    SHRI = 15
    LD8 = 16
    LD16 = 17
    LD32 = 18
    LD64 = 19
    ST8 = 20
    ST16 = 21
    ST32 = 22
    ST64 = 23
    JMP = 24
    JEQ = 25
    JNE = 26
    JLT = 27
    JGE = 28
    JSLT = 29
    JSGE = 30
    LOOP = 31
    STRLEN = 32
    MOVE = 33
    COMPARE = 34
    CALL = 35
    FUSED = 36


class Want(IntFlag):
    """COSY_WANT_*: what a fused operation is asked for."""

    NOTHING = 0
    XATTR = 0x1
    LINK = 0x2
    DATA = 0x4
    NOFOLLOW = 0x8
    NOATIME = 0x10
    AT = 0x20


class EntryFlag(IntFlag):
    """COSY_ENTRY_*: what a result says of an entry."""

    MOUNT = 0x1
    DATA = 0x2
    DATA_END = 0x4
    SPECIAL = 0x8


class _Insn(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("dst", ctypes.c_uint8),
        ("a", ctypes.c_uint8),
        ("b", ctypes.c_uint8),
        ("imm", ctypes.c_int32),
    )


class _Program(ctypes.Structure):
    _fields_ = (
        ("insns", _Insn * MAX_INSNS),
        ("n", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("full", ctypes.c_bool),
    )


class _Cosy(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("programs", ctypes.c_void_p * MAX_PROGRAMS),
    )


class _Limits(ctypes.Structure):
    _fields_ = (("deadline_ns", ctypes.c_uint64), ("ops", ctypes.c_uint64))


class OutcomeStructure(ctypes.Structure):
    """struct cosy_outcome."""

    _fields_ = (
        ("status", ctypes.c_int32),
        ("pc", ctypes.c_uint32),
        ("ops", ctypes.c_uint64),
        ("time_ns", ctypes.c_uint64),
    )


class _Load(ctypes.Structure):
    _fields_ = (
        ("insns", ctypes.c_uint64),
        ("n_insns", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("program", ctypes.c_uint32),
        ("error_at", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class _Run(ctypes.Structure):
    _fields_ = (
        ("program", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("limits", _Limits),
        ("outcome", OutcomeStructure),
        ("regs", ctypes.c_uint64 * N_REGISTERS),
    )


class _Fused(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("args", ctypes.c_uint64 * 8),
        ("limits", _Limits),
        ("outcome", OutcomeStructure),
        ("result", ctypes.c_int64),
        ("used", ctypes.c_uint64),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_uint32),
        ("n", ctypes.c_uint32),
        ("parent", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("next", ctypes.c_uint64),
        ("ino", ctypes.c_uint64),
        ("dev", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
    )


class _Entry(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint16),
        ("mode", ctypes.c_uint16),
        ("name_len", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("n_xattrs", ctypes.c_uint8),
        ("data", ctypes.c_int32),
        ("mask", ctypes.c_uint32),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        *((f"{which}_sec", ctypes.c_int64) for which in ("atime", "mtime", "ctime", "btime")),
        *((f"{which}_nsec", ctypes.c_uint32) for which in ("atime", "mtime", "ctime", "btime")),
        ("attributes", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("dev", ctypes.c_uint32),
        ("rdev", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
    )


# What the library's ABI depends on; a test compares them with the header.
STRUCTURES = {
    "cosy_insn": _Insn,
    "cosy_program": _Program,
    "cosy": _Cosy,
    "cosy_load": _Load,
    "cosy_run": _Run,
    "cosy_fused": _Fused,
    "cosy_block": _Block,
    "cosy_entry": _Entry,
}


class RefusedError(ValueError):
    """The verifier does not let a program pass: instruction `at`, enum cosy_refusal `reason`."""

    def __init__(self, at: int, reason: int) -> None:
        super().__init__(f"instruction {at} is refused, reason {reason} of enum cosy_refusal")
        self.at = at
        self.reason = reason


@dataclass(frozen=True)
class Outcome:
    """How a run ended: status 0 or -errno (cosy_module.h), and what it left in the registers."""

    status: int
    pc: int
    ops: int
    time_ns: int
    registers: tuple[int, ...]

    def signed(self, register: int) -> int:
        """A register as a call's result: negative is -errno."""
        return ctypes.c_int64(self.registers[register]).value


@dataclass(frozen=True)
class Entry:
    """One file or directory entry. `error`, `data_error`: 0 or -errno."""

    name: bytes
    error: int
    flags: EntryFlag
    mode: int
    ino: int
    size: int
    mtime_ns: int
    data: bytes
    data_error: int

    @property
    def whole(self) -> bool:
        """Whether data reaches to the end of the file."""
        return bool(self.flags & EntryFlag.DATA_END)


class Program:
    """A program under construction; registers are numbers from 0 to 31."""

    def __init__(self) -> None:
        self._library = load_library()
        self.raw = _Program()

    def emit(self, op: Op, dst: int = 0, a: int = 0, b: int = 0, imm: int = 0) -> None:
        """Any instruction."""
        self._library.cosy_emit(ctypes.byref(self.raw), op, dst, a, b, imm)

    def set(self, dst: int, value: int) -> None:
        """dst = value, any 64 bits."""
        self._library.cosy_set(ctypes.byref(self.raw), dst, value)

    def call(self, dst: int, name: str, *arguments: int, first: int = 16) -> None:
        """dst = the result of system call `name`, its arguments in registers from `first` on.

        `arguments` are written there first, as constants; without any, registers stay as they are.
        """
        for register, value in enumerate(arguments, first):
            self.set(register, value)
        number = by_name()[name].nr
        self._library.cosy_call(ctypes.byref(self.raw), dst, number, first)

    def fused(self, dst: int, op: int, first: int = 16) -> None:
        """dst = the result of a fused operation, arguments in registers from `first` on."""
        self._library.cosy_fused_call(ctypes.byref(self.raw), dst, op, first)

    @contextmanager
    def skip_if(self, op: Op, a: int = 0, b: int = 0) -> Iterator[None]:
        """What is written in the block is passed over if `a op b`, one of the jumps."""
        jump = self._library.cosy_jump(ctypes.byref(self.raw), op, a, b)
        yield
        self._library.cosy_land(ctypes.byref(self.raw), jump)

    @contextmanager
    def loop(self, counter: int) -> Iterator[None]:
        """What is written in the block runs as often as register `counter` says, at least once."""
        start = self._library.cosy_loop_start(ctypes.byref(self.raw))
        yield
        self._library.cosy_loop_end(ctypes.byref(self.raw), counter, start)

    def exit(self) -> None:
        """The end, which every program needs."""
        self._library.cosy_exit(ctypes.byref(self.raw))


class Context:
    """A place to run programs, with a buffer that is their memory: address 0 is its first byte.

    plain: do not use the module even if it is there. Not for several threads at once.
    """

    def __init__(self, buffer_bytes: int = 1 << 20, *, plain: bool = False) -> None:
        """Raises OSError if there is no memory for the buffer."""
        self._library = load_library()
        self._raw = _Cosy(fd=-1)
        flags = OPEN_PLAIN if plain else 0
        _check(self._library.cosy_open(ctypes.byref(self._raw), buffer_bytes, flags))
        self.buffer = _memory_view(self._raw.buffer, self._raw.bytes, WRITABLE)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; the buffer must not be used any more."""
        if self._raw.bytes:
            self.buffer.release()
            self._library.cosy_close(ctypes.byref(self._raw))

    @property
    def in_kernel(self) -> bool:
        """Whether programs run in the kernel."""
        return bool(self._raw.fd >= 0)

    @property
    def reference(self) -> object:
        """Of the struct cosy, for functions of the library."""
        return ctypes.byref(self._raw)

    def put(self, address: int, data: bytes) -> None:
        """Write `data` to the buffer, and a NUL behind it."""
        self.buffer[address : address + len(data) + 1] = data + b"\0"

    def load(self, program: Program, *, pure: bool = False) -> int:
        """Check a program and keep a copy; its number. Raises RefusedError or OSError."""
        refused = _Load()
        flags = LOAD_PURE if pure else 0
        number = self._library.cosy_load(
            ctypes.byref(self._raw), ctypes.byref(program.raw), flags, ctypes.byref(refused)
        )
        if number < 0 and refused.reason:
            raise RefusedError(refused.error_at, refused.reason)
        return int(_check(number))

    def unload(self, number: int) -> None:
        """Forget a program."""
        _check(self._library.cosy_unload(ctypes.byref(self._raw), number))

    def run(
        self,
        number: int,
        registers: Mapping[int, int] | None = None,
        *,
        deadline_ns: int = 0,
        ops: int = 0,
        resume: Outcome | None = None,
    ) -> Outcome:
        """Run a loaded program, from its start or where an earlier run ended (`resume`).

        registers: what they hold at the start, 0 where nothing is said. deadline_ns, ops: limits, 0
        for the most that is allowed. Raises OSError if it does not run at all.
        """
        run = _Run(program=number)
        run.limits = _Limits(deadline_ns, ops)
        if resume is not None:
            run.flags = RUN_RESUME
            run.outcome.pc = resume.pc
            run.regs[:] = resume.registers
        for register, value in (registers or {}).items():
            run.regs[register] = value & (1 << 64) - 1
        _check(self._library.cosy_run(ctypes.byref(self._raw), ctypes.byref(run)))
        out = run.outcome
        return Outcome(out.status, out.pc, out.ops, out.time_ns, tuple(run.regs))

    def files(
        self,
        names: Iterable[str | bytes],
        *,
        directory: int = AT_FDCWD,
        want: Want = Want.DATA,
        offset: int = 0,
        most_bytes: int = 1 << 16,
    ) -> Iterator[Entry]:
        """Open, fstat, read and close each file, as many in one crossing as the buffer holds.

        The first quarter of the buffer holds names, the rest results. Raises OSError.
        """
        room = len(self.buffer) // 4 & ~7
        pending = [os.fsencode(name) + b"\0" for name in names]
        while pending:
            used = 0
            for name in pending:
                if used + len(name) > room:
                    break
                self.buffer[used : used + len(name)] = name
                used += len(name)
            if used == 0:
                raise ValueError(f"a name of {len(pending[0])} bytes: the buffer is too small")
            arguments = [
                directory,
                want,
                room,
                len(self.buffer) - room,
                0,
                used,
                offset,
                most_bytes,
            ]
            found = list(self._fused(FUSED_FILES, arguments, room))
            if not found:
                raise ValueError("the buffer is too small for one result")
            yield from found
            del pending[: len(found)]

    def entries(
        self, directory: int, *, want: Want = Want.NOTHING, most_bytes: int = 0
    ) -> Iterator[Entry]:
        """Entries of an open directory with their attributes, in no order. Raises OSError."""
        position = 0
        while True:
            arguments = [directory, want, 0, len(self.buffer), position, 0, 0, most_bytes]
            yield from list(self._fused(FUSED_ENTRIES, arguments, 0))
            block = _Block.from_buffer(self.buffer)
            at_end, position, error, n = block.flags & BLOCK_END, block.next, block.error, block.n
            del block
            if error:
                raise OSError(error, os.strerror(error))
            if at_end:
                return
            if not n:
                raise ValueError("the buffer is too small for one result")

    def _fused(self, op: int, arguments: list[int], out: int) -> Iterator[Entry]:
        call = _Fused(op=op)
        call.args[:] = arguments
        _check(self._library.cosy_fused(ctypes.byref(self._raw), ctypes.byref(call)))
        _check(call.result)
        block = _Block.from_buffer(self.buffer, out)
        at, n = out + ctypes.sizeof(_Block), block.n
        del block
        for _ in range(n):
            bytes_, entry = _read_entry(self.buffer, at)
            yield entry
            at += bytes_


def _read_entry(buffer: memoryview, at: int) -> tuple[int, Entry]:
    raw = _Entry.from_buffer_copy(buffer, at)
    name_at = at + ctypes.sizeof(_Entry) + (raw.n_xattrs + 1) // 2 * 8
    data_at = name_at + (raw.name_len + 8) // 8 * 8
    data_bytes = max(raw.data, 0)
    entry = Entry(
        name=bytes(buffer[name_at : name_at + raw.name_len]),
        error=raw.error,
        flags=EntryFlag(raw.flags),
        mode=raw.mode,
        ino=raw.ino,
        size=raw.size,
        mtime_ns=raw.mtime_sec * 1_000_000_000 + raw.mtime_nsec,
        data=bytes(buffer[data_at : data_at + data_bytes]),
        data_error=min(raw.data, 0),
    )
    return raw.bytes, entry


_memory_view = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_view.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_memory_view.restype = ctypes.py_object
_loaded: ctypes.CDLL | None = None


def load_library() -> ctypes.CDLL:
    """libcosy-compound.so with its prototypes; raises native.NativeFileError."""
    global _loaded
    if _loaded is None:
        library = ctypes.CDLL(str(native.find(LIBRARY)))
        library.cosy_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
        library.cosy_call.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
        library.cosy_open.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        for name in ("cosy_emit", "cosy_jump", "cosy_loop_start"):
            getattr(library, name).restype = ctypes.c_uint32
        _loaded = library
    return _loaded


def _check(result: int) -> int:
    """The result of a call; raises OSError for -errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
