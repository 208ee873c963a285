# SPDX-License-Identifier: MIT
"""What a summary adds up, over as many events as there are: memory grows with paths and threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import insights
from tracer.columns import numbers
from tracer.dataset import Dataset

BATCH = 1 << 18  # events at a time
MAX_TOKENS = 1 << 20
"""So many events, the first ones, are looked at for sequences."""
_NUMBERS = ["pid", "tid", "nr", "ret", "t_ns", "dur_ns", "bytes_in", "bytes_out"]
COLUMNS = [*_NUMBERS, "path", "object_id", "site"]
_MAX_NR = 1 << 15

Ints = npt.NDArray[np.int64]
Pairs = dict[int, tuple[int, int]]


class Totals:
    """Adds up the events of a dataset, given in the order of time."""

    def __init__(self, data: Dataset) -> None:
        self.by_nr = np.zeros((5, _MAX_NR), np.int64)
        """By call number: calls, errors, time, bytes in, bytes out."""
        self.processes: Pairs = {}
        """Calls and time inside them, by process."""
        self.sites: dict[str, tuple[int, int]] = {}
        """The same by call site."""
        self.threads: set[int] = set()
        self.own = insights.OwnTime()
        self.files = insights.Files(data)
        self.interrupted = 0
        self.restarted = 0
        self._first: list[tuple[Ints, Ints, Ints]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take some events with the COLUMNS."""
        of = {name: numbers(batch[name]) for name in _NUMBERS}
        nr, tid, duration, ret = of["nr"], of["tid"], of["dur_ns"], of["ret"]
        failed = (ret < 0).astype(np.int64)
        weights = (None, failed, duration, of["bytes_in"], of["bytes_out"])
        for row, values in enumerate(weights):
            added = np.bincount(nr, values, minlength=_MAX_NR)
            self.by_nr[row] += added.astype(np.int64)
        for pid, (calls, time_ns) in insights.by_number(of["pid"], duration).items():
            before = self.processes.get(pid, (0, 0))
            self.processes[pid] = before[0] + calls, before[1] + time_ns
        self._add_sites(batch["site"], duration)
        self.threads.update(np.unique(tid).tolist())
        self.own.add(tid, of["t_ns"], duration)
        self.files.add(
            batch["path"],
            batch["object_id"],
            calls=np.ones(len(nr), np.int64),
            errors=failed,
            time_ns=duration,
            bytes=of["bytes_in"] + of["bytes_out"],
        )
        self.interrupted += int((ret == -insights.EINTR).sum())
        self.restarted += int(np.isin(ret, [-number for number in insights.RESTARTS]).sum())
        wanted = MAX_TOKENS - sum(len(part[0]) for part in self._first)
        if wanted > 0:
            self._first.append((tid[:wanted], nr[:wanted], duration[:wanted]))

    def _add_sites(self, site: pa.Array, duration: Ints) -> None:
        coded = site if pa.types.is_dictionary(site.type) else site.dictionary_encode()
        words = coded.dictionary.to_pylist()
        codes = numbers(coded.indices, len(words))
        for code, (calls, time_ns) in insights.by_number(codes, duration).items():
            if code < len(words):
                before = self.sites.get(words[code], (0, 0))
                self.sites[words[code]] = before[0] + calls, before[1] + time_ns

    def first(self) -> tuple[Ints, Ints, Ints]:
        """Return thread, call number and time inside the call of the first MAX_TOKENS events."""
        none = np.empty(0, np.int64)
        tid, nr, duration = zip((none, none, none), *self._first, strict=True)
        return np.concatenate(tid), np.concatenate(nr), np.concatenate(duration)
