"""Draws the training steps that are measured on GPUs, from a seed: shapes, lengths and what is kept.

Shapes are those of real layers (Llama 3.2 1B and 3B, Llama 2 7B and 13B, Llama 3.1 8B and 70B), with four layers where
a model is trained. Every combination of method and checkpointing comes in turn; lengths are log-uniform multiples of
256 and never a power of two. Several ranks are one context parallel group, by each of `CONTEXT` in turn; a rank has as
many tokens as one GPU has alone. A draw is kept if it is predicted to fit in 80 % of the memory and to take ``MOST_S``.
"""

from __future__ import annotations

import random

from simulator.schedules import parse_schedule
from validators.validation.draws import MAX_TRIES, Forecast
from validators.validation.plan import Planned
from validators.validation.step_configuration import StepConfiguration

SHAPES = (
    (2048, 32, 8, 64, 8192), (3072, 24, 8, 128, 8192), (4096, 32, 32, 128, 11008), (5120, 40, 40, 128, 13824),
    (4096, 32, 8, 128, 14336), (8192, 64, 8, 128, 28672),
)  # fmt: skip
"""(hidden, heads, kv heads, head dim, intermediate)."""
KINDS = (
    ("model", "full", "none"), ("model", "lora:rank=16", "none"), ("model", "full", "full"),
    ("model", "lora:rank=16,targets=all", "full"), ("layer", "full", "none"), ("model", "full", "attention"),
    ("model", "lora:rank=8,targets=all", "none"), ("layer", "full", "full"),
)  # fmt: skip
"""(what, method, checkpoint)."""
VOCABULARIES, CHUNKS, BATCHES, KERNELS = (32000, 128256), (0, 8), (1, 1, 2), ("cudnn", "cudnn", "flash2")
TOKENS, MULTIPLE, LAYERS = (2048, 49152), 256, 4
MOST_S = 1.2
CONTEXT = (
    "ring", "ulysses", "burst", "allgather:partition=zigzag", "usp:ulysses=2", "ring:partition=contiguous", "magi"
)  # fmt: skip
"""Schedules of attention in a context parallel group: as many as are no multiple of the kinds, so that pairs differ."""


def draw_steps(
    count: int, seed: int, rounds: int, forecast: Forecast, tokens: tuple[int, int] = TOKENS, ranks: int = 1
) -> list[Planned]:
    """So many steps, each by flash attention on one GPU, or by a schedule of context parallelism.

    Parameters
    ----------
    rounds : isolated steps of each.
    forecast : the prediction that bounds what is drawn.
    tokens : least and most, of each rank.
    ranks : of one context parallel group, on one node.
    """
    draw, planned = random.Random(seed), []
    for number in range(count):
        for _ in range(MAX_TRIES):
            configuration = _draw(draw, KINDS[number % len(KINDS)], tokens, ranks)
            schedule = CONTEXT[number % len(CONTEXT)] if ranks > 1 else "flash"
            seconds, _, fits = forecast(configuration, schedule)
            if fits and seconds <= MOST_S:
                resolved = str(parse_schedule(schedule).resolve(configuration.setup))
                planned.append(Planned(configuration, (resolved,), rounds, seed + number))
                break
    return planned


def _draw(
    draw: random.Random, kind: tuple[str, str, str], tokens: tuple[int, int], ranks: int
) -> StepConfiguration:  # fmt: skip
    what, method, checkpoint = kind
    shape, length = draw.choice(SHAPES), 0
    while not length or length & (length - 1) == 0:
        length = round(tokens[0] * (tokens[1] / tokens[0]) ** draw.random() / MULTIPLE) * MULTIPLE
    model = what == "model"
    return StepConfiguration(
        what, LAYERS if model else 1, *shape, draw.choice(VOCABULARIES), length * ranks, draw.choice(BATCHES),
        draw.choice(KERNELS), method, checkpoint, draw.choice(CHUNKS) if model else 0, ranks, ranks,
    )  # fmt: skip
