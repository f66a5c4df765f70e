"""Draws what is measured from a seed: shapes, masks and kernels that no fit has seen, and schedules for each.

Sequence lengths are log-uniform multiples of what all partitions need, never one that a fit has: no power of two, and
on hosts of processes no three times such. A draw is
kept if every schedule on it is predicted to take at most ``most_s`` and to fit; on several ranks half of the draws must
spend more than ``COMMUNICATING`` of their time on communication, as their schedules' median is predicted. Whether it is
predicted that a run does not fit is asked of draws near the limit (`draw_memory_plan`), neither checked nor timed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from simulator.recording import check_program, default_pass
from simulator.schedules import parse_schedule
from traces.errors import InputError
from validators.validation.plan import Planned
from validators.validation.runs import Configuration
from validators.validation.step_configuration import StepConfiguration

COMMUNICATING = 0.2
MAX_TRIES = 2000
MAX_STEPS = 512
"""Of the unit of a length: chunks that schedules deal out divide lengths, and a prime has the smallest only."""
Forecast = Callable[[Configuration | StepConfiguration, str], "tuple[float, float, bool]"]
"""Predicted seconds of a schedule, the share of them that is communication, and whether it fits."""


@dataclass(frozen=True)
class Ranges:
    """What is drawn from.

    Attributes
    ----------
    seq_len : least and most tokens.
    heads, head_dims, batches, groups : choices; ``groups`` are query heads per KV head.
    masks : texts, in which {w} is an eighth of the sequence and {a}, {b}, {c} documents.
    kernels, dtype : of the backend.
    schedules : candidates, of which each draw has ``per_draw``.
    most_s : longest predicted call.
    fitted : odd parts of the lengths that fits have.
    """

    seq_len: tuple[int, int]
    heads: tuple[int, ...]
    head_dims: tuple[int, ...]
    batches: tuple[int, ...]
    groups: tuple[int, ...]
    masks: tuple[str, ...]
    kernels: tuple[str, ...]
    dtype: str
    schedules: tuple[str, ...]
    per_draw: int
    most_s: float
    fitted: tuple[int, ...] = (1,)


EXACT = (
    "ring", "ring:partition=contiguous", "burst", "ulysses", "allgather", "usp:ulysses=2", "loongtrain:head=2",
    "lightseq", "magi", "tp", "hybrid-cp",
)  # fmt: skip
GPU = Ranges(
    (4096, 262144), (8, 16, 24, 32, 40, 48, 64), (64, 128), (1, 2, 4), (1, 2, 4, 8),
    ("causal", "causal", "full", "sliding-window:window={w},causal=true", "document:lengths={a}+{b}+{c},causal=true"),
    ("cudnn", "flash2"), "bf16", (*EXACT, "burst:ring=double", "star", "apb"), 5, 2.0,
)  # fmt: skip
SINGLE = replace(GPU, schedules=("flash", "burst"), per_draw=2)
"""One GPU, where all schedules are attention, without or with a given delta."""
MEMORY_LOW, MEMORY_HIGH = 0.75, 1.35
"""Predicted peak over memory of the draws that ask whether a run fits."""
CPU = Ranges(
    (512, 4096), (8, 16), (64, 128), (1, 2), (1, 2, 4),
    ("causal", "causal", "full", "document:lengths={a}+{b}+{c},causal=true"), ("cpu",), "fp32",
    (*EXACT, "star", "apb"), 5, 0.5, (1, 3),
)  # fmt: skip


def draw_plan(ranges: Ranges, ranks: int, count: int, seed: int, rounds: int, forecast: Forecast) -> list[Planned]:
    """So many configurations with their schedules.

    Parameters
    ----------
    ranks : processes, on one node.
    rounds : isolated calls of each schedule.
    forecast : the prediction that bounds what is drawn.

    Raises
    ------
    InputError
        Where hardly anything that is drawn may be kept.
    """
    generator, kept, busy = random.Random(f"{seed} {ranks}"), list[Planned](), 0
    for configuration in _draw(ranges, ranks, generator):
        if len(kept) == count:
            return kept
        schedules = _schedules(ranges, configuration, generator)
        shares = _admit(configuration, schedules, ranges, forecast)
        if shares is None:
            continue
        communicates = sorted(shares)[len(shares) // 2] > COMMUNICATING
        if ranks > 1 and not communicates and len(kept) - busy >= count // 2:
            continue
        busy += communicates
        kept.append(Planned(configuration, tuple(schedules), rounds, generator.randrange(1 << 30)))
    raise InputError(
        f"of {MAX_TRIES} draws only {len(kept)} fit the bounds and communicate enough", expected=f"{count}",
        remedy="draw fewer, or more ranks",
    )  # fmt: skip


def _draw(ranges: Ranges, ranks: int, generator: random.Random) -> Iterator[Configuration]:
    for _ in range(MAX_TRIES):
        low, high = ranges.seq_len
        wanted, step = low * (high / low) ** generator.random(), 16 * ranks
        while wanted > MAX_STEPS * step:
            step *= 2
        length = max(1, round(wanted / step)) * step
        while length // (length & -length) in ranges.fitted:
            length += step
        heads, group = generator.choice(ranges.heads), generator.choice(ranges.groups)
        if heads % group or heads % ranks:
            continue
        first, second = sorted(generator.sample(range(1, 16), 2))
        cuts = {"w": length // 8, "a": length * first // 16, "b": length * (second - first) // 16}
        cuts["c"] = length - cuts["a"] - cuts["b"]
        yield Configuration(
            seq_len=length,
            heads=heads,
            kv_heads=heads // group,
            head_dim=generator.choice(ranges.head_dims),
            batch=generator.choice(ranges.batches),
            mask=generator.choice(ranges.masks).format(**cuts),
            dtype=ranges.dtype,
            kernel=generator.choice(ranges.kernels),
            ranks=ranks,
            ranks_per_node=ranks,
        )


def _schedules(ranges: Ranges, configuration: Configuration, generator: random.Random) -> list[str]:
    """Different schedules that take the configuration, canonical."""
    return _able(generator.sample(ranges.schedules, len(ranges.schedules)), configuration)[: ranges.per_draw]


def _admit(
    configuration: Configuration, schedules: list[str], ranges: Ranges, forecast: Forecast
) -> list[float] | None:  # fmt: skip
    """Predicted shares of communication; None where a schedule takes too long or does not fit."""
    shares = []
    for spec in schedules:
        try:
            seconds, share, fits = forecast(configuration, spec)
        except InputError:
            return None
        if seconds > ranges.most_s or not fits:
            return None
        shares.append(share)
    return shares if len(shares) >= 2 else None


def draw_memory_plan(
    ranges: Ranges, ranks: int, count: int, seed: int, share: Callable[[Configuration, str], tuple[float, float]]
) -> list[Planned]:
    """Configurations about as large as memory, half of them predicted to fit; the batch makes them so large.

    Parameters
    ----------
    share : predicted seconds, and peak over memory: over a small part of the GPU's, as kernels of attention go wrong
        on tensors of more than 2^31 elements, of which one would not fill a GPU.

    Raises
    ------
    InputError
        Where hardly any draw is near the limit.
    """
    generator, kept = random.Random(f"memory {seed} {ranks}"), list[Planned]()
    for drawn in _draw(ranges, ranks, generator):
        if len(kept) == count:
            return kept
        low, high = ((MEMORY_LOW, 1.0), (1.0, MEMORY_HIGH))[len(kept) % 2]
        try:
            spec = _schedules(ranges, drawn, generator)[0]
            batch = round(generator.uniform(low, high) / share(replace(drawn, batch=1), spec)[1])
            configuration = replace(drawn, batch=max(batch, 1))
            seconds, filled = share(configuration, spec)
        except (InputError, IndexError):
            continue
        if seconds <= ranges.most_s and low < filled < high:
            kept.append(Planned(configuration, (spec,), 0, generator.randrange(1 << 30)))
    raise InputError(f"of {MAX_TRIES} draws only {len(kept)} are near the limit of memory", expected=f"{count}")


GRID = (
    (512, 16, 16, 64, 2, "full"), (768, 8, 8, 128, 1, "causal"), (1024, 8, 8, 64, 1, "causal"),
    (1024, 16, 4, 128, 1, "document:lengths=256+512+256,causal=true"), (1536, 8, 2, 64, 2, "causal"),
    (1536, 16, 16, 64, 1, "document:lengths=480+864+192,causal=true"), (2048, 8, 2, 128, 1, "full"),
    (2048, 16, 8, 64, 1, "causal"), (768, 16, 4, 64, 2, "causal"), (3072, 8, 4, 64, 1, "causal"),
    (512, 8, 4, 128, 2, "causal"), (1536, 8, 8, 128, 1, "full"), (3072, 8, 8, 64, 1, "causal"),
    (768, 16, 16, 128, 1, "full"),
)  # fmt: skip
"""Length, heads, KV heads, head dim, batch and mask of what a host of processes is fitted to."""


def calibration_plan(ranks: int, seed: int, rounds: int) -> list[Planned]:
    """Every schedule on half of the grid, for a host of processes to be fitted to."""
    planned = []
    for number, (length, heads, kv_heads, head_dim, batch, mask) in enumerate(GRID):
        configuration = Configuration(length, heads, kv_heads, head_dim, batch, mask, "fp32", "cpu", ranks, ranks)
        schedules = tuple(_able(CPU.schedules[number % 2 :: 2], configuration))
        planned.append(Planned(configuration, schedules, rounds, seed + number))
    return planned


def _able(specs: Sequence[str], configuration: Configuration) -> list[str]:
    """Those that take the configuration, canonical, each once."""
    able: list[str] = []
    for spec in specs:
        try:
            schedule = parse_schedule(spec)
            check_program(schedule, configuration.setup, default_pass(schedule))
            able.append(str(schedule.resolve(configuration.setup)))
        except InputError:
            continue
    return list(dict.fromkeys(able))
