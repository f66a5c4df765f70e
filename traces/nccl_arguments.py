"""Communication as traces of PyTorch show it: NCCL's kernel names, and what the profiler writes beside them.

Sizes are in elements of one byte, as a Timeline knows bytes and no dtype. NCCL runs grouped sends and receives and
all-to-all in one kernel, SendRecv; the collective's name tells them apart (coalesced is what PyTorch calls the group).
"""

from __future__ import annotations

from traces.launches import Communication
from traces.timeline import OperationInfo

KERNELS = {
    "exchange": "SendRecv",
    "all_to_all": "SendRecv",
    "all_gather": "AllGather",
    "all_reduce": "AllReduce",
    "reduce_scatter": "ReduceScatter",
    "broadcast": "Broadcast",
    "reduce": "Reduce",
}
COLLECTIVES = {
    "exchange": "coalesced",
    "all_to_all": "all_to_allv",
    "all_gather": "_allgather_base",
    "all_reduce": "allreduce",
    "reduce_scatter": "_reduce_scatter_base",
}
MAX_LISTED_RANKS = 30
"""As in PyTorch, which cuts longer lists."""


def kernel_name(info: OperationInfo) -> str:
    """Name of an operation's event, with the prefix by which tools know its category.

    >>> kernel_name(OperationInfo(0, "exchange 3", "exchange", "forward", 3, "communication"))
    'ncclDevKernel_SendRecv exchange 3'
    """
    if info.category == "communication" and not info.name.startswith("nccl"):
        return f"ncclDevKernel_{KERNELS.get(info.kind, info.kind)} {info.name}"
    if info.category == "copy" and not info.name.startswith("Mem"):
        return f"Memcpy {info.name}"
    return info.name


def communication_arguments(kind: str, communication: Communication, rank: int) -> dict[str, object]:
    """Arguments of a communication kernel on one rank."""
    members = communication.members(rank)
    listed = ", ".join(str(each) for each in members[:MAX_LISTED_RANKS])
    arguments: dict[str, object] = {
        "Collective name": COLLECTIVES.get(kind, kind),
        "In msg nelems": int(communication.bytes_in[rank]),
        "Out msg nelems": int(communication.bytes_out[rank]),
        "dtype": "Byte",
        "Group size": len(members),
        "Process Group Name": communication.group_name,
        "Process Group Ranks": f"[{listed}{', ...' if len(members) > MAX_LISTED_RANKS else ''}]",
    }
    if communication.to is not None and communication.source is not None:
        arguments |= {"Dst Rank": int(communication.to[rank]), "Src Rank": int(communication.source[rank])}
    return arguments
