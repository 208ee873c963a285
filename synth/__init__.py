# SPDX-License-Identifier: MIT
"""Synthesis: from mined motifs to compounds, their verified images and the store of profiles."""
