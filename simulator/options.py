"""The command line's options for a request and for its outputs, said once for all commands that take them.

A command written as ``command(request, outputs)`` becomes one that takes the contract's options: its signature, from
which typer builds the parser and the help, has the options of `simulator.asked` and options of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.asked import RequestFields, flags

if TYPE_CHECKING:
    from simulator.request import SimulationRequest

JsonTarget = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Write the result as JSON; - is standard output.")
]


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal."""

    json: str | None = None
    trace: Path | None = None
    html: Path | None = None
    chakra: Path | None = None

    @property
    def need_timeline(self) -> bool:
        """Whether any of them shows single operations."""
        return any(each is not None for each in (self.trace, self.html, self.chakra))


def option(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """One more option of a command: a field of the request, typer's annotation, and its default, if any."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def request_command(
    *own: inspect.Parameter, keep: tuple[str, ...] = (), without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``command(request, outputs, **kept)`` into a function of the contract's options and the command's ``own``.

    Parameters
    ----------
    own : the command's own options.
    keep : of these, the ones that are no fields of the request: the command gets them by name.
    without : common options that the command does not have.
    defaults : other defaults of common options.
    """
    common = [each for each in (*_request_options(defaults), *_OUTPUTS) if each.name not in without]
    signature = inspect.Signature([*own, *common])

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            outputs = Outputs(*(values.pop(each.name, None) for each in _OUTPUTS))
            kept = {name: values.pop(name) for name in keep}
            command(_request(values, outputs), outputs, **kept)

        with_options.__signature__ = signature  # type: ignore[attr-defined]
        with_options.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return with_options

    return decorate


def _request(values: dict[str, Any], outputs: Outputs) -> SimulationRequest:
    from simulator.request import SimulationRequest

    several = {name: tuple(value or ()) for name, value in values.items() if name in _SEVERAL}
    return SimulationRequest(**values | several, timeline=outputs.need_timeline)


def _request_options(defaults: dict[str, Any]) -> Iterator[inspect.Parameter]:
    """The options of every request, as parameters that typer reads."""
    for each, flag in flags(RequestFields):
        default = defaults.get(each.name, None if each.name in _SEVERAL else each.default)
        shown = typer.Option(*flag.names, metavar=flag.metavar, help=flag.help)
        yield option(each.name, Annotated[flag.type, shown], inspect.Parameter.empty if default is MISSING else default)


_SEVERAL = {each.name for each, _ in flags(RequestFields) if each.default == ()}
"""Options that may be given more than once; typer knows them by None or a list."""

_OUTPUTS = (
    option("json", JsonTarget, None),
    option(
        "trace",
        Annotated[
            Path | None, typer.Option(metavar="FOLDER", help="Write Chrome traces for Perfetto, a file per GPU.")
        ],
        None,
    ),
    option("html", Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with figures.")], None),
    option(
        "chakra",
        Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write Chakra execution traces, a file per GPU.")],
        None,
    ),
)
"""Options of :class:`Outputs`, in the order of its fields."""
