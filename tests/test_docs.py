"""What the documentation shows is what the commands print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import attnsim

ROOT = Path(attnsim.__file__).parent


def test_shown_outputs_are_what_the_commands_print() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/refresh_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr + "; run python scripts/refresh_docs.py"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
