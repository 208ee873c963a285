# SPDX-License-Identifier: MIT
"""Where cosy-trace begins: before anything slow is loaded."""

from __future__ import annotations

import contextlib
import signal


def main(held: bool = False) -> None:
    """Run the command; a Ctrl-C while it is loaded ends it without a word.

    `held`: our launcher has held Ctrl-C back (tracer/launcher/). cli.interruptible() makes it an
    exception again.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        name.write("cosy-trace")
    from tracer import cli

    cli.main()
