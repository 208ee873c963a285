# SPDX-License-Identifier: MIT
"""Which fork made which child."""

from tracer.processes import Image, _fork_times


def children(*born: tuple[int, int]) -> list[Image]:
    """One per (process number, time of its first event)."""
    return [Image(pid, 1, start_tsc, table=0) for pid, start_tsc in born]


def test_a_child_that_starts_late_keeps_its_fork() -> None:
    second, first = born = children((102, 30), (101, 40))
    _fork_times(born, [10, 20])
    assert (first.fork_tsc, second.fork_tsc) == (10, 20)


def test_numbers_that_began_again_say_nothing() -> None:
    first, second = born = children((32767, 30), (301, 40))
    _fork_times(born, [10, 20])
    assert (first.fork_tsc, second.fork_tsc) == (10, 20)
