"""Pairs of ranks whose routes are alike: of equal type, kind, latency and rates.

Each pair has a code that is equal only where the routes are alike: machine and local rank of both ends, and whether the
leaf is the same. One route of each code is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cost_models.topology.paths import PathType
from cost_models.topology.routes import Route

IntArray = NDArray[np.int64]


class PairClasses:
    """Classes of pairs, numbered as they are met.

    Parameters
    ----------
    route : the way from one rank to another.
    machine_of_node : which of ``n_machines`` each node is; None where no two pairs are taken for alike (slow links).
    nodes_per_leaf : of a fat tree; None where local ranks say whether the leaf is the same (rails), or there is one.

    Attributes
    ----------
    routes : one of each class.
    """

    def __init__(
        self, route: Callable[[int, int], Route], n_ranks: int, ranks_per_node: int,
        machine_of_node: Sequence[int] | None, n_machines: int, nodes_per_leaf: int | None,
    ) -> None:  # fmt: skip
        self._route, self._n_ranks, self._ranks_per_node = route, n_ranks, ranks_per_node
        self._machine_of_node = None if machine_of_node is None else np.asarray(machine_of_node, np.int64)
        self._places, self._nodes_per_leaf = n_machines * ranks_per_node, nodes_per_leaf
        self.routes: list[Route] = []
        self._class_of_code: dict[int, int] = {}

    def of(self, src: IntArray, dst: IntArray) -> IntArray:
        """Class of each pair of ranks, all of which there are."""
        codes, first, inverse = np.unique(self._codes(src, dst), return_index=True, return_inverse=True)
        examples = zip(codes.tolist(), src.ravel()[first].tolist(), dst.ravel()[first].tolist(), strict=True)
        classes = np.array([self._class_of(*example) for example in examples], dtype=np.int64)
        return classes[inverse].reshape(src.shape)

    def _codes(self, src: IntArray, dst: IntArray) -> IntArray:
        if self._machine_of_node is None:
            return np.where(src == dst, 0, 1 + src * self._n_ranks + dst)
        (source_node, source), (target_node, target) = (np.divmod(ranks, self._ranks_per_node) for ranks in (src, dst))
        ends = (self._machine_of_node[source_node] * self._ranks_per_node + source) * self._places
        ends += self._machine_of_node[target_node] * self._ranks_per_node + target
        reach = np.where(source_node == target_node, 1, 2)
        if self._nodes_per_leaf is not None:
            reach += (reach == 2) & (source_node // self._nodes_per_leaf != target_node // self._nodes_per_leaf)
        return np.where(src == dst, 0, ends * 4 + reach)

    def _class_of(self, code: int, src: int, dst: int) -> int:
        if code not in self._class_of_code:
            route = self._route(src, dst)
            alike = (i for i, known in enumerate(self.routes) if _traits(known) == _traits(route))
            found = next(alike, None)
            if found is None:
                self.routes.append(route)
                found = self.routes.index(route)  # not its length before: another thread may have come between
            self._class_of_code[code] = found
        return self._class_of_code[code]


def _traits(route: Route) -> tuple[PathType, str, float, float, float, float]:
    rates = route.bytes_per_s, route.wire_bytes_per_s, route.host_bytes_per_s
    return route.path_type, route.kind, route.latency_s, *rates
