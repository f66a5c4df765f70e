"""How far a prediction can be trusted: where its terms come from, what lies beyond them, and an interval around it.

    sigma^2 = sum over terms i of (share_i e_i w_i)^2,      low, high = time / (1 + sigma), time (1 + sigma)

share_i is the part of the critical rank's time that term i prices, e_i the half-width of its 90 % band and w_i = 2
where the shape lies beyond what the term was measured on, else 1. Within a term all operations err alike, between terms
independently. A fitted term brings its own e_i; of one that does not, the basis decides (`RELATIVE_ERROR`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cost_models.hardware import HardwareProfile, Source
from cost_models.topology import ClusterTopology
from simulator.engines.traffic import Rows
from simulator.result import Uncertainty

RELATIVE_ERROR = {"calibrated": 0.05, "published": 0.15, "datasheet": 0.25, "estimated": 0.3}
"""Half-width of the 90 % band of a term that brings none, by its basis."""

EXTRAPOLATED = 2.0
"""How much wider the band of a term is beyond what it was measured on."""

_BASES = tuple(RELATIVE_ERROR)


def list_provenance(profile: HardwareProfile, kernel: str, topology: ClusterTopology) -> dict[str, object]:
    """Terms that price a run, each with its basis, reference and relative error (90 %).

    Parameters
    ----------
    profile : the GPU.
    kernel : its attention kernel that runs.
    topology : where the ranks are.
    """
    found = {label: _weakest(profile, prefix) for label, prefix in _terms(kernel, topology).items()}
    terms = {
        label: {"basis": source.basis, "relative_error": _error(source), "reference": source.reference}
        for label, source in found.items()
    }
    return {"hardware": profile.name, "topology": topology.source, "terms": terms}


def list_extrapolations(profile: HardwareProfile, kernel: str, head_dim: int, rows: Mapping[str, Rows]) -> list[str]:
    """What of the attention calls lies beyond the measurements behind their curve, in words.

    Parameters
    ----------
    rows : least and most queries of a call, by direction.
    """
    found = []
    for direction, (least, most) in rows.items():
        texts = [profile.outside_fit(kernel, count, head_dim, direction) for count in (most, least)]
        found += [text for text in texts if text][:1]
    return found


def estimate_uncertainty(
    profile: HardwareProfile, kernel: str, topology: ClusterTopology, breakdown: Mapping[str, int], extrapolated: bool
) -> Uncertainty:
    """Interval of the makespan with that breakdown (`traces.metrics.breakdown`), in nanoseconds by part."""
    terms, total_ns = _terms(kernel, topology), sum(breakdown.values())
    of_term: dict[str, float] = {}
    for part, part_ns in breakdown.items():
        label = _label(part, terms)
        error = _error(_weakest(profile, terms[label]))
        widen = EXTRAPOLATED if extrapolated and label.startswith("attention") else 1.0
        of_term[label] = of_term.get(label, 0.0) + part_ns * error * widen
    sigma = math.hypot(*of_term.values()) / (total_ns or 1)
    time_s = total_ns / 1e9
    return Uncertainty(time_s / (1 + sigma), time_s * (1 + sigma), extrapolated=extrapolated)


def _terms(kernel: str, topology: ClusterTopology) -> dict[str, str]:
    """Prefixes of the terms' names in a profile, by what they price."""
    return {
        "attention forward": f"kernels.{kernel}.forward.efficiency",
        "attention backward": f"kernels.{kernel}.backward.efficiency",
        "memory-bound kernels": "elementwise.efficiency",
        "matrix products": "gemm.efficiency",
        **{f"link {kind}": f"links.{kind}.efficiency" for kind in link_kinds(topology)},
        "host": "host",
    }


def link_kinds(topology: ClusterTopology) -> list[str]:
    """Kinds of the routes from the first rank to all of its node and to the next node, as `Route.kind` has them.

    >>> from cost_models.topology import load_topology
    >>> link_kinds(load_topology("dgx-h100", gpus=16))
    ['nvlink', 'net']
    """
    others = range(1, topology.ranks_per_node)
    if topology.n_nodes > 1:
        others = range(1, topology.ranks_per_node + 1)
    return list(dict.fromkeys(topology.route(0, rank).kind for rank in others))


def _label(part: str, terms: Mapping[str, str]) -> str:
    """The term that prices a part of the breakdown; waiting is the host's, or for a peer that is as uncertain."""
    if part == "idle":
        return "host"
    category, kind, phase = part.split("/")
    if category == "communication":
        return next((label for label in reversed(terms) if label.startswith("link")), "host")
    if kind.startswith("attention"):
        return f"attention {phase}"
    return "matrix products" if kind == "score" else "memory-bound kernels"


def _weakest(profile: HardwareProfile, prefix: str) -> Source:
    """Of the terms with a prefix, the source with the weakest basis and widest band."""
    sources = [source for term, source in profile.sources.items() if term == prefix or term.startswith(prefix + ".")]
    unnamed = Source("estimated", f"{profile.name} names no source")
    return max(sources, key=lambda source: (_BASES.index(source.basis), _error(source)), default=unnamed)


def _error(source: Source) -> float:
    return RELATIVE_ERROR[source.basis] if source.relative_error is None else source.relative_error
