# SPDX-License-Identifier: MIT
"""The one exception of this room that a user sees."""

from __future__ import annotations


class SynthError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what failed, on what, and what to do about it.
    """
