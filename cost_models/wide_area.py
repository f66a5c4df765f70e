"""A link between pipeline stages that the user describes: a latency and a rate, for machines far apart.

    t = n senders bytes / rate + latency

All ranks of a stage share it, in each direction by itself; the next message is sent while the one before is under way.
What a GPU and its host do for a message (copies to host memory, TCP) is not in it: at such rates it is small.
Petals measures its swarms so, on three servers in a room with simulated links (Borzunov et al. 2023, arXiv 2209.01188;
their author's description of the set-up). That the slowest had 100 Mbit/s and a round trip of 100 ms, twice the
latency, is recalled: estimated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from traces.errors import InputError

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_BYTES_PER_S = {
    "bit/s": 0.125, "kbit/s": 125.0, "mbit/s": 125e3, "gbit/s": 125e6, "b/s": 1.0, "kb/s": 1e3, "mb/s": 1e6, "gb/s": 1e9
}  # fmt: skip
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_LINK = re.compile(_NUMBER + r"(s|ms|us),\s*" + _NUMBER + r"([kmg]?(?:bit|b)/s)", re.IGNORECASE)


@dataclass(frozen=True)
class WideAreaLink:
    """Latency and rate, each way."""

    latency_s: float
    bytes_per_s: float


def parse_link(text: str) -> WideAreaLink:
    """A link from ``TIME,RATE``; rates are decimal, Mbit/s or MB/s.

    Raises
    ------
    InputError
        For another form, or no rate at all.

    >>> parse_link("40ms,100Mbit/s")
    WideAreaLink(latency_s=0.04, bytes_per_s=12500000.0)
    """
    match = _LINK.fullmatch(text.strip()[:80])
    if not match or float(match[3]) == 0:
        raise InputError("stage_link is not a link", got=repr(text[:80]), expected="TIME,RATE as 40ms,100Mbit/s")
    return WideAreaLink(
        float(match[1]) * _SECONDS[match[2].lower()], float(match[3]) * _BYTES_PER_S[match[4].lower()]
    )  # fmt: skip
