"""What the memory of a NUMA node sustains: where shared-memory transfers meet.

GPUs without peer-to-peer talk through buffers in host memory. Every byte is written there by the sender's GPU and read
from there by the receiver's, so that n flows at rate r through one NUMA node take 2 n r of its memory bandwidth. A
node's share of its socket's bandwidth is what counts, as its pages lie in its own channels.

    rate of a NUMA node = channels of a socket x transfer rate x 8 bytes x sustained share / NUMA nodes of a socket

Machines are taken to have two sockets where they have more than one NUMA node, all channels populated at the fastest
speed that the CPU takes.

Sources: channels and speeds by AMD's and Intel's processor specifications, NVIDIA Grace performance tuning guide
(STREAM 410 GB/s and more of a Grace with 120 GB); sustained share: Microsoft, "STREAM benchmark" (learn.microsoft.com,
Azure high-performance computing), HBv3 with 2 x 8 channels of DDR4-3200: triad 330 to 350 of 409.6 GB/s.
"""

from __future__ import annotations

from collections.abc import Sequence

from cost_models.topology.links import GB_PER_S

SUSTAINED_SHARE = 340 / 409.6
"""Of the channels' peak, with reads and writes mixed."""

# GB/s of a socket: vendor, family, least model
_SOCKETS = (
    ("AuthenticAMD", 26, 0, 12 * 48.0), ("AuthenticAMD", 25, 0x10, 12 * 38.4), ("AuthenticAMD", 25, 0, 8 * 25.6),
    ("AuthenticAMD", 23, 0x30, 8 * 25.6), ("AuthenticAMD", 23, 0, 8 * 21.3),
    ("GenuineIntel", 6, 0xCF, 8 * 44.8), ("GenuineIntel", 6, 0x8F, 8 * 38.4), ("GenuineIntel", 6, 0x6A, 8 * 25.6),
    ("GenuineIntel", 6, 0x55, 6 * 21.3), ("GenuineIntel", 6, 0, 4 * 19.2),
)  # fmt: skip
_GRACE_GB_PER_S = 410.0
_UNKNOWN_GB_PER_S = 6 * 21.3  # Skylake's: six channels of DDR4-2666


def socket_bytes_per_s(arch: str, vendor: str, family: int, model: int) -> float:
    """What the memory of one socket sustains, from the attributes of a NCCL ``cpu`` element.

    >>> rome = socket_bytes_per_s("x86_64", "AuthenticAMD", 23, 49)
    >>> round(rome / 1e9), rome == socket_bytes_per_s("x86_64", "AuthenticAMD", 143, 49)
    (170, True)
    """
    if arch == "arm64":
        return _GRACE_GB_PER_S * GB_PER_S
    if family > 15 and family % 16 == 15:  # NCCL joins the two fields of CPUID instead of adding them
        family = 15 + family // 16
    known = (rate for name, fam, least, rate in _SOCKETS if (name, fam) == (vendor, family) and model >= least)
    return next(known, _UNKNOWN_GB_PER_S) * SUSTAINED_SHARE * GB_PER_S


def numa_nodes_per_socket(labels: Sequence[str]) -> int:
    """NUMA nodes of each socket, from the numbers of those that have devices: the rest of a power of two are there too.

    >>> numa_nodes_per_socket(["3", "1", "7", "5"]), numa_nodes_per_socket(["0", "1"]), numa_nodes_per_socket(["0"])
    (4, 1, 1)
    """
    highest = max((int(label) for label in labels if label.isdecimal()), default=0)
    nodes = 1 << max(highest, len(labels) - 1).bit_length()
    return max(nodes // 2, 1)
