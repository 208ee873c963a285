# SPDX-License-Identifier: MIT
"""The system call table, the trace dataset, and the ways to record one."""
