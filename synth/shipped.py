# SPDX-License-Identifier: MIT
"""The shipped profile, made anew from the datasets: `make profile`.

Each trace in datasets/ is mined by itself with the default costs, so that the same traces give the
same profile on every machine, and each compound names the traces that it came from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synth.compile import compile_profile, write_whole
from synth.errors import SynthError
from synth.language import Profile, print_profile

if TYPE_CHECKING:
    from miner.motifs import MotifFile

ROOT: Final = Path(__file__).resolve().parents[1]
DATASETS: Final = ROOT / "datasets"
TEXT: Final = ROOT / "synth" / "profiles" / "default.cosy"


def mined() -> dict[str, MotifFile]:
    """The motifs of each dataset, by its name."""
    from miner.cost import Calibration
    from miner.mine import mine

    found = {}
    for path in sorted(DATASETS.glob("*.cosytrace")):
        found[path.stem] = mine([path], Calibration())
    return found


def profile() -> Profile:
    """What all datasets together justify."""
    from synth.synthesize import synthesize

    made, _ = synthesize(list(mined().values()))
    return made


def main() -> int:
    """Write synth/profiles/default.cosy; exit code 0, 1 when the datasets cannot be used."""
    from tracer.target import DatasetError

    try:
        made = profile()
        compile_profile(made, str(TEXT))
        write_whole(TEXT, print_profile(made).encode())
    except (DatasetError, SynthError, OSError) as error:
        print(f"synth.shipped: {error}", file=sys.stderr)
        return 1
    print(f"written {TEXT}: {', '.join(compound.name for compound in made.compounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
