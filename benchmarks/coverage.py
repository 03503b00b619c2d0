"""`python benchmarks/coverage.py --help`: which architectures go through the stages of a trial."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# See strategies.py beside this file: the repository's root takes the place of its folder. The
# architectures are those of the tests.
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
rest = (p for p in sys.path if Path(p or ".").resolve() != HERE)
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *rest]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

if __name__ == "__main__":
    from benchmarks.covering import main

    main()
