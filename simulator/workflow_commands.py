"""Commands ``workflow`` (PPO, mixtures of agents, memory experts) and ``mixers`` (FFNified beside attention)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import Outputs, option, request_command

if TYPE_CHECKING:
    from simulator.request import SimulationRequest
    from simulator.workflows import Workflow

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_WITHOUT = ("layers", "pass_", "trace", "html", "chakra")


@app.command()
@request_command(
    option("spec", Annotated[str, typer.Argument(metavar="ppo|agents|memory[:key=value,...]", help="What is run.")]),
    option("schedule", Annotated[str, typer.Option(metavar="NAME[:key=value,...]", help="Schedule of every phase.")]),
    keep=("spec",),
    without=_WITHOUT,
)
def workflow(request: SimulationRequest, outputs: Outputs, spec: str) -> None:
    """Time and memory of several simulated phases.

    --seq-len is the prompt.
    """
    from simulator.output import write_json
    from simulator.workflows import run_workflow

    found = run_workflow(spec, request)
    write_json(found.to_json(), outputs)
    _print(found, outputs)


@app.command()
@request_command(
    option("schedule", Annotated[str, typer.Option(metavar="NAME[:key=value,...]", help="Schedule of attention.")]),
    option(
        "kernel_size", Annotated[int, typer.Option(metavar="K", help="Positions that the mixer's kernel covers.")], 7
    ),
    keep=("kernel_size",),
    without=_WITHOUT,
)
def mixers(request: SimulationRequest, outputs: Outputs, kernel_size: int) -> None:
    """FFNified attention beside attention, over lengths.

    One layer's mixer, forward, up to --seq-len.
    """
    from simulator.output import print_tables, write_json
    from simulator.steps.beside import mixers_beside_attention, table_of

    rows = mixers_beside_attention(request, kernel_size)
    write_json({"schema_version": 1, "kernel_size": kernel_size, "lengths": [vars(row) for row in rows]}, outputs)
    print_tables([table_of(rows)], outputs)


def _print(found: Workflow, outputs: Outputs) -> None:
    from rich.table import Table

    from simulator.output import print_tables
    from traces.display import format_bytes, format_ns

    table = Table("phase", "times", "each", "in all", "peak memory", "FLOP in all", title=found.name)
    for each in found.phases:
        total_s = each.times * each.time_s
        table.add_row(each.name, str(each.times), format_ns(each.time_s * 1e9), format_ns(total_s * 1e9),
                      format_bytes(each.peak_memory_bytes), f"{each.times * each.flop:.3g}")  # fmt: skip
    fits = "fits" if found.peak_memory_bytes <= found.room_bytes else "does not fit"
    table.add_row("all", "", "", format_ns(found.time_s * 1e9), f"{format_bytes(found.peak_memory_bytes)}, {fits}", "")
    print_tables([table], outputs)
