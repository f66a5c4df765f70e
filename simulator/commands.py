"""Commands ``simulate``, ``compare`` and ``topology``: options in, tables and files out.

Nothing heavy is imported before a command runs, so that help is quick. Input that cannot be used raises
:class:`traces.errors.InputError`, which the root (``attnsim.main``) prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs, option, request_command
from traces.errors import InputError

if TYPE_CHECKING:
    from simulator.request import SimulationRequest
    from simulator.result import Refused, SimulationResult

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@request_command(
    option("schedule", Annotated[str, typer.Option(metavar="NAME[:key=value,...]", help="Schedule to simulate.")])
)
def simulate(request: SimulationRequest, outputs: Outputs) -> None:
    """Predict time, memory and traffic of one schedule."""
    from simulator.output import print_result, write_outputs
    from simulator.progress import show_progress
    from simulator.simulate import simulate as run

    with show_progress() as progress:
        result = run(request, progress)
    write_outputs([result], outputs, many=False)
    print_result(result, outputs)


@app.command()
@request_command(
    option("peers", Annotated[bool, typer.Option("--peers", help="List other people's implementations too.")], False)
)
def compare(request: SimulationRequest, outputs: Outputs) -> None:
    """Rank all schedules; refused ones are listed with the reason."""
    from simulator.compare import compare as run
    from simulator.output import print_comparison, write_outputs
    from simulator.progress import show_progress

    with show_progress() as progress:
        outcomes = run(request, progress)
    _require_any(outcomes)
    write_outputs(outcomes, outputs, many=True)
    print_comparison(outcomes, outputs)


@app.command()
def topology(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Preset, NCCL XML, or nvidia-smi topo -m text.")],
    gpus: Annotated[int | None, typer.Option(metavar="P", help="GPUs in use. Default: all.")] = None,
    nodes: Annotated[int | None, typer.Option(metavar="M", help="Nodes in use.")] = None,
    hardware: Annotated[str | None, typer.Option(metavar="NAME", help="Which GPU it is, if it does not say.")] = None,
    json: JsonTarget = None,
) -> None:
    """Show GPUs, NICs and the path between every two GPUs."""
    from cost_models.topology import describe_topology, load_topology, topology_tables
    from simulator.output import print_tables, print_warnings, write_json

    cluster = load_topology(name, gpus, nodes, hardware)
    outputs = Outputs(json)
    write_json(describe_topology(cluster), outputs)
    print_tables(topology_tables(cluster), outputs)
    print_warnings(cluster.warnings)


def _require_any(outcomes: list[SimulationResult | Refused]) -> None:
    """Refuse a comparison in which nothing can run, with every reason once."""
    from simulator.result import Refused

    refused = [each for each in outcomes if isinstance(each, Refused)]
    if len(refused) < len(outcomes):
        return
    schedules_of: dict[str, list[str]] = {}
    for each in refused:
        schedules_of.setdefault(each.reason, []).append(each.schedule)
    reasons = "; ".join(f"{', '.join(schedules)}: {reason}" for reason, schedules in schedules_of.items())
    raise InputError("no schedule can run" + (f": {reasons}" if reasons else ""))
