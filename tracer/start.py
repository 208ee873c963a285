# SPDX-License-Identifier: MIT
"""Where commands begin: before anything slow is loaded."""

from __future__ import annotations

import importlib
import signal


def begin(module: str) -> None:
    """Run a module's main(); a Ctrl-C while it is loaded ends the command without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    importlib.import_module(module).main()


def main() -> None:
    """cosy-trace."""
    begin("tracer.cli")
