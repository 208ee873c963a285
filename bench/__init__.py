# SPDX-License-Identifier: MIT
"""Side-by-side measurements: `python -m bench.main_job`, `.overhead`, `.coverage`, `.tracing`."""
