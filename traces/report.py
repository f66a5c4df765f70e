"""One HTML file that holds everything: tables, figures, and plotly.js once.

It opens from disk without a network. A content security policy inside it forbids every request to anywhere, so that
this holds by construction; all text is escaped. Fields run in as many columns as there is room for, figures take the
whole width, and a table that is wider than the screen scrolls within itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from traces.atomic import write_text_atomic
from traces.display import format_field, format_label
from traces.figures.embed import Figure, figure_html, is_figure, plotly_javascript

Fields = Mapping[str, object]
Block = str | Fields | Sequence[Fields] | Sequence[str] | Figure

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = """
:root { --text: #1f2933; --muted: #52606d; --line: #e3e6ea; --paper: #f7f8fa; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 20px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 10px; }
section { background: white; border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px; margin: 0 0 16px; }
section > * + * { margin-top: 12px; }
p, ul { margin: 0; } .scroll + p, p + .scroll { margin-top: 10px; } ul { padding-left: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-size: 12px; font-weight: 600; vertical-align: bottom; }
.fields { columns: 3 300px; column-gap: 40px; margin: 0; }
.fields div { display: flex; gap: 16px; padding: 5px 0; break-inside: avoid; border-bottom: 1px solid var(--line); }
.fields dt { flex: 0 0 44%; color: var(--muted); overflow-wrap: anywhere; }
.fields dd { flex: 1; min-width: 0; margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.rows td { white-space: nowrap; } .rows td.long { white-space: normal; min-width: 160px; }
.rows td:last-child, .rows th:last-child { padding-right: 0; }
td.number, th.number { text-align: right; }
"""
LONG_TEXT = 28


@dataclass(frozen=True)
class Section:
    """A titled part of a report.

    Attributes
    ----------
    title : its heading; none where it is empty (figures have titles of their own).
    blocks : in order; each a text, a mapping (shown as fields), rows (a table), texts (a list), or a figure.
    """

    title: str
    blocks: Sequence[Block]


def write_report(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> None:
    """Write a report, whole or not at all.

    Raises
    ------
    InputError
        Where the path cannot be written.
    """
    write_text_atomic(path, render_report(title, sections))


def render_report(title: str, sections: Sequence[Section]) -> str:
    """The report's HTML: the same bytes for the same content."""
    script = f"<script>{plotly_javascript()}</script>\n" if any(_has_figure(section) for section in sections) else ""
    body = "\n".join(_section(f"figure-{i}", section) for i, section in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{script}</head>\n"
        f"<body>\n<main>\n<h1>{_text(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _has_figure(section: Section) -> bool:
    return any(is_figure(block) for block in section.blocks)


def _section(prefix: str, section: Section) -> str:
    blocks = "\n".join(_block(f"{prefix}-{i}", block) for i, block in enumerate(section.blocks))
    heading = f"<h2>{escape(section.title)}</h2>\n" if section.title else ""
    return f"<section>\n{heading}{blocks}\n</section>"


def _block(div_id: str, block: Block) -> str:
    if is_figure(block):
        return figure_html(block, div_id)
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Mapping):
        return _fields_list(block)
    rows = [row for row in block if isinstance(row, Mapping)]
    if rows:
        return _rows_table(rows)
    return "<ul>" + "".join(f"<li>{escape(str(text))}</li>" for text in block) + "</ul>"


def _fields_list(fields: Fields) -> str:
    items = "".join(_field(name, value) for name, value in _flattened(fields))
    return f'<dl class="fields">{items}</dl>'


def _field(name: str, value: object) -> str:
    """A field; its name as the JSON has it is what the pointer shows."""
    label, text = _text(format_label(name)), _text(format_field(name, value))
    return f'<div><dt title="{escape(name)}">{label}</dt><dd>{text}</dd></div>'


def _rows_table(rows: Sequence[Fields]) -> str:
    flat = [dict(_flattened(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    numeric = {name for name in names if all(_is_number(row[name]) for row in flat if name in row)}
    head = "".join(
        f'<th scope="col" title="{escape(name)}"{_cell_class(name in numeric)}>{_text(format_label(name))}</th>'
        for name in names
    )
    body = "".join(f"<tr>{''.join(_cell(row, name, name in numeric) for name in names)}</tr>" for row in flat)
    return f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(row: Fields, name: str, numeric: bool) -> str:
    text = format_field(name, row[name]) if name in row else ""
    return f"<td{_cell_class(numeric, text)}>{_text(text)}</td>"


def _cell_class(numeric: bool, text: str = "") -> str:
    if numeric:
        return ' class="number"'
    return ' class="long"' if len(text) > LONG_TEXT else ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(text: str) -> str:
    """Escaped text that may break within names such as ``time_s`` and ``ring:grad=fp32``, but not within numbers."""
    return re.sub(r"([_:/+]|[.,](?=[^\W\d]))(?=\w\w)", r"\1<wbr>", escape(text))


def _flattened(fields: Fields, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mappings as dotted names, as in the JSON: ``uncertainty.low_s``."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
