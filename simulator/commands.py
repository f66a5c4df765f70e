"""Commands ``simulate``, ``compare`` and ``topology``: options in, tables and files out.

Nothing heavy is imported before a command runs, so that help is quick. Input that cannot be used raises
:class:`traces.errors.InputError`, which the root (``attnsim.main``) prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs, option, request_command
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.network.bandwidth import BandwidthReport
    from cost_models.topology import ClusterTopology
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
    bandwidth: Annotated[
        bool,
        typer.Option("--bandwidth", help="What GPUs reach of each other, patterns over all, and what limits them."),
    ] = False,
    nccl: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=VALUE", help="NCCL's environment, as NCCL_P2P_LEVEL=SYS.")
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="List links by the names that --slow-link and --lost of simulate take.")
    ] = False,
    host_numa: Annotated[
        str | None, typer.Option(metavar="NODE", help="NUMA node to which processes are bound. Default: near each GPU.")
    ] = None,
    json: JsonTarget = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with drawings.")] = None,
) -> None:
    """Show GPUs, NICs and the path between every two GPUs."""
    from cost_models.topology import describe_topology, load_topology, parse_nccl_assignments, topology_tables
    from cost_models.topology.tables import link_table
    from simulator.output import print_tables, print_warnings, write_json

    cluster = load_topology(name, gpus, nodes, hardware, parse_nccl_assignments(nccl or []), host_numa)
    facts, tables, report = describe_topology(cluster), topology_tables(cluster), None
    if links:
        tables.append(link_table(cluster))
    if bandwidth:
        from cost_models.network.tables import bandwidth_tables, describe_bandwidth

        report = _measure_bandwidth(cluster, hardware)
        facts |= {"bandwidth": describe_bandwidth(report)}
        tables = [*tables[:-1], *bandwidth_tables(report)]
    if html is not None:
        from simulator.link_report import write_topology_report

        write_topology_report(html, cluster, report)
    outputs = Outputs(json)
    write_json(facts, outputs)
    print_tables(tables, outputs)
    print_warnings(cluster.warnings)


def _measure_bandwidth(cluster: ClusterTopology, hardware: str | None) -> BandwidthReport:
    from cost_models.hardware import load_hardware
    from cost_models.network.bandwidth import measure_bandwidth

    name = hardware or cluster.gpu
    if name is None:
        raise InputError("the topology does not say which GPU it has", remedy="name it: --hardware")
    return measure_bandwidth(cluster, load_hardware(name))


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
