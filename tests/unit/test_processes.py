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


def test_numbers_begin_again() -> None:
    first, second = born = children((32767, 30), (301, 40))
    _fork_times(born, [10, 20])
    assert (first.fork_tsc, second.fork_tsc) == (10, 20)


def test_numbers_begin_again_and_the_later_child_starts_first() -> None:
    # Else the first child would get the descriptors that its parent had after the second call.
    second, first = born = children((301, 30), (32767, 40))
    _fork_times(born, [10, 20])
    assert (first.fork_tsc, second.fork_tsc) == (10, 20)


def test_a_gap_in_the_numbers_is_no_new_beginning() -> None:
    # The first child ran before the second call was made: many others came between.
    first, second = born = children((301, 30), (32767, 400))
    _fork_times(born, [10, 200])
    assert (first.fork_tsc, second.fork_tsc) == (10, 200)
