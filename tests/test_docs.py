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


def test_every_package_and_module_has_its_row() -> None:
    """Folders and modules right below a package; those of folders stand in the folder's own docstring."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in ("traces", "cost_models", "simulator", "validators"):
        section = page.partition(f"### {package}: ")[2].partition("\n#")[0]
        folders = [each.name + "/" for each in (ROOT / package).iterdir() if any(each.glob("*.py"))]
        modules = [each.name for each in (ROOT / package).glob("*.py") if each.name != "__init__.py"]
        lacking = [
            name for name in (*folders, *modules) if f"`{name}`" not in section and not name.endswith("_commands.py")
        ]
        assert not lacking, f"docs/architecture.md, section {package}, does not name {lacking}"


def test_what_the_architecture_names_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:traces|cost_models|simulator|validators|tests)/[a-z\d_/.]+)`", page):
        assert (ROOT / path).exists(), path
