"""Cores of this host's ranks: every process its own, so that two never compute on threads of one core.

Logical processors that a core has together are neighbours in the order in which they are shared out; a rank of several
has one for its compute thread and others for those that communicate.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def take_cores() -> tuple[int, ...]:
    """Bind this process, and threads that it will start, to its share of the processors it may use; which they are.

    All of them, and unbound, where there are fewer than ranks.
    """
    available = os.sched_getaffinity(0)
    rank, ranks = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    own = share_of(sorted(available, key=_place), rank, ranks)
    os.sched_setaffinity(0, own)
    return own


def share_of(processors: Collection[int], rank: int, ranks: int) -> tuple[int, ...]:
    """The rank's share of processors in their order.

    >>> share_of((0, 8, 1, 9, 2), 1, 2), share_of((0, 1), 2, 4)
    ((1, 9), (0, 1))
    """
    each = len(processors) // ranks
    return tuple(processors)[rank * each : (rank + 1) * each] or tuple(processors)


def _place(processor: int) -> tuple[int, int, int]:
    """Socket, core and thread."""
    topology = CPUS / f"cpu{processor}" / "topology"
    try:
        socket, core = (int((topology / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        return 0, processor, processor
    return socket, core, processor
