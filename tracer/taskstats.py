# SPDX-License-Identifier: MIT
"""What the kernel tells of each task that ends: its CPU time and status, by netlink, to root.

struct taskstats and struct genlmsghdr are those of linux/taskstats.h and linux/genetlink.h;
Documentation/accounting/taskstats.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tracer.identity import adjusted
from tracer.timeline import End

_GENERIC = 16  # NETLINK_GENERIC, and the number of its family "nlctrl"
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_REQUEST, _ACK, _ERROR = 1, 4, 2
_CMD_GET, _REGISTER = 1, 3
_AGGR_PID, _STATS = 4, 3
_NESTED = 0x3FFF  # attribute types without their flags
_HEAD = struct.Struct("<IHHII")
_COMMAND = struct.Struct("<BBH")
_ATTRIBUTE = struct.Struct("<HH")
# Offsets in struct taskstats.
_EXIT_CODE, _RUN_NS, _PID, _USER_US, _TGID = 4, 72, 128, 152, 368
_BUFFER_BYTES = 16 << 20
MAX_NOTED = 1 << 18  # the machine's latest tasks


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the types and contents of netlink attributes."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        yield kind & _NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def listener() -> Listener | None:
    """Begin to listen, where the kernel tells."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            return Listener()
    return None


@dataclass(frozen=True)
class Account:
    """One task that has ended."""

    tgid: int
    tid: int
    status: int
    cpu_ns: tuple[int, int]


def account(stats: bytes) -> Account | None:
    """Take a struct taskstats apart; None: the kernel is too old to say whose task it was."""
    if len(stats) < _TGID + 4:
        return None
    tid, tgid = (struct.unpack_from("<I", stats, at)[0] for at in (_PID, _TGID))
    (status,) = struct.unpack_from("<I", stats, _EXIT_CODE)
    (run_ns,) = struct.unpack_from("<Q", stats, _RUN_NS)
    user_us, system_us = struct.unpack_from("<QQ", stats, _USER_US)
    return Account(
        tgid, tid, status, adjusted(run_ns, 1000 * (user_us + system_us), 1000 * user_us)
    )


class Listener:
    """Notes how the processes of this machine end, from now to close()."""

    def __init__(self) -> None:
        """Begin; raises OSError where the kernel will not tell (no root, a container)."""
        self.ends: dict[int, End] = {}
        self.threads: dict[tuple[int, int], int] = {}
        """When threads ended, by process and thread; CLOCK_MONOTONIC."""
        self._firsts: set[int] = set()
        """Processes whose first task has ended."""
        self._whole = True
        self._closing = os.eventfd(0, os.EFD_CLOEXEC)
        self._cpus = f"0-{os.sysconf('SC_NPROCESSORS_CONF') - 1}".encode() + b"\0"
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC)
        try:
            self._socket.bind((0, 0))
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
            name = self._ask(_GENERIC, _GET_FAMILY, _FAMILY_NAME, b"TASKSTATS\0")
            found = dict(attributes(name[_COMMAND.size :])).get(_FAMILY_ID)
            if not found:
                raise OSError(errno.EPROTO, "no number of the family")
            (self._family,) = struct.unpack("<H", found[:2])
            self._ask(self._family, _CMD_GET, _REGISTER, self._cpus, _ACK)
        except OSError:
            self._socket.close()
            os.close(self._closing)
            raise
        self._socket.setblocking(False)
        self._reader = threading.Thread(target=self._run, daemon=True)
        # Signals are for those who wait for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._reader.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        """End. A task is here before its parent can know that it has ended."""
        os.eventfd_write(self._closing, 1)
        self._reader.join()
        self._socket.close()
        os.close(self._closing)
        if not self._whole:
            self.ends.clear()
            self.threads.clear()

    def _send(self, family: int, command: int, kind: int, value: bytes, flags: int) -> None:
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
        body = _COMMAND.pack(command, 1, 0) + attribute + b"\0" * (-len(attribute) % 4)
        self._socket.send(_HEAD.pack(_HEAD.size + len(body), family, _REQUEST | flags, 1, 0) + body)

    def _ask(self, family: int, command: int, kind: int, value: bytes, flags: int = 0) -> bytes:
        self._send(family, command, kind, value, flags)
        answer = self._socket.recv(1 << 16)
        if _HEAD.unpack_from(answer)[1] == _ERROR:
            (number,) = struct.unpack_from("<i", answer, _HEAD.size)
            if number:
                raise OSError(-number, os.strerror(-number))
        return answer[_HEAD.size :]

    def _run(self) -> None:
        wait = select.poll()
        for fd in (self._socket.fileno(), self._closing):
            wait.register(fd, select.POLLIN)
        while True:
            closing = any(fd == self._closing for fd, _ in wait.poll())
            self._take()
            if closing:
                return

    def _take(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # more than there was room for
                self._whole = False
                return
            if _HEAD.unpack_from(data)[1] != self._family:
                continue  # an answer that a task's end has overtaken
            now_ns = time.monotonic_ns()
            for kind, value in attributes(data[_HEAD.size + _COMMAND.size :]):
                stats = dict(attributes(value)).get(_STATS) if kind == _AGGR_PID else None
                if stats and (found := account(stats)):
                    self._note(found, now_ns)

    def _note(self, found: Account, now_ns: int) -> None:
        pid = found.tgid
        first = found.tid == pid
        known = self.ends.get(pid, End())
        if first and pid in self._firsts:
            known = End()  # another process of the same number
        self._firsts |= {pid} if first else set()
        user, system = known.cpu_ns or (0, 0)
        spent = user + found.cpu_ns[0], system + found.cpu_ns[1]
        self.threads[pid, found.tid] = now_ns
        if len(self.threads) > MAX_NOTED:  # the oldest goes
            del self.threads[next(iter(self.threads))]
        if len(self.ends) > MAX_NOTED:
            del self.ends[next(iter(self.ends))]
        self.ends[pid] = End(found.status if first else known.status, spent, now_ns)
