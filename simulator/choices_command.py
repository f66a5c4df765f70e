"""Command ``choices``: which mechanisms are legal, why the others are not, and where the fastest one changes."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.options import Outputs, option, request_command
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from cost_models.crossover import LinkFigures
    from simulator.choices import Choice
    from simulator.crossover import Advice
    from simulator.request import SimulationRequest

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def _group() -> None:
    """Makes the app a group, of which the root takes the command by name."""


EVERY = option(
    "every", Annotated[bool, typer.Option("--every", help="All degrees, placements and partitions.")], False
)  # fmt: skip
LINKS = option(
    "links",
    Annotated[
        str | None,
        typer.Option(metavar="ring=,all-gather=,all-to-all=", help="Your own rates in GB/s that one rank sends."),
    ],
    None,
)


@app.command()
@request_command(EVERY, LINKS, keep=("every", "links"))
def choices(request: SimulationRequest, outputs: Outputs, every: bool, links: str | None) -> None:
    """List what can run, why the rest cannot, and where that changes.

    That is: from which length or number of ranks on another one is faster.
    """
    from cost_models.kernels import choose_kernel
    from simulator.choices import list_choices
    from simulator.crossover import advise
    from simulator.output import print_tables, write_json
    from simulator.steps.record import setup_of

    resolved = request.resolve()
    profile = resolved.profile
    kernel = choose_kernel(profile, request.kernel, resolved.workload)
    found = list_choices(setup_of(resolved), request.pass_, every=every)
    given = None if links is None else parse_links(links)
    advice = advise(resolved.workload, resolved.topology, profile, kernel, given)
    listed = [{"schedule": str(each.schedule), "reason": each.reason} for each in found]
    write_json({"choices": listed, "crossovers": advice_json(advice)}, outputs)
    print_tables(_tables(found, advice), outputs)


def parse_links(text: str) -> LinkFigures:
    """``ring=25,all-gather=45,all-to-all=40`` in GB/s.

    >>> parse_links("ring=25,all-gather=45,all-to-all=40").ring_bytes_per_s
    25000000000.0
    """
    from cost_models.crossover import LinkFigures

    names = {"ring": "ring_bytes_per_s", "all-gather": "all_gather_bytes_per_s", "all-to-all": "all_to_all_bytes_per_s"}
    values: dict[str, float] = {}
    for item in text.split(","):
        name, _, rate = item.partition("=")
        try:
            values[names[name.strip()]] = float(rate) * 1e9
        except (KeyError, ValueError):
            raise InputError(f"links are malformed at {item!r}", expected="ring=GB/s,all-gather=,all-to-all=") from None
    if len(values) < len(names) or not all(0 < rate < math.inf for rate in values.values()):
        raise InputError("links lack a rate, or one is not positive", got=text, expected=", ".join(names))
    return LinkFigures(**values)


def advice_json(advice: Advice) -> dict[str, Any]:
    """Plain numbers; what is unbounded is null."""
    data = {**dataclasses.asdict(advice.crossovers), "forward_s": advice.forward_s, "flop_per_s": advice.flop_per_s,
            "links": dataclasses.asdict(advice.links)}  # fmt: skip
    return {key: _finite(value) for key, value in data.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value if math.isfinite(value) else None


def _tables(found: list[Choice], advice: Advice) -> list[Table]:
    from rich.markup import escape

    from simulator.tables import new_table

    legal, refused, facts = new_table("Can run"), new_table("Cannot run"), new_table("In closed form, forward")
    for table, columns in ((legal, ["schedule"]), (refused, ["schedule", "reason"]), (facts, ["what", "value"])):
        for column in columns:
            table.add_column(column, overflow="fold")
    for each in found:
        if each.legal:
            legal.add_row(str(each.schedule))
        else:
            refused.add_row(str(each.schedule), escape(str(each.reason)))
    for what, value in describe_advice(advice).items():
        facts.add_row(what, value)
    return [legal, refused, facts]


def describe_advice(advice: Advice) -> dict[str, str]:
    """The crossovers in words."""
    at, links = advice.crossovers, advice.links
    rates = (links.ring_bytes_per_s, links.all_gather_bytes_per_s, links.all_to_all_bytes_per_s)
    rows = {
        "rates of ring, all-gather, all-to-all": ", ".join(f"{rate / 1e9:.1f}" for rate in rates) + " GB/s per rank",
        "the ring hides its hops from": _tokens(at.hidden_seq_len),
        "ring beats all-gather from": _tokens(at.ring_over_all_gather_seq_len),
        "ring beats Ulysses from": _tokens(at.ring_over_ulysses_seq_len),
        "all-gather beats Ulysses below": f"{at.all_gather_over_ulysses_ranks:.1f} ranks",
    }
    return rows | {f"{name}, forward": f"{seconds * 1e3:.3g} ms" for name, seconds in advice.forward_s.items()}


def _tokens(seq_len: float) -> str:
    return f"{seq_len:,.0f} tokens" if seq_len >= 1 else "any length"
