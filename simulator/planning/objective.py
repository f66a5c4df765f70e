"""What a plan optimises, and what a GPU hour costs.

    time        seconds of one step or pass                       least
    throughput  tokens per second and GPU                         most
    memory      peak bytes of a GPU                               least
    cost        price per million tokens                          least

Defaults of prices are dated list prices (`prices.toml`); any price is an input.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from traces.errors import InputError

OBJECTIVES = ("time", "throughput", "memory", "cost")


@dataclass(frozen=True)
class Price:
    """Of one GPU for an hour, in US dollars, and where that is from."""

    usd_per_gpu_hour: float
    source: str


def default_price(hardware: str) -> Price | None:
    """List price of a GPU; None where we know none.

    >>> default_price("h100-sxm").usd_per_gpu_hour
    3.0
    """
    entry = _prices().get(hardware)
    return Price(entry["usd_per_gpu_hour"], entry["source"]) if entry else None


@cache
def _prices() -> Mapping[str, Any]:
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text(encoding="utf-8"))


def measures(outcome: Mapping[str, Any], price: Price | None) -> dict[str, float]:
    """Time with its 90 % interval, throughput, memory and, where there is a price, cost of a result.

    Parameters
    ----------
    outcome : JSON of a result.
    """
    inputs, time_s = outcome["inputs"], outcome["time_s"]
    tokens = inputs["batch"] * (1 if inputs["pass"] == "decode" else inputs["seq_len"])
    found = {
        "time_s": time_s,
        **(
            {"low_s": outcome["uncertainty"]["low_s"], "high_s": outcome["uncertainty"]["high_s"]}
            if "uncertainty" in outcome
            else {}
        ),
        "tokens_per_s_per_gpu": tokens / time_s / inputs["gpus"],
        "peak_memory_bytes": outcome["peak_memory_bytes"],
    }
    if price is not None:
        hours = time_s / 3600 * inputs["gpus"]
        found["usd_per_million_tokens"] = price.usd_per_gpu_hour * hours / tokens * 1e6
    return found


def key(objective: str, found: Mapping[str, float]) -> float:
    """What is to be small.

    Raises
    ------
    InputError
        For an unknown objective, or cost without a price.
    """
    if objective == "time":
        return found["time_s"]
    if objective == "throughput":
        return -found["tokens_per_s_per_gpu"]
    if objective == "memory":
        return found["peak_memory_bytes"]
    if objective == "cost":
        if "usd_per_million_tokens" not in found:
            raise InputError("cost needs a price of the GPU, and there is no default", remedy="give --price")
        return found["usd_per_million_tokens"]
    raise InputError("unknown objective", got=repr(objective), expected="one of " + ", ".join(OBJECTIVES))
