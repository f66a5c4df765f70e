"""Runs the commands that the documentation shows, and puts what they print into it.

    <!-- run: attnsim compare --model ... -->
    ```
    (replaced by what it prints)
    ```

A block of ``run slow:`` takes a minute or more: it is not run with ``--check``, tests compare some of its lines
(`tests/benchmarks/test_tables.py`).

``python scripts/refresh_docs.py`` rewrites the pages, and what `gather_evidence` gathers; ``--check`` only says which
pages differ and exits with 1; ``--only TEXT`` runs no other commands than those that contain the text.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gather_evidence

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(<!-- run( slow)?: ((?:attnsim|python -m benchmarks\.\w+)[^\n]*?) -->\n```\w*\n).*?(```\n)", re.DOTALL
)
COLUMNS = "110"


def run(command: str) -> str:
    """What a command prints, warnings last."""
    arguments = shlex.split(command)
    if arguments[0] == "attnsim":
        arguments[1:] = ["-c", f"import attnsim; attnsim.main({arguments[1:]!r})"]
    environment = {**os.environ, "COLUMNS": COLUMNS, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *arguments[1:]], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: exit {done.returncode}\n{done.stderr}")
    printed = [line.rstrip() for line in (done.stdout + done.stderr).strip().splitlines()]
    return "\n".join([f"$ {command}", "", *printed, ""])


def refresh(text: str, only: str = "", *, slow: bool = True) -> str:
    """A page with the output of all its commands, or of those that contain a text, or are not slow."""

    def fresh(block: re.Match[str]) -> str:
        return block[1] + run(block[3]) + block[4] if only in block[3] and (slow or not block[2]) else block[0]

    return BLOCK.sub(fresh, text)


def main() -> None:
    """Refresh or check all pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page differs")
    parser.add_argument("--only", default="", metavar="TEXT", help="commands that contain this text")
    asked = parser.parse_args()
    check, stale = asked.check, []
    if not check and not asked.only:
        gather_evidence.write()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fresh = refresh(text, asked.only, slow=not check)
        if fresh != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(fresh, encoding="utf-8")
    print("\n".join(f"{'stale' if check else 'refreshed'}: {page}" for page in stale) or "all pages are up to date")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
