"""Command ``dashboard``: figures that follow a form, in a browser on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from traces.errors import InputError

if TYPE_CHECKING:
    from dash import Dash

    from simulator.planning.runners import Runner

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PORT = 8050


@app.callback()
def group() -> None:
    """Makes of one command a group, which is what the root looks commands up in."""


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(metavar="N", help="Port on 127.0.0.1.")] = PORT,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes for crossover maps. Default: one per core.")
    ] = None,
) -> None:
    """Open a page that answers as you move sliders.

    It shows ranking, timeline, memory, links, crossover map, and measurements beside them.
    """
    create_app = _import_app()
    from simulator.planning.runners import open_runner

    _check_free(port)
    with open_runner(workers) as runner:
        typer.echo(f"attnsim dashboard: http://127.0.0.1:{port}/  (Ctrl-C ends it)")
        _serve(create_app(runner), port)


def _serve(app: Dash, port: int) -> None:
    """Until Ctrl-C, a thread per request, without a line for each."""
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, app.server, threaded=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("")
    finally:
        server.server_close()


def _import_app() -> Callable[[Runner], Dash]:
    try:
        from simulator.dashboard.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("dash", "flask"):
            raise
        raise InputError("the dashboard needs Dash, which is not installed",
                         remedy="pip install 'attnsim[dashboard]'") from None  # fmt: skip
    return create_app


def _check_free(port: int) -> None:
    import socket

    if not 0 < port < 65536:
        raise InputError("port is not one", got=port, expected="1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError("port cannot be used", got=f"{port} ({error.strerror})",
                             remedy="name another: --port") from None  # fmt: skip
