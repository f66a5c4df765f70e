"""FFNet's parameters and multiply-adds, counted from its shapes. Nothing is fitted.

The networks are counted as they are deployed: branches merged, normalisation folded into the convolutions
(`cost_models.convolution.ffnet`). What the README prints as FLOPs are multiply-adds.

Source: MetaMixer, arXiv 2406.02021; README of github ysj9909/FFNet.
"""

from __future__ import annotations

import re

from cost_models.convolution.ffnet import VARIANTS
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

MAX_RESOLUTION = 2**14


class FfNetCounts(Source):
    """Counts of whole networks."""

    name = "ffnet"
    title = "FFNet's parameters and multiply-adds"

    def claims(self, row: Row) -> bool:
        """Rows of FFNet's image classifiers."""
        table = row["table_or_figure"]
        return row["method"].lower() in VARIANTS and ("ImageNet" in table or "models/ffnet.py" in table)

    def predict(self, row: Row) -> float:
        """Millions of parameters, or 10^9 multiply-adds of an image."""
        network, metric = VARIANTS[row["method"].lower()], row["metric"]
        if "training form" in row["notes"]:
            raise Skip("of the network in training, whose branches are not merged")
        if metric == "parameters":
            return network.n_parameters / 1e6
        if "multiply-adds" not in metric:
            raise Skip(f"no count: {metric[:60] or 'empty'}")
        return network.multiply_adds(resolution_of(row)) / 1e9

    def method(self, row: Row) -> str:
        """By what is counted."""
        return "parameters" if row["metric"] == "parameters" else "multiply-adds"


def resolution_of(row: Row) -> int:
    """Pixels of a side of a square image ("256x256")."""
    sides = re.fullmatch(r"(\d{2,5})x(\d{2,5})", row["seq_len"].strip())
    if not sides or sides[1] != sides[2] or int(sides[1]) % 32 or int(sides[1]) > MAX_RESOLUTION:
        raise Skip(f"seq_len is no square image whose sides are multiples of 32: {row['seq_len'][:40] or 'empty'}")
    return int(sides[1])


SOURCE = FfNetCounts()
