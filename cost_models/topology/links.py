"""Links and their speeds, as NCCL believes them.

A link is directed and has a capacity; every physical connection is two links of equal capacity. The numbers are not
line rates but what NCCL assumes a transfer by SMs reaches.

Source: NVIDIA/nccl 2.30.7 src/graph/topo.h (LOC_BW, SM*_NVLINK_BW, *_BW of CPUs), src/graph/topo.cc (PCI link = lanes x
speed / 80). Latencies: the LL hardware latencies of src/graph/tuning.cc (NVLink 0.6, PCI 1.0, NET 2.7 us for one hop
of a ring), split over the links of a usual route. Software latency is not here: it belongs to the hardware profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GB_PER_S = 1e9


class LinkType(StrEnum):
    """What a link is made of; NCCL's LINK_* names, and host memory, which NCCL does not model."""

    LOC = "LOC"
    NVL = "NVL"
    C2C = "C2C"
    PCI = "PCI"
    SYS = "SYS"
    NET = "NET"
    MEM = "MEM"


HOST_LINKS = (LinkType.SYS, LinkType.MEM)
"""Between NUMA nodes and into their memory: capacities that are sustained, of which a transport reaches all."""


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a connection.

    ``index`` is its place in ``ClusterTopology.links``; ``source`` and ``target`` are nodes of the graph.
    """

    index: int
    source: str
    target: str
    type: LinkType
    capacity_bytes_per_s: float
    latency_s: float
    name: str


LOC_BYTES_PER_S = 5000 * GB_PER_S

LATENCY_S = {
    LinkType.LOC: 0.0,
    LinkType.NVL: 0.3e-6,  # GPU to NVSwitch; two of them make NCCL's 0.6 us
    LinkType.C2C: 0.3e-6,
    LinkType.PCI: 0.5e-6,
    LinkType.SYS: 0.5e-6,
    LinkType.NET: 0.35e-6,  # with two PCI links at either end, 2.7 us through one leaf switch
    LinkType.MEM: 0.0,  # in what the PCI links have
}
DIRECT_NVLINK_LATENCY_S = 0.6e-6
SOCKET_LATENCY_S = 7e-6  # per end; NCCL's NET latency of the Simple protocol is 14 us

_NVLINK_GB_PER_S = ((100, 40.1), (90, 20.6), (87, 20.0), (86, 12.0), (70, 20.0), (60, 18.0))


def nvlink_bytes_per_s(sm: int) -> float:
    """Bytes per second and direction of one NVLink of a GPU of compute capability ``sm`` (90 for 9.0).

    >>> nvlink_bytes_per_s(90) * 18 / 1e9
    370.8
    """
    return next((rate for least, rate in _NVLINK_GB_PER_S if sm >= least), 18.0) * GB_PER_S


# Unit: 100 Mb/s per lane. NCCL takes the entry that is a prefix of the text, and Gen3 if there is none.
_PCIE_SPEEDS = (
    ("2.5 GT/s", 15), ("5 GT/s", 30), ("5.0 GT/s", 30), ("8 GT/s", 60), ("8.0 GT/s", 60), ("16 GT/s", 120),
    ("16.0 GT/s PCIe", 120), ("32 GT/s", 240), ("32.0 GT/s PCIe", 240), ("64.0 GT/s PCIe", 480),
)  # fmt: skip
_PCIE_UNKNOWN_SPEED = 60


def pcie_bytes_per_s(link_speed: str, link_width: int) -> float:
    """Capacity of a PCI link from the two attributes of a NCCL file.

    Parameters
    ----------
    link_speed : text of sysfs, per lane, as ``"32.0 GT/s PCIe"``; unknown text is taken as Gen3, as NCCL does.
    link_width : lanes; 0 is taken as 16.

    >>> [pcie_bytes_per_s(text, 0) / 1e9 for text in ("32 GT/s PCIe/s", "16.0 GT/s", "")]
    [48.0, 12.0, 12.0]
    """
    speed = next((value for text, value in _PCIE_SPEEDS if link_speed.startswith(text)), _PCIE_UNKNOWN_SPEED)
    return (link_width or 16) * speed / 80 * GB_PER_S


def pcie_speed_is_known(link_speed: str) -> bool:
    """Whether NCCL recognises the text of a PCI link speed.

    >>> pcie_speed_is_known("16.0 GT/s PCIe"), pcie_speed_is_known("16.0 GT/s")
    (True, False)
    """
    return any(link_speed.startswith(text) for text, _ in _PCIE_SPEEDS)


def pcie_generation_bytes_per_s(generation: int, lanes: int = 16) -> float:
    """Capacity of a PCI link of a generation (1 to 6).

    >>> pcie_generation_bytes_per_s(5) / 1e9
    48.0
    """
    return lanes * (15 << (generation - 1)) / 80 * GB_PER_S


_INTEL_GB_PER_S = ((0xCF, 40.0), (0x8F, 22.0), (0x55, 10.0))  # Emerald Rapids, Sapphire Rapids, Skylake
_INTEL_OLDER_GB_PER_S = 6.0


def sys_bytes_per_s(arch: str, vendor: str, family: int, model: int) -> float:
    """Capacity between two NUMA nodes (QPI, UPI, Infinity Fabric) from the attributes of a NCCL ``cpu`` element.

    >>> sys_bytes_per_s("x86_64", "GenuineIntel", 6, 207) / 1e9, sys_bytes_per_s("x86_64", "AuthenticAMD", 23, 49) / 1e9
    (40.0, 16.0)
    """
    if arch == "arm64":
        return 6 * GB_PER_S
    if arch == "ppc64":
        return 32 * GB_PER_S
    if vendor == "AuthenticAMD":
        return 16 * GB_PER_S
    if vendor == "GenuineIntel" and family == 6:
        return next((rate for least, rate in _INTEL_GB_PER_S if model >= least), _INTEL_OLDER_GB_PER_S) * GB_PER_S
    return _INTEL_OLDER_GB_PER_S * GB_PER_S
