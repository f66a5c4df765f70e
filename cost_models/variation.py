"""What if some part of a cluster were faster: the same topology and profile with scaled rates.

    flop     tensor cores' peak, of every dtype            nvlink, c2c, pcie, sys, net
    hbm      memory bandwidth                              capacity of the links of that type, and what one channel of
    host     rate at which the host issues work            NCCL moves over such a route

A factor of 2 doubles a rate or halves a time; latencies stay. Efficiencies stay too: it is assumed that the faster part
is used as well as the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cost_models.spec import parse_spec
from cost_models.topology.link_types import kind_of
from cost_models.topology.links import LinkType
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile, LinkCurve
    from cost_models.topology import ClusterTopology
    from cost_models.topology.machine import Machine
    from cost_models.topology.paths import LocalLink

LINKS = {
    "nvlink": LinkType.NVL,
    "c2c": LinkType.C2C,
    "pcie": LinkType.PCI,
    "sys": LinkType.SYS,
    "net": LinkType.NET,
}
PARTS = ("flop", "hbm", "host", *LINKS)
SMALLEST, LARGEST = 1e-3, 1e3


@dataclass(frozen=True)
class Variation:
    """Factors by part, those of 1 left out.

    >>> str(parse_variation("net=0.5,flop=1"))
    'net=0.5'
    """

    factors: Mapping[str, float]

    def __str__(self) -> str:
        return ",".join(f"{part}={factor:g}" for part, factor in self.factors.items())

    @property
    def of_links(self) -> tuple[tuple[str, float], ...]:
        """Factors of links alone: all that a topology depends on."""
        return tuple((part, factor) for part, factor in sorted(self.factors.items()) if part in LINKS)

    def profile(self, profile: HardwareProfile) -> HardwareProfile:
        """The GPU and host with these factors."""
        factor = self.factors.get
        changes: dict[str, Any] = {
            "peak_flop_per_s": {dtype: rate * factor("flop", 1.0) for dtype, rate in profile.peak_flop_per_s.items()},
            "hbm_bytes_per_s": profile.hbm_bytes_per_s * factor("hbm", 1.0),
            "host": _scaled(profile.host, 1 / factor("host", 1.0)),
            "links": {kind: _scaled_channels(curve, factor(kind, 1.0)) for kind, curve in profile.links.items()},
            "pairs": {
                link: {name: each.faster(factor(kind_of(link), 1.0)) for name, each in operations.items()}
                for link, operations in profile.pairs.items()
            },
        }
        return profile.model_copy(update=changes)

    def topology(self, topology: ClusterTopology) -> ClusterTopology:
        """The cluster with these factors."""
        types = {link: self.factors[part] for part, link in LINKS.items() if part in self.factors}
        if not types:
            return topology
        machines = tuple(_scale_links(machine, types) for machine in topology.machines)
        return replace(topology, machines=machines)


def parse_variation(text: str) -> Variation:
    """Factors from ``PART=FACTOR,...``.

    Raises
    ------
    InputError
        For an unknown part, or a factor outside 0.001 to 1000.
    """
    options = parse_spec(f"what-if:{text}", "what-if").options
    factors: dict[str, float] = {}
    for part, value in options.items():
        if part not in PARTS:
            raise InputError("what-if names an unknown part", got=repr(part), expected="one of " + ", ".join(PARTS))
        factors[part] = _parse_factor(part, value)
    return Variation({part: factor for part, factor in factors.items() if factor != 1})


def _parse_factor(part: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not SMALLEST <= factor <= LARGEST:
        raise InputError(f"what-if: {part} has no usable factor", got=repr(text), expected="0.001 to 1000")
    return factor


def _scaled(terms: Any, factor: float) -> Any:
    return terms.model_copy(update={name: value * factor for name, value in terms if isinstance(value, float)})


def _scaled_channels(curve: LinkCurve, factor: float) -> LinkCurve:
    rates = {"channel_bytes_per_s": curve.channel_bytes_per_s, "one_way_bytes_per_s": curve.one_way_bytes_per_s}
    return curve.model_copy(update={name: rate * factor for name, rate in rates.items() if rate})


def _scale_links(machine: Machine, types: Mapping[LinkType, float]) -> Machine:
    """Links by their type; what joins a port to its NIC has the port's rate, so it goes with the network."""
    net, ports = types.get(LinkType.NET, 1.0), {each.device for each in machine.nets}

    def factor(link: LocalLink) -> float:
        own = link.type is LinkType.LOC and not ports.isdisjoint((link.source, link.target))
        return net if own else types.get(link.type, 1.0)

    links = tuple(
        replace(link, capacity_bytes_per_s=link.capacity_bytes_per_s * factor(link)) for link in machine.links
    )
    nets = tuple(replace(each, bytes_per_s=each.bytes_per_s * net) for each in machine.nets)
    return replace(machine, links=links, nets=nets)
