"""`python benchmarks/verdicts.py --help`: how often a verdict errs where the truth is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# See strategies.py beside this file: the repository's root takes the place of its folder.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

if __name__ == "__main__":
    from benchmarks.judging import main

    main()
