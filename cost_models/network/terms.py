"""The numbers of a link type that NCCL's constants do not give, and where they come from.

Three per machine and link type: time of a collective besides what NCCL's latencies say (launch, synchronisation), latency
of one step of the Simple protocol, share of the channels' bandwidth that is reached. `data/fit.toml` holds those that
were fitted to published measurements, with the rows they were fitted on in `data/fit_rows.csv`; where there are none,
NCCL's own constants stand: nothing besides, the tuner's hop, all of the bandwidth.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cost_models.hardware import HardwareProfile
from cost_models.network.communicator import Communicator
from cost_models.network.tuner import HOP_US

_DATA = Path(__file__).with_name("data")
_US = 1e-6


@dataclass(frozen=True)
class NetworkTerms:
    """Three numbers of a link type on a machine.

    Attributes
    ----------
    start_s : time besides NCCL's own latencies.
    step_s : latency of one step of the Simple protocol.
    efficiency : share of the channels' bandwidth that large messages reach.
    source : where they come from.
    """

    start_s: float
    step_s: float
    efficiency: float
    source: str

    def as_array(self) -> tuple[float, float, float]:
        """The three numbers."""
        return self.start_s, self.step_s, self.efficiency


NCCL_TERMS = {
    kind: NetworkTerms(0.0, HOP_US["Ring", hop][2] * _US, 1.0, "NCCL 2.30.7 src/graph/tuning.cc")
    for kind, hop in (
        ("local", "nvlink"), ("nvlink", "nvlink"), ("c2c", "pci"), ("pcie", "pci"), ("shm", "pci"),
        ("net", "net"), ("socket", "net"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """Terms inside a node and between nodes."""

    intra: NetworkTerms
    inter: NetworkTerms

    def efficiency(self, comm: Communicator) -> float:
        """Share of the bandwidth of a collective of the group."""
        return self.intra.efficiency if comm.n_nodes == 1 else min(self.intra.efficiency, self.inter.efficiency)


def terms_of(profile: HardwareProfile, comm: Communicator) -> Terms:
    """Terms of a group of GPUs: fitted to its machine, or to one with GPUs of the same generation, else NCCL's."""
    inter = fitted(profile.name, comm.inter_kind) or NCCL_TERMS[comm.inter_kind]
    return Terms(fitted(profile.name, comm.intra_kind) or NCCL_TERMS[comm.intra_kind], inter)


def fitted(hardware: str, kind: str) -> NetworkTerms | None:
    """Committed fit for a GPU and kind of link, None where there is none."""
    return next((found for names, link, found in _fits() if link == kind and hardware in names), None)


@cache
def _fits() -> tuple[tuple[tuple[str, ...], str, NetworkTerms], ...]:
    table = tomllib.loads((_DATA / "fit.toml").read_text())
    return tuple(_read(entry) for entry in table["fit"])


def _read(entry: dict[str, Any]) -> tuple[tuple[str, ...], str, NetworkTerms]:
    source = f"{entry['machine']}, fitted on {entry['fitted_on']}"
    numbers = NetworkTerms(entry["start_s"], entry["step_s"], entry["efficiency"], source)
    return tuple(entry["hardware"]), entry["link"], numbers
