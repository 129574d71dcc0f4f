"""A process that opens damaged files, one after the other: ``worker.py KIND FOLDER SEED START STOP``.

What a file does to it is seen from outside (`batches`): it says on its output which case it begins and how that ended.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path

# What the process may take beyond what it has, so that a large allocation fails and not the machine.
_GUARD = 6 << 30


def main() -> None:
    """Opens the cases START to STOP."""
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    from faults.cases import open_case, prepared

    kind, place, seed, start, stop = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints does not mix with the protocol
    warnings.simplefilter("ignore")

    def tell(**values: object) -> None:
        print(json.dumps(values), file=out, flush=True)

    prepared(kind, place)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + _GUARD
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tell(ready=True)
    for number in range(start, stop):

        def begin(file: Path, number: int = number) -> None:
            tell(begin=number, file=str(file))

        end, words, _ = open_case(kind, place, seed, number, begin=begin)
        tell(end=end, words=words)


if __name__ == "__main__":
    main()
