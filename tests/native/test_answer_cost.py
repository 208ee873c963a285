# SPDX-License-Identifier: MIT
"""An answer must stay much cheaper than the call that it stands for: counted, not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.answer_cost import WAYS, measure

MOST = 670  # instructions; some 590 to 630 with the compilers of Debian 12


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_takes_few_instructions(tmp_path: Path, way: str) -> None:
    cost = measure(way, tmp_path)
    assert cost.served == cost.calls
    assert cost.instructions <= MOST
