"""Path types and the search for a path inside one machine, by NCCL's rule.

A path's type is the worst of its steps: PCI to PCI switch makes PXB, PCI through a CPU makes PHB, NVLink through
another GPU makes NVB, C2C then PCI makes P2C. Of several paths the one of lower type wins, then of higher bandwidth,
then of fewer hops. GPUs do not forward, except between two NVLinks.

Source: NVIDIA/nccl 2.30.7 src/graph/topo.h (PATH_*), src/graph/paths.cc (ncclTopoSetPaths, mergePathType).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

from cost_models.topology.links import LOC_BYTES_PER_S, LinkType


class PathType(IntEnum):
    """How far apart two devices are; lower is better.

    >>> PathType.PIX < PathType.PHB, PathType["SYS"].name
    (True, 'SYS')
    """

    LOC = 0
    NVL = 1
    NVB = 2
    C2C = 3
    PIX = 4
    PXB = 5
    P2C = 6
    PXN = 7
    PHB = 8
    SYS = 9
    NET = 10
    DIS = 11


class DeviceKind(IntEnum):
    """What a device inside a machine is.

    NIC is the PCI device, NET one of its ports (or a bond of them), MEM the memory of a NUMA node.
    """

    GPU = 0
    PCI = 1
    NVS = 2
    CPU = 3
    NIC = 4
    NET = 5
    MEM = 6


@dataclass(frozen=True, slots=True)
class LocalLink:
    """A link between two devices of one machine, by their numbers; links 2k and 2k + 1 are each other's reverse."""

    source: int
    target: int
    type: LinkType
    capacity_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Path:
    """Way from one device to another: numbers of the links, in order."""

    links: tuple[int, ...]
    type: PathType
    bytes_per_s: float

    def reversed(self) -> Path:
        """The same way back."""
        return Path(tuple(link ^ 1 for link in reversed(self.links)), self.type, self.bytes_per_s)


_STEP = {
    LinkType.LOC: PathType.LOC,
    LinkType.NVL: PathType.NVL,
    LinkType.C2C: PathType.C2C,
    LinkType.PCI: PathType.PIX,
    LinkType.SYS: PathType.SYS,
    LinkType.NET: PathType.NET,
    LinkType.MEM: PathType.PHB,
}


def find_paths(
    kinds: Sequence[DeviceKind], outgoing: Sequence[Sequence[tuple[int, LocalLink]]], source: int
) -> dict[int, Path]:
    """Best path from one device to every device it reaches.

    Parameters
    ----------
    kinds : kind of each device.
    outgoing : for each device, its links with their numbers.
    source : the device to start from.
    """
    best: dict[int, Path] = {}
    order = count()  # equal paths: first come, first served
    start = Path((), PathType.LOC, LOC_BYTES_PER_S)
    heap: list[tuple[int, float, int, int, int, Path]] = [(0, -LOC_BYTES_PER_S, 0, next(order), source, start)]
    while heap:
        *_, device, path = heapq.heappop(heap)
        if device in best:
            continue
        best[device] = path
        for number, link in outgoing[device]:
            if link.target not in best and _may_forward(kinds, device, source, link, path):
                longer = _extend(kinds, path, number, link)
                rank = (longer.type, -longer.bytes_per_s, len(longer.links), next(order))
                heapq.heappush(heap, (*rank, link.target, longer))
    return best


def _may_forward(kinds: Sequence[DeviceKind], device: int, source: int, link: LocalLink, path: Path) -> bool:
    """GPUs forward only from one direct NVLink to another."""
    if device == source or kinds[device] is not DeviceKind.GPU:
        return True
    return link.type is LinkType.NVL and kinds[link.target] is DeviceKind.GPU and len(path.links) == 1


def _extend(kinds: Sequence[DeviceKind], path: Path, number: int, link: LocalLink) -> Path:
    step = _step_type(kinds[link.source], kinds[link.target], link.type, bool(path.links))
    path_type = PathType(max(path.type, step))
    if path_type is PathType.PHB and PathType.C2C in (path.type, step):
        path_type = PathType.P2C
    return Path((*path.links, number), path_type, min(path.bytes_per_s, link.capacity_bytes_per_s))


def _step_type(source: DeviceKind, target: DeviceKind, link: LinkType, later: bool) -> PathType:
    if source is DeviceKind.PCI and target is DeviceKind.PCI:
        return PathType.PXB
    if link is LinkType.PCI and DeviceKind.CPU in (source, target):
        return PathType.PHB
    if link is LinkType.NVL and source is DeviceKind.GPU and later:
        return PathType.NVB
    return _STEP[link]
