"""`python benchmarks/kill.py --help`: studies that are killed, resumed and compared."""

from __future__ import annotations

import sys
from pathlib import Path

# See strategies.py beside this file: the repository's root takes the place of its folder. The
# studies and the attack are those of the tests.
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
rest = (p for p in sys.path if Path(p or ".").resolve() != HERE)
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *rest]

if __name__ == "__main__":
    from benchmarks.killing import main

    main()
