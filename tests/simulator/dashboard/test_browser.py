"""The page in headless Chromium, where that is installed (.ci/run installs Debian's): no errors, no outside requests.

Other machines' names resolve to nothing in that browser, and its log of the network says what pages ask for.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from threading import Thread

import pytest
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response

import attnsim
from simulator.dashboard.app import create_app
from simulator.planning.runners import Here
from traces.display import format_ns

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, as: apt-get install chromium")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000", "--dump-dom",
    "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


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


def open_page(address: str, folder: Path) -> str:
    """The page's elements once it has settled; errors on its console and requests to elsewhere are failures."""
    log = folder / "network.json"
    command = [str(BROWSER), *FLAGS, f"--log-net-log={log}", f"--user-data-dir={folder / 'profile'}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    requested = requests_of_pages(log.read_text())
    assert requested
    assert [url for url in requested if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    return done.stdout


def requests_of_pages(log: str) -> set[str]:
    """What pages of this machine asked for; the browser's own requests have no such initiator."""
    lines = [line for line in log.splitlines() if '"initiator":"http://127.0.0.1:' in line]
    return {found[1] for line in lines if (found := re.search(r'"url":"([^"]*)"', line))}


def text_of(page: str, identifier: str) -> str:
    found = re.search(rf'id="{identifier}"[^>]*>(.*?)</(?:pre|p|table|div)>', page, re.DOTALL)
    assert found is not None, identifier
    return unescape(re.sub("<[^>]*>", " ", found[1]))


def test_the_page_draws_every_figure_and_its_command_reproduces_the_number(address: str, tmp_path: Path) -> None:
    page = open_page(f"{address}?gpus=4&seq_len=8k", tmp_path)
    for title in ("Ranking", "Timeline", "Waterfall of one call", "Memory", "Which schedule is quickest",
                  "Where the time goes", "Time against memory"):  # fmt: skip
        assert f">{title}<" in page, title
    assert "Download plot as a PNG" in page and "Share chart" not in page
    words = shlex.split(text_of(page, "command-shown"))
    with pytest.raises(SystemExit, match="0"):
        attnsim.main([*words[1:], "--json", str(tmp_path / "result.json")])
    time_s = json.loads((tmp_path / "result.json").read_text())["time_s"]
    assert format_ns(time_s * 1e9) in text_of(page, "table")


def test_a_wrong_field_is_marked_on_the_page(address: str, tmp_path: Path) -> None:
    page = open_page(f"{address}?mask=triangle", tmp_path)
    assert "unknown mask" in text_of(page, "mask-why")
    assert re.search(r'id="mask-field"[^>]*class="field wrong"|class="field wrong"[^>]*id="mask-field"', page)


def test_a_request_to_elsewhere_would_be_seen(tmp_path: Path) -> None:
    page = '<script src="http://elsewhere.example/x.js"></script>'
    server = make_server("127.0.0.1", 0, Response(page, mimetype="text/html"))
    with serving(server) as address, pytest.raises(AssertionError, match="elsewhere"):
        open_page(address, tmp_path)
