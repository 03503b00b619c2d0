"""`python benchmarks/strategies.py --help`: rank strategies on problems with a known answer."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this file's folder first on the path, where `strategies` would be this file and not
# the package. The repository's root takes its place, here and in every worker process.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

if __name__ == "__main__":
    from benchmarks.command import main

    main()
