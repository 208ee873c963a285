# SPDX-License-Identifier: MIT
"""What a failure in a virtual machine says, and what stays of its kernel's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmod.vm import log


@pytest.mark.parametrize(
    "line",
    [
        "BUG: KASAN: slab-out-of-bounds in cosy_files+0x1/0x2 [cosy]",
        "WARNING: CPU: 0 PID: 1 at fs/namei.c:1 lookup+0x1/0x2",
        "WARNING: possible circular locking dependency detected",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [fuzz:99]",
        "INFO: task fuzz:99 blocked for more than 120 seconds.",
        "general protection fault, probably for non-canonical address",
        "unreferenced object 0xffff888003 (size 64):",
        "Kernel panic - not syncing: Fatal exception",
    ],
)
def test_complaints_are_found_and_shown_with_what_follows(line: str) -> None:
    """The trace is what tells; it was lost when only the first line was shown."""
    text = "\n".join([*["early"] * 500, f"[    1.0] {line}", "Call Trace:", *["late"] * 500])
    assert log.complaints(text) == [f"[    1.0] {line}"]
    shown = log.excerpt(text).splitlines()
    assert shown[:3] == ["the kernel complained:", f"[    1.0] {line}", "Call Trace:"]
    assert "early" not in shown


def test_each_line_is_shown_once_and_not_too_many() -> None:
    """Complaints that follow each other share what stands behind them; a flood is cut."""
    flood = [f"BUG: number {number}" for number in range(5000)]
    shown = log.excerpt("\n".join(flood)).splitlines()
    head = shown[1 : shown.index("the kernel's last lines:")]
    assert head == flood[: log.EXCERPT_LINES]
    assert shown[-log.TAIL_LINES :] == flood[-log.TAIL_LINES :]


def test_without_a_complaint_the_end_is_shown() -> None:
    """A guest that ends for no reason that we know."""
    assert log.excerpt("a\nb") == "the kernel's last lines:\na\nb"


def test_logs_are_kept_but_not_for_ever(tmp_path: Path) -> None:
    """The newest ones, each in a file of its own."""
    kept = [log.keep(f"log {number}", tmp_path / "failed") for number in range(log.KEPT + 5)]
    assert len(set(kept)) == log.KEPT + 5
    assert sorted(kept)[5:] == sorted((tmp_path / "failed").iterdir())
    assert kept[-1].read_text() == f"log {log.KEPT + 4}"
