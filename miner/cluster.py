# SPDX-License-Identifier: MIT
"""Groups variants of one motif by their signatures, and names motifs by their content.

A signature says how regularly each call is made (a number from 0 to 1 per feature). Signatures are
few, so the quadratic distance matrix is small; events are never clustered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miner.motifs import Motif, Over

Signature = Mapping[Any, float]

MAX_DISTANCE = 0.35
"""Signatures further apart (1 - Ruzicka similarity, average linkage) are other motifs."""

_O_NEW = 0o100 | 0o1000  # O_CREAT, O_TRUNC
_PRECISION = 2  # digits of a feature that count as the same
_NAMED_SHARE = 0.3  # calls in fewer iterations do not show in the name
_NAMED_CALLS = 5


@dataclass(frozen=True)
class Cluster:
    """Indices of signatures; the medoid is the one closest to all, by weight."""

    medoid: int
    members: list[int]  # the medoid first


def distances(signatures: Sequence[Signature]) -> NDArray[np.float64]:
    """1 - sum(min) / sum(max) of each pair (Ruzicka, the weighted Jaccard distance)."""
    features = sorted({f for s in signatures for f in s}, key=repr)
    matrix = np.array([[s.get(f, 0.0) for f in features] for s in signatures], dtype=np.float64)
    out = np.zeros((len(signatures), len(signatures)))
    for i, row in enumerate(matrix):
        largest = np.maximum(matrix, row).sum(axis=1)
        smallest = np.minimum(matrix, row).sum(axis=1)
        out[i] = 1.0 - np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0)
    return out


def clusters(signatures: Sequence[Signature], weights: Sequence[float]) -> list[Cluster]:
    """Group signatures; deterministic, heaviest group first."""
    if not signatures:
        return []
    rounded = [
        tuple(sorted(((f, round(v, _PRECISION)) for f, v in s.items()), key=repr))
        for s in signatures
    ]
    index = {key: i for i, key in enumerate(dict.fromkeys(rounded))}
    kind = [index[key] for key in rounded]
    kinds = [dict(key) for key in index]
    total = np.bincount(kind, weights=weights)
    distance = distances(kinds)
    labels = np.zeros(1, dtype=np.int64)
    if len(kinds) > 1:
        from sklearn.cluster import AgglomerativeClustering

        labels = AgglomerativeClustering(
            n_clusters=None,
            metric="precomputed",
            linkage="average",
            distance_threshold=MAX_DISTANCE,
        ).fit_predict(distance)
    found = []
    for label in np.unique(labels):
        group = np.flatnonzero(labels == label)
        center = group[np.argmin(distance[np.ix_(group, group)] @ total[group])]
        members = [i for i, k in enumerate(kind) if labels[k] == label]
        first = max((i for i in members if kind[i] == center), key=lambda i: (weights[i], -i))
        found.append(Cluster(first, [first, *(i for i in members if i != first)]))
    return sorted(found, key=lambda c: (-sum(weights[i] for i in c.members), c.medoid))


_FAMILIES = {
    "stat": ("stat", "lstat", "fstat", "newfstatat", "statx"),
    "xattr": ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
    "open": ("open", "openat", "openat2", "creat"),
    "read": ("read", "pread64", "readv", "preadv", "preadv2"),
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2"),
    "getdents": ("getdents64", "getdents"),
    "readlink": ("readlink", "readlinkat"),
    "access": ("access", "faccessat", "faccessat2"),
    "seek": ("lseek",),
    "recv": ("recvfrom", "recvmsg"),
    "send": ("sendto", "sendmsg"),
    "copy": ("copy_file_range", "sendfile", "splice"),
    "wait": ("epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "link": ("link", "linkat"),
    "rename": ("rename", "renameat", "renameat2"),
}
FRAME = {"open", "close", "stat", "fcntl", "seek"}  # around what is done with a file
_ATTRIBUTES = {"utimensat", "fchmod", "fchown", "fsetxattr"}  # of a file, not what it holds
_FAMILY = {name: family for family, names in _FAMILIES.items() for name in names}


def family(syscall: str) -> str:
    """The kind of call: `stat` for newfstatat, statx and lstat."""
    return _FAMILY.get(syscall, syscall)


def _shares(motif: Motif) -> dict[str, float]:
    """By family of call the largest share of the iterations that have it."""
    shares: dict[str, float] = {}
    for call in motif.calls:
        name = family(call.syscall)
        shares[name] = max(shares.get(name, 0.0), call.share)
    return shares


def _file_name(motif: Motif) -> str:
    """What is done with each file between the open and the close."""
    share = _shares(motif)
    done = [name for name in share if share[name] >= _NAMED_SHARE and name not in FRAME]
    reads = [c for c in motif.calls if family(c.syscall) == "read" and c.share >= _NAMED_SHARE]
    if "getdents" in done:
        return "read-directory"
    if "copy" in done:
        return "copy-file"
    if "write" in done:
        return "rewrite-file" if reads else "write-file"
    if _creates(motif) and not reads:
        if "unlink" in done and "link" not in done:
            return "temporary-file"
        # What fills it may name it second (copy_file_range), or never.
        return "write-file" if set(done) - _ATTRIBUTES else "create-file"
    if done == ["mmap"]:
        return "map-file"
    if reads and not {"write", "mmap"} & set(done):
        return "slurp" if motif.loop and motif.loop.whole >= 0.5 else "read-file"
    if done == ["read", "mmap"]:
        return (
            "load-library" if all(c.repeats.get("p90", 0) <= 2 for c in reads) else "read-map-file"
        )
    words = [name for name in share if share[name] >= _NAMED_SHARE][:_NAMED_CALLS]
    return "-".join(["file", *words])


def _creates(motif: Motif) -> bool:
    """Whether most of the files are opened to be made or emptied."""
    opens = [c for c in motif.calls if family(c.syscall) == "open"]
    total = sum(c.count for c in opens)
    new = sum(seen.count for c in opens for seen in c.flags if seen.value & _O_NEW)
    new += sum(c.count for c in opens if c.syscall == "creat")
    return 2 * new > total


def _list_name(motif: Motif) -> str:
    count = sum(c.count for c in motif.calls)
    missing = sum(
        c.error_names.get("ENOENT", 0) + c.error_names.get("ENOTDIR", 0) for c in motif.calls
    )
    if missing >= 0.5 * count:
        return "probe-list"
    share = _shares(motif)
    words = [name for name in share if share[name] >= _NAMED_SHARE] or list(share)
    return "-".join(["list", *words[:_NAMED_CALLS]])


def _serve_name(motif: Motif) -> str:
    share = _shares(motif)
    words = [n for n in share if share[n] >= _NAMED_SHARE and n not in FRAME - {"open"}]
    return "-".join(["serve", *dict.fromkeys(words[:_NAMED_CALLS])])


def content_name(motif: Motif) -> str:
    """A name that follows from the motif's content alone, such as dirscan-stat-xattr."""
    over = motif.loop.over if motif.loop else None
    if over is Over.FILES:
        return _file_name(motif)
    if over is Over.PATHS:
        return _list_name(motif)
    if over is Over.REQUESTS:
        return _serve_name(motif)
    if over is Over.UNTIL_EOF and (len(motif.calls) > 1 or "copy" in _shares(motif)):
        return "copy-loop"
    if over is Over.UNTIL_EOF:
        return f"{family(motif.calls[0].syscall)}-until-eof"
    common = [c for c in motif.calls if over is not Over.ENTRIES or c.share >= _NAMED_SHARE]
    words = [family(c.syscall) for c in common or motif.calls]
    if over is Over.ENTRIES:
        words = list(dict.fromkeys(w for w in words if w != "close" or words == ["close"]))
    else:
        words = [w for i, w in enumerate(words) if i == 0 or words[i - 1] != w]
    extra = len(words) - _NAMED_CALLS
    words = words[:_NAMED_CALLS] + ([f"{extra}-more"] if extra > 0 else [])
    if over is Over.ENTRIES:
        return "-".join(["dirscan", *words, *(["dirs"] if motif.only_directories else [])])
    return "-".join(["loop" if over else "seq", *words])


def unique_names(motifs: Sequence[Motif]) -> None:
    """Number motifs of the same name, in the order of the list: NAME, NAME-2, ..."""
    seen: dict[str, int] = {}
    for motif in motifs:
        motif.cluster = motif.name
        seen[motif.name] = seen.get(motif.name, 0) + 1
        if seen[motif.name] > 1:
            motif.name = f"{motif.name}-{seen[motif.name]}"
