"""Sources by name. A source's module is imported when it is used; each defines ``SOURCE``.

To add one: a module in ``sources/`` that derives from `source.Source`, its rows in ``data/NAME.csv`` (columns of
`rows`), a line in ``data/README.md`` with origin and licence, and a line here.
"""

from __future__ import annotations

import importlib

from simulator.replay.source import Source
from traces.errors import InputError

SOURCES: dict[str, str] = {
    "magi-kernels": "magi_kernels",
    "magi-distributed": "magi_distributed",
    "longca-block-sparse": "longca_block_sparse",
    "burst-bench": "burst_bench",
    "burst-profile": "burst_profile",
    "ring-flash-attention": "ring_flash_attention",
    "nccl": "nccl",
    "usp": "usp",
    "apb-prefill": "apb_prefill",
    "apb-breakdown": "apb_breakdown",
    "apb-flop": "apb_flop",
    "burst-first-token": "burst_first_token",
    "distflashattn": "distflashattn",
    "burst-engine": "burst_engine",
    "ring-blocks": "ring_blocks",
    "gpt-fast": "gpt_fast",
    "ffnet": "ffnet",
}
"""Modules in ``sources/`` by the name on the command line."""


def load_sources(name: str) -> list[Source]:
    """The source of a name, or all.

    Raises
    ------
    InputError
        Where there is none of that name.
    """
    if name != "all" and name not in SOURCES:
        raise InputError("unknown source", got=repr(name), expected="all, " + ", ".join(SOURCES))
    names = list(SOURCES) if name == "all" else [name]
    return [importlib.import_module(f"simulator.replay.sources.{SOURCES[each]}").SOURCE for each in names]
