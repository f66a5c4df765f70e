"""Runs the notebooks and writes what a reader sees without running them.

    notebooks/NAME.py        source, as text (jupytext's percent format)
    notebooks/NAME.ipynb     its pair, for Jupyter; without outputs
    docs/notebooks/NAME.md   text, code and what it printed, as GitHub shows it
    docs/notebooks/NAME-N.svg    figures; drawn by kaleido, which needs Chromium

``python scripts/render_notebooks.py [NAME ...]`` writes them, ``--check`` only says which differ and exits with 1. A
page names the digest of each figure's data, and so does the SVG: the check needs no Chromium.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
SOURCES, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
ENVIRONMENT = {"PLOTLY_RENDERER": "plotly_mimetype", "JUPYTER_COLUMNS": "110", "PYTHONPATH": str(ROOT)}
FIGURE = "application/vnd.plotly.v1+json"
FIGURE_PIXELS = 960
MOST_BYTES = 2**20
CELL_TIMEOUT_S = 120
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Page:
    """A notebook that has run.

    Attributes
    ----------
    pair : the notebook without outputs, as JSON.
    text : Markdown.
    figures : plotly figures by the name of their file.
    """

    name: str
    pair: str
    text: str = ""
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def stale(self) -> list[Path]:
        """Files that are not as they would be written."""
        texts = {SOURCES / f"{self.name}.ipynb": self.pair, PAGES / f"{self.name}.md": self.text}
        found = [path for path, text in texts.items() if _read(path) != text]
        for file, figure in self.figures.items():
            if digest(figure) not in _read(PAGES / file):
                found.append(PAGES / file)
        return found + [path for path in PAGES.glob(f"{self.name}-*.svg") if path.name not in self.figures]

    def write(self) -> None:
        """All its files; those of figures that are no more go."""
        PAGES.mkdir(exist_ok=True)
        for path in self.stale:
            if path.suffix == ".svg" and path.name not in self.figures:
                path.unlink()
        (SOURCES / f"{self.name}.ipynb").write_text(self.pair, encoding="utf-8")
        (PAGES / f"{self.name}.md").write_text(self.text, encoding="utf-8")
        for file, figure in self.figures.items():
            if digest(figure) not in _read(PAGES / file):
                (PAGES / file).write_text(draw(figure), encoding="utf-8")


def render(source: Path) -> Page:
    """Run a notebook and put its page together.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        Where a cell fails.
    """
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    page = Page(source.stem, nbformat.writes(notebook) + "\n")
    os.environ.update(ENVIRONMENT)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources).execute()
    run = f"`python scripts/render_notebooks.py {source.stem}`"
    parts = [f"<!-- Made from notebooks/{source.name} by {run}. -->"]
    for cell in notebook.cells:
        parts.append(cell.source.strip() if cell.cell_type == "markdown" else fence(cell.source, "python"))
        parts += [part for part in _outputs(page, cell.get("outputs", ())) if part]
    page.text = "\n\n".join(parts) + "\n"
    return page


def _outputs(page: Page, outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is printed, in one block until the next figure; figures as images."""
    parts: list[str] = []
    printed = ""
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "stream" and output.name != "stdout":
            raise SystemExit(f"{page.name}: a cell writes to standard error: {output.text}")
        if FIGURE not in data:
            shown = data.get("text/plain")
            printed += output["text"] if shown is None else f"{printed and chr(10)}{shown.rstrip()}\n"
            continue
        parts += [fence(printed)] if printed else []
        printed = ""
        file = f"{page.name}-{len(page.figures) + 1}.svg"
        page.figures[file] = data[FIGURE]
        parts.append(f"![{_title(data[FIGURE])}]({file})\n<!-- figure {digest(data[FIGURE])} -->")
    return [*parts, fence(printed) if printed else ""]


def fence(text: str, language: str = "") -> str:
    """A block of code or of what it printed."""
    lines = [line.rstrip() for line in ANSI.sub("", text).strip("\n").splitlines()]
    return "\n".join([f"```{language}", *lines, "```"])


def digest(figure: Mapping[str, Any]) -> str:
    """Of what a figure shows."""
    layout = {name: value for name, value in figure["layout"].items() if name != "template"}
    return hashlib.sha256(json.dumps([figure["data"], layout], sort_keys=True).encode()).hexdigest()[:16]


def draw(figure: Mapping[str, Any]) -> str:
    """SVG with the figure's digest; plotly's random names in it are replaced by that too."""
    import plotly.graph_objects as go

    content = {"data": figure["data"], "layout": figure["layout"]}
    svg = go.Figure(content).to_image("svg", width=FIGURE_PIXELS).decode()
    found = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    svg = svg.replace(found[1], digest(figure)[:6]) if found else svg
    svg = f"{svg.rstrip()}\n<!-- figure {digest(figure)} -->\n"
    if len(svg) > MOST_BYTES:
        raise SystemExit(f"a figure has {len(svg)} bytes, more than {MOST_BYTES}: show fewer ranks")
    return svg


def _title(figure: Mapping[str, Any]) -> str:
    text = figure["layout"].get("title", {}).get("text", "figure")
    return re.sub(r"<[^>]*>", "", text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def main() -> None:
    """Render or check notebooks, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks without .py; default all")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    arguments = parser.parse_args()
    stale = []
    for name in arguments.names or sorted(path.stem for path in SOURCES.glob("*.py")):
        page = render(SOURCES / f"{name}.py")
        stale += [path.relative_to(ROOT) for path in page.stale]
        if not arguments.check:
            page.write()
    word = "stale" if arguments.check else "written"
    print("\n".join(f"{word}: {path}" for path in stale) or "all notebooks are up to date")
    sys.exit(1 if arguments.check and stale else 0)


if __name__ == "__main__":
    main()
