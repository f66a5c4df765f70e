"""A what-if: FFNified attention beside attention as the sequence grows, on the ranks of a request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cost_models.units import parse_count
from simulator.request import SimulationRequest
from simulator.simulate import simulate
from simulator.steps.mixers import mixer_costs
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

SHORTEST = 1024


@dataclass(frozen=True)
class Beside:
    """Seconds and FLOP of both at one length."""

    seq_len: int
    attention_s: float
    mixer_s: float
    attention_flop: int
    mixer_flop: int


def mixers_beside_attention(request: SimulationRequest, kernel_size: int) -> list[Beside]:
    """Doubling lengths up to the request's: attention's core, and a mixer of as many features, forward.

    The mixer's query and projection products are counted, of attention the core only, as `simulate` has it.

    Raises
    ------
    InputError
        Where the request names no model, or a rank's part is shorter than the kernel.
    """
    longest, shape = parse_count(request.seq_len, "seq_len"), request.resolve().model
    if shape is None:
        raise InputError("mixers are compared for a model's features", remedy="name a model")
    lengths = [longest // 2**i for i in range(20) if longest // 2**i >= SHORTEST] or [longest]
    rows = []
    for length in reversed(lengths):
        resolved = replace(request, seq_len=length, pass_="forward", timeline=False).resolve()
        found = simulate(resolved.request)
        (mixer,) = mixer_costs(resolved.topology, resolved.profile, kernel_size, shape.hidden, [length])
        rows.append(Beside(length, found.time_s, mixer.time_s, found.flop_total, mixer.flop))
    return rows


def table_of(rows: list[Beside]) -> Table:
    """For the terminal."""
    from rich.table import Table

    from traces.display import format_ns

    table = Table("tokens", "attention", "FFNified", "attention FLOP", "FFNified FLOP")
    for row in rows:
        times = (format_ns(row.attention_s * 1e9), format_ns(row.mixer_s * 1e9))
        table.add_row(f"{row.seq_len:,}", *times, f"{row.attention_flop:.3g}", f"{row.mixer_flop:.3g}")
    return table
