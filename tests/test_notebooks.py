"""Notebooks run, and the committed rendering is what they show."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import attnsim

ROOT = Path(attnsim.__file__).parent
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.py"))
SCRIPT = "scripts/render_notebooks.py"


def load_script():
    spec = importlib.util.spec_from_file_location("render_notebooks", ROOT / SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows_what_is_committed(name: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}; run python {SCRIPT} {name}"


def test_every_notebook_has_a_page_with_figures_that_is_linked() -> None:
    linked = (ROOT / "docs" / "notebooks" / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        page = ROOT / "docs" / "notebooks" / f"{name}.md"
        assert f"]({name}.md)" in linked
        assert f"]({name}-1.svg)" in page.read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "notebooks").iterdir():
        assert path.stat().st_size < 2**20


def test_another_output_or_figure_is_stale() -> None:
    script = load_script()
    name = NAMES[0]
    page = script.Page(
        name,
        (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"),
        (ROOT / "docs" / "notebooks" / f"{name}.md").read_text(encoding="utf-8"),
    )
    assert {path.suffix for path in page.stale} == {".svg"}, "figures that the page does not have are left over"
    page.figures[f"{name}-1.svg"] = {"data": [{"x": [1]}], "layout": {}}
    page.text += "more"
    assert {path.name for path in page.stale} >= {f"{name}-1.svg", f"{name}.md"}
