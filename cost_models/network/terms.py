"""The numbers of a link type that NCCL's constants do not give, and where they come from.

Three per machine and link type: time of a collective besides what NCCL's latencies say (launch, synchronisation),
latency of one step of the Simple protocol, share of the channels' bandwidth that is reached. In this order: what the
profile has calibrated; the fit to published measurements of a machine with such GPUs (`data/fit.toml`); NCCL's own
constants: nothing besides, the tuner's hop, all of the bandwidth.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cost_models.network.communicator import Communicator
from cost_models.network.tuner import HOP_US, RING_BASE_US
from cost_models.topology.link_types import link_type_of

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile
    from cost_models.hardware.links import Regimes
    from cost_models.topology import ClusterTopology

FIT_FILE = Path(__file__).with_name("data") / "fit.toml"
NUMBERS = ("start_s", "step_s", "efficiency")
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
    """Terms of a group of GPUs of a profile.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.network.communicator import communicator
    >>> from cost_models.topology import load_topology
    >>> terms = terms_of(load_hardware("h100-sxm"), communicator(load_topology("dgx-h100"), range(8)))
    >>> 0.8 < terms.intra.efficiency < 1
    True
    """
    return Terms(_terms_of_link(profile, comm.intra_kind), _terms_of_link(profile, comm.inter_kind))


def _terms_of_link(profile: HardwareProfile, kind: str) -> NetworkTerms:
    known = fitted(profile.base or profile.name, kind) or NCCL_TERMS[kind]
    source = profile.sources.get(f"links.{kind}.latency_s")
    if source is None or source.basis != "calibrated":
        return known
    curve = profile.links[kind]
    if curve.start_s is not None and curve.step_s is not None and curve.collective_efficiency is not None:
        return NetworkTerms(curve.start_s, curve.step_s, curve.collective_efficiency, source.reference)
    start_s = max(curve.latency_s - RING_BASE_US[0] * _US - known.step_s, 0.0)
    return NetworkTerms(start_s, known.step_s, curve.efficiency, source.reference)


def network_part(profile: HardwareProfile) -> Hashable:
    """All of a profile on which times of transfers and collectives depend: equal parts, equal times."""
    calibrated = tuple(profile.sources.get(f"links.{kind}.latency_s") for kind in profile.links)
    pairs = tuple((link, *operations.items()) for link, operations in profile.pairs.items())
    return profile.base or profile.name, tuple(profile.links.items()), calibrated, pairs


def regimes_of(topology: ClusterTopology, profile: HardwareProfile, operation: str) -> Regimes | None:
    """An operation as it was measured, where the topology is two GPUs of one host and the profile has their links.

    Parameters
    ----------
    operation : one of ``TWO_RANKS``.
    """
    if not profile.pairs or topology.n_ranks != 2 or topology.n_nodes != 1:
        return None
    return profile.pairs.get(link_type_of(topology.nccl, topology.route(0, 1).kind), {}).get(operation)


def fitted(hardware: str, kind: str) -> NetworkTerms | None:
    """Committed fit for a GPU and kind of link, None where there is none."""
    return next((fit.terms for fit in machine_fits() if fit.link == kind and hardware in fit.hardware), None)


@dataclass(frozen=True)
class MachineFit:
    """Terms fitted to one machine.

    Attributes
    ----------
    machine : its name. link : kind of link.
    hardware : profiles that use the fit.
    rows : patterns (by column of the published measurements) of the rows of this machine.
    fit_rows : patterns of those among them that the fit used. least_bytes : and their least size.
    fitted : numbers that the fit found; others are what they are set to.
    """

    machine: str
    link: str
    hardware: tuple[str, ...]
    rows: Mapping[str, str]
    fit_rows: Mapping[str, str]
    least_bytes: int
    fitted: tuple[str, ...]
    terms: NetworkTerms

    def of_row(self, fields: Mapping[str, str]) -> bool:
        """Whether a measurement is of this machine."""
        return _matches(self.rows, fields)

    def uses(self, fields: Mapping[str, str]) -> bool:
        """Whether the fit used a measurement."""
        size = fields.get("bytes", "").strip()
        large = size.isdecimal() and int(size) >= self.least_bytes
        return large and self.of_row(fields) and _matches(self.fit_rows, fields)


def _matches(patterns: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    return all(re.search(pattern, fields.get(column, "")) for column, pattern in patterns.items())


@cache
def machine_fits() -> tuple[MachineFit, ...]:
    """All committed fits."""
    table = tomllib.loads(FIT_FILE.read_text(encoding="utf-8"))
    return tuple(_read(entry) for entry in table["fit"])


def _read(entry: Mapping[str, Any]) -> MachineFit:
    source = f"{entry['machine']}: {entry['fitted_on']}"
    terms = NetworkTerms(entry["start_s"], entry["step_s"], entry["efficiency"], source)
    return MachineFit(
        entry["machine"], entry["link"], tuple(entry["hardware"]), entry["rows"], entry["fit_rows"],
        entry["least_bytes"], tuple(entry.get("fitted", NUMBERS)), terms,
    )  # fmt: skip
