# SPDX-License-Identifier: MIT
"""Data flow of a trace: which call is about which entry of which directory scan.

A *scan* is one reading of a directory with getdents64. A call is a *child call* of a scan when it
names an entry that the scan returned (the dataset holds a hash of each, cosy_trace.h), or when it
works on a descriptor that came from opening one. Everything is joins over whole columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from miner import arrow
from miner.descriptors import Second, second
from miner.events import Bools, Events, Ints
from miner.joins import is_one, last_before
from miner.order import order, ranges
from miner.paths import Arguments, Directories, arguments
from tracer.dataset import path_bytes

FNV_BASIS, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)  # cosy_trace.h

TYPE_NAMES = ["unknown", "dir", "file", "link", "other"]
_DT_TYPE = np.full(16, 4, dtype=np.int64)  # DT_* of <dirent.h> to an index into TYPE_NAMES
_DT_TYPE[[0, 4, 8, 10]] = [0, 1, 2, 3]
DIR = 1
_S_IFMT_TYPE = {0x4000: 1, 0x8000: 2, 0xA000: 3}


class Via(IntEnum):
    """How a child call names its entry e of directory D."""

    NAME = 0  # (fd of D, e.name)
    PATH = 1  # D + "/" + e.name
    CWD = 2  # e.name, D being the working directory
    RESULT = 3  # the descriptor that opening e gave
    OTHER = 4  # a path from some other descriptor
    FILE = 5  # in a loop over one open file: its descriptor


SCAN_NAMES = [name.lower() for name in Via.__members__]
"""Names of the values of Via."""


@dataclass(frozen=True)
class Scans:
    """Directory scans, one row each, in the order of their first getdents64."""

    pid: Ints
    image: Ints  # index into Events.processes, -1: unknown
    folder: Ints  # directory number, -1: unknown
    opened: Ints  # event that opened the descriptor, -1: unknown
    first: Ints  # event of the first and of the last getdents64
    last: Ints
    entries: Ints  # number of entries but "." and ".."
    entry_start: Ints  # into the entry columns
    parent: Ints  # scan whose entry was opened for this one, -1: none
    entry_scan: Ints  # entry columns: their scan, in the order of getdents64
    entry_hash: NDArray[np.uint32]  # without the type
    entry_type: Ints  # index into TYPE_NAMES

    def __len__(self) -> int:
        return len(self.pid)


@dataclass(frozen=True)
class Annotated:
    """A trace with its provenance. Arrays over events unless said otherwise."""

    events: Events
    root: Ints  # event that opened what the descriptor argument means, -1: none or unknown
    second: Second  # of the events that have a second descriptor argument
    arguments: Arguments
    directories: list[str]  # paths, by directory number
    scans: Scans
    image: Ints  # index into Events.processes, -1: unknown
    program: Ints  # by image: number of its executable; one more, for image -1
    scan: Ints  # scan that the call is a child call of, -1: none
    entry: Ints  # index into the scans' entry columns, -1: none
    via: Ints  # Via, -1: no child call
    descends: Bools  # opens an entry that is scanned in turn

    @cached_property
    def command_words(self) -> tuple[Ints, Ints]:
        """By code of a path (one more, for none) the number of the word that it is, -1: of no
        command line; and all pairs of image and word as image << 32 | word."""
        words = [(i, word) for i, p in enumerate(self.events.processes) for word in p.argv[1:]]
        texts = arrow.strings(word for _, word in words).dictionary_encode()
        word_of = pc.index_in(self.events.path.array, value_set=texts.dictionary)
        images = np.array([i for i, _ in words], dtype=np.int64)
        pairs = (images << 32) | arrow.integers(texts.indices, -1)
        return np.append(arrow.integers(word_of, -1), -1), pairs


def fnv_hashes(names: pa.StringArray) -> NDArray[np.uint32]:
    """FNV-1a of each name with the lowest 4 bits clear, as the dataset keeps it."""
    if pc.any(pc.match_substring(names, "%")).as_py():  # the percent form of odd names
        raw = [path_bytes(name) for name in names.to_pylist()]
        offsets = np.cumsum([0, *map(len, raw)])
        data = b"".join(raw)
    else:
        bounds = np.frombuffer(names.buffers()[1], dtype=np.int32)
        offsets, data = bounds[: len(names) + 1].astype(np.int64), names.buffers()[2]
    octets = np.frombuffer(data, dtype=np.uint8) if data else np.zeros(0, np.uint8)
    start, length = offsets[:-1], np.diff(offsets)
    by_length = order(-length)
    start, length = start[by_length], length[by_length]
    value = np.full(len(names), FNV_BASIS, dtype=np.uint32)
    # The longest names come first, so those with a j-th byte are a prefix.
    longest = int(length[0]) if len(length) else 0
    longer = np.searchsorted(-length, -np.arange(longest), side="left")
    for j, n in enumerate(longer.tolist()):
        value[:n] = (value[:n] ^ octets[start[:n] + j]) * FNV_PRIME
    out = np.empty_like(value)
    out[by_length] = value & np.uint32(0xFFFFFFF0)
    return out


def _images(events: Events) -> Ints:
    """Index of the program image that made each event."""
    pid = np.array([p.pid for p in events.processes], dtype=np.int64)
    start = np.array([p.start_ns for p in events.processes], dtype=np.int64)
    found = last_before(pid, start, events.pid, events.t_ns)
    if not len(pid):
        return found
    # A backend may stamp a process a little after its first call.
    known, first = np.unique(pid, return_index=True)
    early = np.flatnonzero(found < 0)
    at = np.minimum(np.searchsorted(known, events.pid[early]), len(known) - 1)
    found[early] = np.where(known[at] == events.pid[early], first[at], -1)
    return found


def _programs(events: Events) -> Ints:
    """Number of each image's executable, from 1; 0 for the unknown image at the end."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(p.exe, len(known) + 1) for p in events.processes] + [0])


def _scans(events: Events, folders: Directories, image: Ints) -> Scans:
    rows = np.flatnonzero(is_one(events.nr, "getdents64", "getdents") & (events.ret >= 0))
    rows = rows[events.object[rows] >= 0]
    key = events.object[rows]
    by_object = order(key)
    rows, key = rows[by_object], key[by_object]
    more = events.ret[rows] > 0
    new = np.ones(len(rows), dtype=bool)
    # Entries after the end: the program rewound the directory, this is another scan.
    new[1:] = (key[1:] != key[:-1]) | (more[1:] & ~more[:-1])
    group = np.cumsum(new) - 1
    count = int(group[-1]) + 1 if len(group) else 0
    begin = np.flatnonzero(new)
    first, last = rows[begin], rows[np.append(begin[1:], len(rows)) - 1] if count else begin
    # Number the scans by time.
    rank = np.empty(count, dtype=np.int64)
    by_time = np.argsort(first, kind="stable")
    rank[by_time] = np.arange(count)
    scan_of_row = rank[group]
    by_scan = order(scan_of_row)
    rows, scan_of_row = rows[by_scan], scan_of_row[by_scan]
    length = events.names_end[rows] - events.names_start[rows]
    values = events.names[ranges(events.names_start[rows], length)]
    entries = np.bincount(scan_of_row, weights=length, minlength=count).astype(np.int64)
    first, last, what = first[by_time], last[by_time], key[begin][by_time]
    return Scans(
        pid=events.pid[first],
        image=image[first],
        folder=folders.of_objects(events.objects, what),
        opened=events.objects.event[what],
        first=first,
        last=last,
        entries=entries,
        entry_start=np.cumsum(entries) - entries,
        parent=np.full(count, -1, dtype=np.int64),
        entry_scan=np.repeat(scan_of_row, length),
        entry_hash=values & np.uint32(0xFFFFFFF0),
        entry_type=_DT_TYPE[values & np.uint32(15)],
    )


def _match(events: Events, scans: Scans, named: Arguments) -> tuple[Ints, Ints]:
    """Scan and entry that each path argument names, -1: none."""
    scan = np.full(len(events), -1, dtype=np.int64)
    entry = np.full(len(events), -1, dtype=np.int64)
    known = np.flatnonzero(scans.folder >= 0)
    rows = np.flatnonzero(named.has & (named.folder >= 0) & (named.name >= 0))
    if not len(known) or not len(rows):
        return scan, entry
    # A directory number fits 31 bits, a process number 22.
    scan_key = (scans.pid[known] << 32) | scans.folder[known]
    use_key = (events.pid[rows] << 32) | named.folder[rows]
    first = scans.first[known]
    scan_time = events.t_ns[first] + events.dur_ns[first]
    candidate = last_before(scan_key, scan_time, use_key, events.t_ns[rows])
    rows, candidate = rows[candidate >= 0], known[candidate[candidate >= 0]]
    if not len(scans.entry_hash):
        return scan, entry
    hashes = fnv_hashes(named.names)[named.name[rows]]
    # Found by 24 bits of the hash, which sort fast, and compared by all of it.
    have = (scans.entry_scan << 24) | (scans.entry_hash >> 8)
    by_hash = order(have)
    have = have[by_hash]
    at = np.searchsorted(have, (candidate << 24) | (hashes >> 8))
    at = np.minimum(at, len(have) - 1)
    found = by_hash[at]
    hit = (scans.entry_hash[found] == hashes) & (scans.entry_scan[found] == candidate)
    scan[rows[hit]], entry[rows[hit]] = candidate[hit], found[hit]
    return scan, entry


def _fill_types(events: Events, scans: Scans, entry: Ints) -> None:
    """Types that getdents64 left open, from the attributes that a child call returned."""
    rows = np.flatnonzero((entry >= 0) & (events.st_mode >= 0))
    rows = rows[scans.entry_type[entry[rows]] == 0]
    bits = events.st_mode[rows] & 0xF000
    found = np.full(len(rows), 4, dtype=np.int64)
    for mask, code in _S_IFMT_TYPE.items():
        found[bits == mask] = code
    scans.entry_type[entry[rows]] = found


def annotate(events: Events) -> Annotated:
    """Work out the provenance of every call of a trace."""
    folders = Directories()
    named = arguments(events, folders)
    image = _images(events)
    scans = _scans(events, folders, image)
    scan, entry = _match(events, scans, named)
    via = np.full(len(events), -1, dtype=np.int64)
    child = np.flatnonzero(scan >= 0)
    plain = named.plain[child]
    via[child] = np.where(
        named.relative_to_fd[child],
        np.where(plain, int(Via.NAME), int(Via.OTHER)),
        np.where(plain, int(Via.CWD), int(Via.PATH)),
    )
    scanned = np.zeros(len(events), dtype=bool)
    scanned[scans.opened[scans.opened >= 0]] = True
    has_opened = scans.opened >= 0
    scans.parent[has_opened] = scan[scans.opened[has_opened]]
    # Work on a descriptor of an entry that was opened; a sub-directory's scan is its own loop.
    root = events.root
    opens_entry = (scan >= 0) & ~scanned
    rows = np.flatnonzero((root >= 0) & (scan < 0) & opens_entry[root])
    opener = root[rows]
    scan[rows], entry[rows] = scan[opener], entry[opener]
    via[rows] = Via.RESULT
    _fill_types(events, scans, entry)
    return Annotated(
        events=events,
        root=root,
        second=second(events, image),
        arguments=named,
        directories=folders.paths,
        scans=scans,
        image=image,
        program=_programs(events),
        scan=scan,
        entry=entry,
        via=via,
        descends=scanned & (scan >= 0),
    )
