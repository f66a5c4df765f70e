"""Calibrates and validates this host for gloo processes, with PyTorch, NumPy and SciPy only.

python -m validators.validation.host --folder FOLDER --ranks 4 --draws 24 --seed 1 --seconds 200
"""

from __future__ import annotations

import argparse
from pathlib import Path

from validators.validation.session import validate_processes


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    validate_processes(
        options.folder, ranks=options.ranks, draws=options.draws, seed=options.seed, rounds=options.rounds,
        seconds=options.seconds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
