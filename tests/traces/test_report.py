"""The HTML report: one file, whole, self-contained, and safe whatever the names are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.traces.synthetic import ring_timeline
from traces.errors import InputError
from traces.figures.embed import plotly_javascript
from traces.figures.memory import plot_memory
from traces.figures.timeline import plot_timeline
from traces.report import Section, render_report, write_report

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\""
VOID = {"meta", "br", "wbr", "img"}


class Page(HTMLParser):
    """Tags in order, those left open, and the texts outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)


def figures() -> list[Section]:
    timeline = plot_timeline(ring_timeline(2))
    return [Section("Times", [timeline, "text between", timeline]), Section("", [plot_memory([("a", 1)])])]


def test_plotly_is_in_it_once_and_nothing_is_fetched():
    page = Page(render_report("Report", figures()))
    assert sum(script == plotly_javascript() for script in page.scripts) == 1
    assert sum("Plotly.newPlot" in script for script in page.scripts) == 3
    assert not any("src" in attributes or "href" in attributes for _, attributes in page.tags)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert not page.open


def test_plotly_cannot_end_its_own_script():
    assert not re.search("</script", plotly_javascript(), re.IGNORECASE)


def test_figures_have_ids_of_their_own():
    page = Page(render_report("Report", figures()))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "div" and "id" in attributes]
    assert len(ids) == len(set(ids)) == 3


def test_without_figures_there_is_no_script():
    text = render_report("Report", [Section("Facts", [{"time_s": 0.001}])])
    assert Page(text).count("script") == 0
    assert len(text) < 10_000


def test_same_content_same_bytes():
    assert render_report("Report", figures()) == render_report("Report", figures())


@pytest.mark.parametrize(
    "block",
    [EVIL, {EVIL: EVIL, "nested": {EVIL: [EVIL]}}, [{EVIL: EVIL}, {"other": 1}], [EVIL, EVIL]],
    ids=["text", "fields", "rows", "list"],
)
def test_names_are_text_never_markup(block):
    page = Page(render_report(EVIL, [Section(EVIL, [block])]))
    assert page.count("script") == page.count("img") == 0
    assert "".join(page.texts).count(EVIL) >= 3
    assert not page.open


def test_names_in_figures_cannot_leave_the_script():
    infos = ring_timeline(2)
    evil = type(infos)(infos.operations, (EVIL, *infos.lanes[1:]), 2, *(
        getattr(infos, name) for name in ("start_ns", "end_ns", "rank", "lane", "operation", "bytes")
    ))  # fmt: skip
    page = Page(render_report("Report", [Section("", [plot_timeline(evil), plot_memory([(EVIL, 5)])])]))
    assert page.count("script") == 1 + 2
    assert page.count("img") == 0
    assert not page.open


def test_fields_with_their_units():
    page = Page(render_report("R", [Section("S", [{"time_s": 0.0244, "uncertainty": {"low_s": 0.02}, "fits": True}])]))
    text = "|".join(each.strip() for each in page.texts if each.strip())
    assert text == "R|R|S|time|24.4 ms|uncertainty, low|20 ms|fits|yes"
    names = [attributes["title"] for tag, attributes in page.tags if tag == "dt"]
    assert names == ["time_s", "uncertainty.low_s", "fits"]


def test_rows_have_the_columns_of_all_of_them():
    rows = [{"schedule": "ring", "time_s": 0.001}, {"schedule": "flash", "reason": "one GPU"}]
    page = Page(render_report("R", [Section("S", [rows])]))
    assert page.count("th") == 3
    assert page.count("td") == 2 * 3
    numbers = [attributes.get("class") for tag, attributes in page.tags if tag in {"th", "td"}]
    assert numbers == [None, "number", None, None, "number", None, None, "number", None]


def test_numbers_are_not_broken():
    assert "<wbr>" not in render_report("R", [Section("", [{"x": 1_234_567, "y": 0.125, "z": "1.5 at 2.25"}])])


def test_empty_sections():
    page = Page(render_report("R", [Section("", []), Section("S", [[]])]))
    assert page.count("section") == 2
    assert not page.open


def test_written_whole(tmp_path):
    write_report(tmp_path / "r.html", "Title", [Section("S", ["text"])])
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == render_report("Title", [Section("S", ["text"])])
    assert [each.name for each in tmp_path.iterdir()] == ["r.html"]


def test_nowhere_to_write(tmp_path):
    with pytest.raises(InputError, match="cannot write .*r.html"):
        write_report(tmp_path / "missing" / "r.html", "Title", [])
