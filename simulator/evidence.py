"""How wrong predictions have been: runs measured by us, and published ones, against what was predicted of them.

The file is gathered from the comparisons themselves (`scripts/gather_evidence.py`); an error is
|predicted / measured - 1|, of runs that no constant was fitted to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from simulator.result import Json, SimulationResult
from traces.display import format_ns

FILE = Path(__file__).parent / "data/evidence.json"
LINKS = {"link nvlink": "NVLink", "link net": "network", "link pcie": "PCIe", "link shm": "through host memory",
         "link c2c": "C2C"}  # fmt: skip
UNMEASURED = (
    "Not measured by us: several GPUs at once. What is known of NVLink, PCIe between GPUs and networks comes from the "
    "published rows."
)


@dataclass(frozen=True)
class Evidence:
    """One comparison.

    Attributes
    ----------
    what, by : what was run, and by whom.
    runs : number of runs, or of published values.
    median, p95 : of their errors.
    inside : share of the runs within the 90 % interval; None where none was stated.
    ordered : share of the pairs of methods, 10 % or more apart, that were ordered right; None where there are none.
    """

    what: str
    by: str
    runs: int
    median: float
    p95: float
    inside: float | None
    ordered: float | None

    @property
    def row(self) -> dict[str, str]:
        """For a table."""
        return {
            "what was run": self.what,
            "by": self.by,
            "runs": str(self.runs),
            "median error": f"{self.median:.1%}",
            "95th percentile": f"{self.p95:.0%}",
            "within the interval": "" if self.inside is None else f"{self.inside:.0%}",
            "pairs ordered right": "" if self.ordered is None else f"{self.ordered:.0%}",
        }


@lru_cache(maxsize=1)
def load_evidence() -> tuple[Evidence, ...]:
    """All comparisons, ours first."""
    return tuple(Evidence(**each) for each in _file()["rows"])


def unmeasured() -> str:
    """What was never measured by us; empty where nothing is lacking."""
    return "" if _file()["several_gpus"] else UNMEASURED


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return data


def describe_trust(result: SimulationResult) -> str:
    """How sure a time is, in a sentence or two: its interval, and the bases of the terms that price it."""
    bounds = result.uncertainty
    between = f"{format_ns(bounds.low_s * 1e9)} to {format_ns(bounds.high_s * 1e9)}"
    beyond = ", beyond what was calibrated" if bounds.extrapolated else ""
    return f"{bounds.level:.0%} interval: {between}{beyond}. {_bases(terms_of(result.provenance))}"


def terms_of(provenance: Json) -> list[dict[str, str]]:
    """Terms that price a run: where each comes from, and its error (half-width of its 90 % band)."""
    return [
        {"term": LINKS.get(term, term), "basis": source["basis"], "error": f"±{source['relative_error']:.0%}",
         "source": source["reference"]}
        for term, source in provenance.get("terms", {}).items()
    ]  # fmt: skip


def _bases(terms: Sequence[Json]) -> str:
    """As ``Calibrated: attention forward (±3%); published: NVLink (±15%)``, with a full stop."""
    by_basis: dict[str, list[str]] = {}
    for each in terms:
        by_basis.setdefault(each["basis"], []).append(f"{each['term']} ({each['error']})")
    text = "; ".join(f"{basis}: {_joined(names)}" for basis, names in by_basis.items())
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
