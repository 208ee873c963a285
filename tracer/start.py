# SPDX-License-Identifier: MIT
"""Where cosy-trace begins: before anything slow is loaded."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command; a Ctrl-C while it is loaded ends it without a word.

    cli.interruptible() makes it an exception again.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tracer import cli

    cli.main()
