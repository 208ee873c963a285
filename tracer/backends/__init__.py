# SPDX-License-Identifier: MIT
"""The ways to record a program: one module each, all with the same result."""
