"""How far a prediction can be trusted: where its terms come from, what lies beyond them, and an interval around it.

    sigma^2 = e_call^2 + sum over terms i of (share_i e_i w_i)^2,      low, high = time / (1 + sigma), time (1 + sigma)

share_i is the part of the critical rank's time that term i prices, e_i the half-width of its 90 % band and w_i = 2
where the shape lies beyond what the term was measured on, else 1. Within a term all operations err alike, between terms
independently. e_call is what whole calls differ by besides (``HardwareProfile.call_error``, or that of the links),
fitted to runs. A fitted term brings its own e_i; of one that does not, the basis decides (`RELATIVE_ERROR`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cost_models.hardware import HardwareProfile, Source
from cost_models.topology import ClusterTopology
from simulator.engines.traffic import Rows
from simulator.result import Uncertainty

RELATIVE_ERROR = {"calibrated": 0.05, "published": 0.15, "datasheet": 0.25, "estimated": 0.3}
"""Half-width of the 90 % band of a term that brings none, by its basis."""

EXTRAPOLATED = 2.0
"""How much wider the band of a term is beyond what it was measured on."""

PRODUCTS = (
    "score", "linear", "linear_dx", "linear_dw", "experts", "experts_dx", "experts_dw", "absorb", "latent_values",
)  # fmt: skip
"""Kinds of operations that are matrix products."""

FP8_PRODUCTS = Source("datasheet", "published peak of FP8, and the share of a peak that products in 16 bits reach; "
                      "none in FP8 was measured")  # fmt: skip

_BASES = tuple(RELATIVE_ERROR)


@dataclass(frozen=True)
class Trust:
    """What a run's numbers rest on.

    Parameters
    ----------
    profile, kernel : the GPU, and its attention kernel that runs.
    head_dim : of queries and keys.
    topology : where the ranks are.
    fp8 : whether products of layers have operands in FP8.
    """

    profile: HardwareProfile
    kernel: str
    head_dim: int
    topology: ClusterTopology
    fp8: bool = False

    def provenance(self) -> dict[str, object]:
        """Every term that prices the run, with its basis, reference and relative error (90 %)."""
        terms = {
            label: {"basis": source.basis, "relative_error": _error(source), "reference": source.reference}
            for label, source in self._sources.items()
        }
        return {"hardware": self.profile.name, "topology": self.topology.source, "terms": terms}

    def extrapolations(self, rows: Mapping[str, Rows]) -> list[str]:
        """What of the attention calls lies beyond the measurements behind their curve, in words.

        Parameters
        ----------
        rows : least and most queries of a call, by direction.
        """
        found = []
        for direction, (least, most) in rows.items():
            texts = [self.profile.outside_fit(self.kernel, n, self.head_dim, direction) for n in (most, least)]
            found += [text for text in texts if text][:1]
        return found

    def uncertainty(self, breakdown: Mapping[str, int], *, extrapolated: bool) -> Uncertainty:
        """Interval of the makespan that has this breakdown (`traces.metrics.breakdown`), in nanoseconds by part."""
        of_term: dict[str, float] = {}
        for part, part_ns in breakdown.items():
            label = self._label(part)
            widen = EXTRAPOLATED if extrapolated and label.startswith("attention") else 1.0
            of_term[label] = of_term.get(label, 0.0) + part_ns * _error(self._sources[label]) * widen
        total_ns = sum(breakdown.values())
        sigma = math.hypot(self._call_error, *[value / (total_ns or 1) for value in of_term.values()])
        time_s = total_ns / 1e9
        return Uncertainty(time_s / (1 + sigma), time_s * (1 + sigma), extrapolated=extrapolated)

    @cached_property
    def _call_error(self) -> float:
        """Of the kind of link that has the widest band, or of the GPU."""
        links = [
            self.profile.links[kind].call_error for kind in link_kinds(self.topology) if kind in self.profile.links
        ]
        return max((each for each in links if each is not None), default=self.profile.call_error)

    @cached_property
    def _sources(self) -> dict[str, Source]:
        """Source of each term, by what it prices."""
        own = str(self.head_dim) in self.profile.kernel(self.kernel).head_dims
        attention = f"kernels.{self.kernel}.{f'head_dims.{self.head_dim}.' if own else ''}{{}}.efficiency"
        prefixes = {
            "attention forward": attention.format("forward"),
            "attention backward": attention.format("backward"),
            "memory-bound kernels": "elementwise.efficiency",
            "matrix products": "gemm.efficiency",
            **{f"link {kind}": f"links.{kind}.efficiency" for kind in link_kinds(self.topology)},
            "host": "host",
        }
        found = {label: self._weakest(prefix) for label, prefix in prefixes.items()}
        return found | {"matrix products": FP8_PRODUCTS} if self.fp8 else found

    def _weakest(self, prefix: str) -> Source:
        """Of the terms with a prefix (that of the head dim, if any) the weakest basis and widest band."""
        known, own = self.profile.sources, f"{prefix}.{self.head_dim}"
        below = [source for term, source in known.items() if f"{term}.".startswith(f"{prefix}.")]
        below = [known[own]] if own in known else below
        unnamed = Source("estimated", f"{self.profile.name} names no source")
        return max(below, key=lambda source: (_BASES.index(source.basis), _error(source)), default=unnamed)

    def _label(self, part: str) -> str:
        """The term that prices a part of the breakdown: of several links the farthest; waiting is the host's."""
        if part == "idle":
            return "host"
        category, kind, phase = part.split("/")
        if category == "communication":
            return next((label for label in reversed(self._sources) if label.startswith("link")), "host")
        if kind.startswith("attention"):
            return f"attention {phase}"
        return "matrix products" if kind in PRODUCTS else "memory-bound kernels"


def link_kinds(topology: ClusterTopology) -> list[str]:
    """Kinds of the routes from the first rank to all of its node and to the next node, as `Route.kind` has them.

    >>> from cost_models.topology import load_topology
    >>> link_kinds(load_topology("dgx-h100", 16))
    ['nvlink', 'net']
    """
    others = range(1, topology.ranks_per_node)
    if topology.n_nodes > 1:
        others = range(1, topology.ranks_per_node + 1)
    return list(dict.fromkeys(topology.route(0, rank).kind for rank in others))


def _error(source: Source) -> float:
    return RELATIVE_ERROR[source.basis] if source.relative_error is None else source.relative_error
