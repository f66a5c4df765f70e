"""The page in headless Chromium, where that is installed (.ci/run installs Debian's): no errors, no outside requests.

Names that are not this machine's resolve to nothing in that browser, so that any request elsewhere is an error on its
console.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from threading import Thread

import pytest
from werkzeug.serving import make_server

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


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The application, served on a free port."""
    server = make_server("127.0.0.1", 0, create_app(Here()).server, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def open_page(address: str, folder: Path) -> str:
    """The page's elements once it has settled; errors on its console are failures."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def text_of(page: str, identifier: str) -> str:
    found = re.search(rf'id="{identifier}"[^>]*>(.*?)</(?:pre|p|table|div)>', page, re.DOTALL)
    assert found is not None, identifier
    return unescape(re.sub("<[^>]*>", " ", found[1]))


def test_the_page_draws_every_figure_and_its_command_reproduces_the_number(address: str, tmp_path: Path) -> None:
    page = open_page(f"{address}?gpus=4&seq_len=8k", tmp_path / "profile")
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
    page = open_page(f"{address}?mask=triangle", tmp_path / "profile")
    assert "unknown mask" in text_of(page, "mask-why")
    assert re.search(r'id="mask-field"[^>]*class="field wrong"|class="field wrong"[^>]*id="mask-field"', page)


def test_a_request_to_elsewhere_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<script src="http://elsewhere.example/x.js"></script>')
    with pytest.raises(AssertionError, match="elsewhere|ERR_NAME_NOT_RESOLVED"):
        open_page((tmp_path / "page.html").as_uri(), tmp_path / "profile")
