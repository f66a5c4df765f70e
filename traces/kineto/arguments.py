"""What an event's own fields say: times, and the bytes that communication moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from traces.kineto.classify import Kind
from traces.kineto.facts import Peers
from traces.kineto.stream import Event, to_ns
from traces.timeline import CATEGORIES

MAX_NS = 4 * 10**18
"""Latest time, a bit past the year 2096; two of them still are 64 bits."""
ITEM_BYTES = {"float": 4, "double": 8, "half": 2, "bfloat16": 2, "int": 4, "long": 8, "int32": 4, "int64": 8, "byte": 1,
              "char": 1, "uint8": 1, "int8": 1, "bool": 1, "short": 2}  # fmt: skip


def arguments(event: Event) -> dict[str, Any]:
    """The arguments of an event; none where they are no object."""
    args = event.get("args", {})
    return args if isinstance(args, dict) else {}


def span_ns(event: Event) -> tuple[int, int]:
    """Start and end in nanoseconds."""
    start_ns, duration_ns = to_ns(event["ts"]), to_ns(event.get("dur", 0))
    if not (0 <= start_ns <= MAX_NS and 0 <= duration_ns <= MAX_NS):
        raise ValueError(f"ts {event['ts']}, dur {event.get('dur')}")
    return start_ns, start_ns + duration_ns


def own_kind(args: Mapping[str, Any]) -> Kind | None:
    """What a trace that attnsim wrote says itself."""
    if "category" in args and "kind" in args and args["category"] in CATEGORIES:
        return Kind(str(args["category"]), str(args["kind"]).replace("/", "_"))
    return None


def peers(args: Mapping[str, Any]) -> Peers:
    """Between whom a communication kernel moves data."""
    if "Process Group Ranks" not in args and "Dst Rank" not in args:
        return Peers()
    ranks = str(args.get("Process Group Ranks", ""))
    return Peers("" if "..." in ranks else ranks, *(int(args.get(f"{which} Rank", -1)) for which in ("Dst", "Src")))


def bytes_sent(kind: Kind, args: Mapping[str, Any]) -> int:
    """Bytes that a rank puts on the wire in an NCCL kernel, from the sizes that its arguments say."""
    if kind.category != "communication":
        return 0
    size = int(args.get("In msg nelems", 0)) * ITEM_BYTES.get(str(args.get("dtype", "")).lower(), 1)
    group = max(int(args.get("Group size", 1)), 1)
    if kind.kind == "all_gather":
        return size * (group - 1)
    if kind.kind in ("all_to_all", "reduce_scatter"):
        return size * (group - 1) // group
    return 2 * size * (group - 1) // group if kind.kind == "all_reduce" else size


def tensor_bytes(args: Mapping[str, Any]) -> int:
    """Size of the first tensor in recorded shapes."""
    dims, types = args.get("Input Dims") or [[]], args.get("Input type") or [""]
    shape: Sequence[object] = dims[0] if isinstance(dims[0], list) else []
    if not shape or not all(type(each) is int for each in shape):
        return 0
    return math.prod(int(str(each)) for each in shape) * ITEM_BYTES.get(str(types[0]).removeprefix("c10::").lower(), 1)
