"""The page in headless Chromium, where that is installed (.ci/run installs Debian's): as a user has it.

Whatever the page does, nothing may appear on its console, and nothing may be asked of another machine: other machines'
names resolve to nothing in that browser, and every request is looked at.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response

import attnsim
from simulator.dashboard.app import create_app
from simulator.dashboard.views import VIEWS
from simulator.planning.runners import Here
from traces.display import format_ns

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, as: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
expect.set_options(timeout=60_000)  # the machine may be busy

SMALL = "?gpus=4&seq_len=8k"
TITLES = {
    "ranking": ("Ranking", "Timeline", "Memory", "What holds memory at the peak"),
    "time": ("Waterfall of one call", "Where the time goes", "Roofline"),
    "links": ("Load of links",),
    "trade": ("Which schedule is quickest", "Time against memory"),
}


@contextmanager
def serving(server: BaseWSGIServer) -> Iterator[str]:
    """The address of a server while it runs."""
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The application, served on a free port."""
    with serving(make_server("127.0.0.1", 0, create_app(Here()).server, threaded=True)) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def watched(browser: Browser) -> Iterator[Page]:
    """A new page; errors on its console and requests to elsewhere are failures."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    elsewhere = [url for url in asked if not url.startswith(("http://127.0.0.1:", "file:///", "data:", "blob:"))]
    assert elsewhere == []
    assert said == []
    assert asked


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as opened:
        yield opened


def look_at(page: Page, view: str) -> None:
    page.get_by_text(VIEWS[view], exact=True).click()


def drawn(page: Page, graph: str) -> str:
    """All shapes of the bars of a figure."""
    shapes = "(paths) => paths.map((path) => path.getAttribute('d')).join()"
    return str(page.locator(f"#{graph} .point path").evaluate_all(shapes))


def test_every_view_is_drawn_and_what_is_taken_away_has_its_number(
    browser: Browser, page: Page, address: str, tmp_path: Path
) -> None:
    page.goto(address + SMALL)
    for view, titles in TITLES.items():
        look_at(page, view)
        for title in titles:
            expect(page.locator(f"#{view}-view .gtitle", has_text=title).first).to_be_visible()
    look_at(page, "export")
    words = shlex.split(page.locator("#command-shown").inner_text())
    with pytest.raises(SystemExit, match="0"):
        attnsim.main([*words[1:], "--json", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert format_ns(result["time_s"] * 1e9) in page.locator("#table").inner_text()
    with page.expect_download() as download:
        page.locator("#json-link").click()
    ranked = json.loads(Path(download.value.path()).read_text())
    assert ranked[0]["schedule"] == result["schedule"] and ranked[0]["time_s"] == result["time_s"]
    with page.expect_download() as download:
        page.locator("#html-link").click()
    (tmp_path / "report.html").write_bytes(Path(download.value.path()).read_bytes())
    with watched(browser) as report:
        report.goto((tmp_path / "report.html").as_uri())
        expect(report.locator(".gtitle", has_text="Roofline")).to_be_visible()


def test_a_slider_changes_ranking_and_timeline(page: Page, address: str) -> None:
    """With the keyboard: the slider has a name, and goes left by a notch."""
    page.goto(address + SMALL)
    expect(page.locator("#timeline .point path").first).to_be_visible()
    before = {name: drawn(page, name) for name in ("ranking", "timeline")}
    time = page.locator("#table").inner_text()
    page.get_by_role("slider", name="NVLink").press("ArrowLeft")
    expect(page.locator("#command")).to_contain_text("--what-if nvlink=0.7071")
    expect(page.locator("#table")).not_to_have_text(time)
    assert all(drawn(page, name) != shapes for name, shapes in before.items())
    assert "nvlink=0.7071" in page.url


def test_what_was_kept_is_shown_beside_what_is(page: Page, address: str) -> None:
    page.goto(address + SMALL)
    expect(page.locator("#table")).to_contain_text("ms")
    look_at(page, "compare")
    expect(page.locator("#compare-note")).to_contain_text("Keep to compare")
    page.get_by_role("button", name="Keep to compare").click()
    page.locator("#gpus").fill("2")
    page.locator("#gpus").press("Enter")
    expect(page.locator("#differences")).to_contain_text("GPUs")
    expect(page.locator("#now-timeline .point path").first).to_be_visible()
    expect(page.locator("#kept-timeline .point path").first).to_be_visible()
    page.goto(page.url)
    expect(page.locator("#kept-title")).to_contain_text("on 4 h100-sxm")
    expect(page.locator("#now-title")).to_contain_text("on 2 h100-sxm")


def test_a_link_keeps_the_schedule_that_is_looked_at(page: Page, address: str) -> None:
    page.goto(f"{address}{SMALL}&schedule=ulysses")
    expect(page.locator("#title")).to_contain_text("ulysses: attention")
    assert "schedule=ulysses" in page.url


def test_a_wrong_field_is_marked_and_put_right(page: Page, address: str) -> None:
    page.goto(f"{address}{SMALL}&mask=triangle")
    expect(page.locator("#mask-why")).to_contain_text("unknown mask")
    expect(page.locator("#mask-field")).to_have_class("field wrong")
    page.locator("#mask").fill("full")
    page.locator("#mask").press("Enter")
    expect(page.locator("#title")).to_contain_text("full")
    expect(page.locator("#mask-field")).to_have_class("field")


def test_options_of_a_step_are_there_for_a_step(page: Page, address: str) -> None:
    page.goto(address + SMALL)
    expect(page.locator("#title")).to_contain_text("8k tokens")
    expect(page.locator("#split")).to_be_hidden()
    page.locator("#subject").click()
    page.get_by_text("layer, forward", exact=True).click()
    expect(page.locator("#tp")).to_be_visible()
    expect(page.locator("#zero")).to_be_hidden()
    expect(page.locator("#command")).to_contain_text("--layers layer --pass forward")


def test_options_of_serving_are_there_for_decoding(page: Page, address: str) -> None:
    page.goto(f"{address}{SMALL}&subject=model/decode&view=sure")
    expect(page.locator("#sure-runs")).to_contain_text("H100")
    expect(page.locator("#prefill_chunk")).to_be_hidden()
    page.locator("#kv_dtype").click()
    page.get_by_text("int8", exact=True).click()
    page.get_by_text("A token's kernels as one CUDA graph").click()
    expect(page.locator("#command")).to_contain_text("--kv-dtype int8")
    expect(page.locator("#command")).to_contain_text("--cuda-graphs")
    assert "kv_dtype=int8" in page.url and "cuda_graphs=on" in page.url


@pytest.mark.parametrize(
    ("text", "seen"),
    [('<script src="http://elsewhere.example/x.js"></script>', "elsewhere"), ("<script>nothing()</script>", "nothing")],
)
def test_requests_to_elsewhere_and_errors_would_be_seen(browser: Browser, text: str, seen: str) -> None:
    server = make_server("127.0.0.1", 0, Response(text, mimetype="text/html"))
    with serving(server) as address, pytest.raises(AssertionError, match=seen), watched(browser) as page:
        page.goto(address)
