# SPDX-License-Identifier: MIT
"""How much of a large directory is run over: `limit chunk N, grow G, miss M` of a compound.

A program that asks about a few entries of a large directory must not pay for all of them. So a
compound that is not sure of a program yet runs over `chunk` entries first. Later runs over the same
directory reach `grow` times as far as the one before, each only when calls about one entry in
`miss` of those that it would reach went unanswered (shim/compound.c, shim/firing.c).

All three are chosen by playing the shim's rule over the traced directories, as if each were the
first that the program met: how many entries they have and of how many the program asked is in the
continuation statistics, what a run, an entry and an answer are worth in the cost model. Directories
that nobody traced are allowed for: larger ones, and such as are left sooner.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from miner.cost import Calibration, saved_per_child_ns
from miner.motifs import Continuation, Motif
from synth.language import Reach

# Entries that the executor gets through in one run; it cuts nowhere else.
RUN_ENTRIES: Final = 370
# What the first chunk may cost before it is seen that nothing of it is asked for.
CHUNK_LOSS_NS: Final = 500_000
LEAST_CHUNK: Final = 64
# Entries run over for each call that went unanswered: a wrong guess costs no more than some ten
# times what the program has spent on these calls already.
MOST_MISS: Final = 16
MOST_ENTRIES: Final = 65536  # of larger directories no run would come to an end in its time
# Where several serve as well, the largest: a run that ends short of a directory's end tells what
# was made last, and programs that go by inode numbers ask about that last.
GROWTHS: Final = (1024, 64, 4)
# So many calls that nothing answered, and the shim looks at no more of them for a while.
MOST_FRUITLESS: Final = 2048
# Those traced stand for larger ones as well, asked about in the same way.
LARGER: Final = (1, 8)
# One large directory in so many is none of the traced kind: each time as much again was asked for
# as before, it is as likely to be left as not.
DOUBT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """Directories alike: so many, of so many entries, of which so many were asked for."""

    directories: float
    entries: float
    asked: float
    saved_ns: float  # by an answer about one entry


def choose(motifs: Iterable[Motif], costs: Calibration) -> Reach:
    """The rule that would have saved most; of several, the one that risks least."""
    found = [group for motif in motifs for group in asked(motif, costs)]
    large = [
        replace(group, entries=group.entries * times, asked=group.asked * times)
        for group in found
        for times in LARGER
        if RUN_ENTRIES < group.entries * times <= MOST_ENTRIES
    ]
    most = max(int(CHUNK_LOSS_NS / costs.bpf_child_ns), LEAST_CHUNK)
    chunks = [LEAST_CHUNK << k for k in range(20) if LEAST_CHUNK << k <= most]
    misses = [1 << k for k in range(MOST_MISS.bit_length())]
    rules = itertools.product(chunks, misses, GROWTHS)
    return max((Reach(c, g, m) for c, m, g in rules), key=lambda r: expected_ns(r, large, costs))


def expected_ns(rule: Reach, groups: Sequence[Asked], costs: Calibration) -> float:
    """What the rule saves in these directories, less what its runs cost, with doubt about each."""
    total = 0.0
    for group in groups:
        traced = _either_ns(rule, group, group.asked, costs)
        # Of all that go on until n, half go on until 2 n: of n to 4 n, three quarters end there.
        doubted, likely, asked_for = 0.0, 0.75, 2.0
        while asked_for < group.entries:
            doubted += likely * _either_ns(rule, group, asked_for, costs)
            likely, asked_for = likely / 4, asked_for * 4
        total += group.directories * ((1 - DOUBT) * traced + DOUBT * doubted)
    return total


def _either_ns(rule: Reach, group: Asked, asked_for: float, costs: Calibration) -> float:
    """The mean of both orders; where nothing is left out, there is no difference."""
    played = [
        played_ns(rule, group.entries, asked_for, group.saved_ns, costs, oldest_first=oldest_first)
        for oldest_first in ((False, True) if group.entries > rule.chunk else (False,))
    ]
    return sum(played) / len(played)


def played_ns(
    rule: Reach,
    entries: float,
    asked_for: float,
    saved_ns: float,
    costs: Calibration,
    *,
    oldest_first: bool,
) -> float:
    """What the rule saves in one directory, less what it costs.

    Runs tell the newest entries first. The program asks in any order, or about the oldest first:
    then all that a run left out comes before all that it told.
    """
    reach, done, net = float(rule.chunk), 0.0, 0.0
    while True:
        runs = -(-min(reach, entries) // RUN_ENTRIES)
        told = min(runs * RUN_ENTRIES, entries)
        net -= runs * costs.bpf_run_ns + told * costs.bpf_child_ns
        reach = min(reach * rule.grow, entries)
        untold = entries - told
        answered = 0.0 if oldest_first else told / entries
        # So many more are asked for until enough of them went unanswered.
        further = reach / rule.miss / (1 - answered) if untold else asked_for
        worth = (entries - done - further) * (reach - told) / entries * saved_ns
        most = min(asked_for, untold, MOST_FRUITLESS) if oldest_first else asked_for
        if done + further >= most or worth <= reach * costs.bpf_child_ns:
            break
        net += further * answered * saved_ns
        done += further
    if not oldest_first:
        return net + (asked_for - done) * answered * saved_ns
    first = max(done, untold)  # that is answered
    return net + (max(asked_for - first, 0.0) * saved_ns if first <= MOST_FRUITLESS else 0.0)


def asked(motif: Motif, costs: Calibration) -> list[Asked]:
    """The directories of a loop over entries, by size and by how far the program went in them.

    Rows of the continuation statistics say how many directories got as far as the nth call, and
    what was still asked for then: between two rows are those that were left.
    """
    saved_ns = saved_per_child_ns(motif, "bpf", costs)
    groups = []
    for rows in _by_size(motif.continuation):
        per_child = max(rows[0].remaining / max(rows[0].children, 1), 1.0)
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            left = row.reached - (after.reached if after else 0)
            if left <= 0:
                continue
            entries = row.entries - (after.entries if after else 0)
            children = row.reached * row.n / per_child + row.children
            if after:
                children -= after.reached * after.n / per_child + after.children
            mean = entries / left
            groups.append(Asked(left, mean, min(max(children / left, 1.0), mean), saved_ns))
    return groups


def _by_size(table: Iterable[Continuation]) -> list[list[Continuation]]:
    """Rows of directories of like size that were asked about, from the first call on."""
    sizes: dict[int, list[Continuation]] = {}
    for row in sorted(table, key=lambda r: (r.min_entries, r.n)):
        if row.n:
            sizes.setdefault(row.min_entries, []).append(row)
    return list(sizes.values())
