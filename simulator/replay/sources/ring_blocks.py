"""RingAttention's smallest blocks that hide their transfer: an analytic table, from its own peaks and bandwidths.

    compute 4 d c^2 / F  >=  transfer 4 c d / B   (K and V, 2 bytes an element)      =>  c >= F / B
    a host holds six blocks: S >= 6 c

F the peak in FLOP/s, B the link in bytes/s, one direction, both as the table prints them. Nothing is fitted.

Source: Liu et al. 2023, arXiv 2310.01889, section 3 and Table 2.
"""

from __future__ import annotations

from functools import cached_property

from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source


class RingBlocks(Source):
    """Minimal block and sequence per host."""

    name = "ring-blocks"
    title = "RingAttention's table of minimal block sizes"

    def claims(self, row: Row) -> bool:
        """Rows of Table 2."""
        return "2310.01889" in row["source"] and row["table_or_figure"] == "Table 2"

    def predict(self, row: Row) -> float:
        """Thousands of tokens."""
        if not row["metric"].startswith("minimal"):
            raise Skip("a number that the prediction starts from")
        if row["gpu"] not in self._ratio:
            raise Skip(f"peak or bandwidth of {row['gpu'][:40] or 'an unnamed device'} is not in the table")
        return self._ratio[row["gpu"]] * (6 if "sequence" in row["metric"] else 1) / 1e3

    @cached_property
    def _ratio(self) -> dict[str, float]:
        """F / B by device."""
        peak = {row["gpu"]: row.number("value") * 1e12 for row in self.rows if row["metric"] == "peak"}
        link = {row["gpu"]: row.number("value") * 1e9 for row in self.rows if "bandwidth" in row["metric"]}
        return {gpu: value / link[gpu] for gpu, value in peak.items() if gpu in link}

    def method(self, row: Row) -> str:
        """By what is asked."""
        return row["metric"]


SOURCE = RingBlocks()
