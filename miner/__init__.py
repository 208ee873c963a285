# SPDX-License-Identifier: MIT
"""From trace datasets to ranked motifs: annotate, tokenize, fold, count, cluster, rank."""
