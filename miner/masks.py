# SPDX-License-Identifier: MIT
"""Tells the loops of one program apart: by which calls an iteration has."""

from __future__ import annotations

import numpy as np

from miner.events import Ints
from miner.order import dense

MASK_BITS = 62
"""Distinct body calls that count, the most frequent ones: a mask is one integer."""

_OVERLAP = 0.5


def group_masks(masks: Ints, weight: Ints) -> Ints:
    """Group number of each mask: masks that share half of the smaller one belong together.

    The variants of a loop in one program differ by what is optional in it (a directory without
    links, without sub-directories). The most frequent mask founds the first group.
    """
    inverse, first = dense(masks)
    unique = masks[first]
    total = np.bincount(inverse, weights=weight)
    groups: list[int] = []
    label = np.zeros(len(unique), dtype=np.int64)
    for i in np.argsort(-total, kind="stable").tolist():
        mask = int(unique[i])
        for number, core in enumerate(groups):
            smaller = min(mask.bit_count(), core.bit_count())
            if (mask & core).bit_count() >= _OVERLAP * smaller:
                label[i] = number
                groups[number] |= mask
                break
        else:
            label[i] = len(groups)
            groups.append(mask)
    return label[inverse]


def similar_masks(masks: Ints, ignored: int) -> Ints:
    """Group number of each mask: those that share more than half of their calls with the most
    frequent one of the group (Jaccard). The calls of `ignored` count only in masks of nothing else.
    """
    inverse, first = dense(np.where(masks & ~np.int64(ignored), masks & ~np.int64(ignored), masks))
    unique = masks[first]
    unique = np.where(unique & ~np.int64(ignored), unique & ~np.int64(ignored), unique)
    total = np.bincount(inverse)
    founders: list[int] = []
    label = np.zeros(len(unique), dtype=np.int64)
    for i in np.argsort(-total, kind="stable").tolist():
        mask = int(unique[i])
        for number, founder in enumerate(founders):
            if 2 * (mask & founder).bit_count() > (mask | founder).bit_count():
                label[i] = number
                break
        else:
            label[i] = len(founders)
            founders.append(mask)
    return label[inverse]
