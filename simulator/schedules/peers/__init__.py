"""Other people's implementations, as their code really runs: operations, dtypes and hops.

They share the primitives of our schedules and so run in the same executors, which proves that what is described here
computes attention; that it is what the code does is shown by running that code (`validators.peers`).
"""

from __future__ import annotations

from simulator.schedules.base import Schedule
from simulator.schedules.peers.ring_flash_attn import RingFlashAttn
from simulator.schedules.peers.torch_cp import TorchCp
from simulator.schedules.peers.yunchang import YunChang

PEERS: dict[str, type[Schedule]] = {each.name: each for each in (TorchCp, RingFlashAttn, YunChang)}

__all__ = ["PEERS", "RingFlashAttn", "TorchCp", "YunChang"]
