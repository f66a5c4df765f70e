"""Between whom operations move data, from what each rank's file says of itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from traces.kineto.facts import Peers, RankTrace
from traces.kineto.matching import Issued
from traces.launches import Communication

IntArray = NDArray[np.int64]


def communications(
    traces: Sequence[RankTrace], issued: Sequence[Issued], operation: IntArray
) -> dict[int, Communication]:
    """Of the operations all of whose ranks name their group, by the operations' ids.

    Parameters
    ----------
    operation : of all ranks' rows, in order of issue, rank after rank.
    """
    said: dict[int, dict[int, tuple[Peers, int]]] = defaultdict(dict)
    place = 0
    for rank, (trace, order) in enumerate(zip(traces, issued, strict=True)):
        for row in order.order.tolist():
            label = trace.labels[trace.rows["label"][row]]
            if label.kind.category == "communication":
                said[int(operation[place])][rank] = label.peers, trace.rows["bytes"][row]
            place += 1
    names = {number: of for number, of in said.items() if all(peers.ranks for peers, _ in of.values())}
    built = {number: _communication(of, len(traces)) for number, of in names.items()}
    return {number: each for number, each in built.items() if each is not None}


def _communication(said: Mapping[int, tuple[Peers, int]], n_ranks: int) -> Communication | None:
    """None where what the ranks say does not fit together."""
    group, sent = np.arange(n_ranks) + n_ranks, np.zeros(n_ranks, dtype=np.int64)
    to, source = np.arange(n_ranks), np.arange(n_ranks)
    for rank, (peers, n_bytes) in said.items():
        members = _members(peers.ranks)
        if rank not in members or not all(
            0 <= each < n_ranks for each in (*members, peers.to, peers.source) if each >= 0
        ):
            return None
        group[rank], sent[rank] = min(members), n_bytes
        to[rank] = peers.to if peers.to >= 0 else rank
        source[rank] = peers.source if peers.source >= 0 else rank
    moves = to != np.arange(n_ranks)
    paired = bool(moves.any()) and bool((source[to[moves]] == np.flatnonzero(moves)).all())
    group = np.unique(group, return_inverse=True)[1]
    return Communication("", group, sent, sent, to if paired else None, source if paired else None)


def _members(text: str) -> list[int]:
    try:
        members = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return []
    return members if isinstance(members, list) and all(type(each) is int for each in members) else []
