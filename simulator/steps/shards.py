"""Which ranks share a weight, and the part of it that each of them holds where it is sharded (ZeRO)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.grid import Grid, IntArray
from simulator.layers.parameter import Parameter
from simulator.program.operations import Slices
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor
from simulator.steps.axes import DATA


@dataclass(frozen=True, eq=False)
class Sharers:
    """The ranks that hold the same weights, and see different tokens.

    Attributes
    ----------
    ranks : of a group.
    groups, place : group of each rank, and its place in it.
    """

    ranks: int
    groups: IntArray
    place: IntArray

    @staticmethod
    def of(grid: Grid, experts_over: int) -> Sharers:
        """Context and data parallel ranks; of experts only those that have the same ones."""
        place, others = grid.position(*DATA), grid.groups(*DATA)
        groups = others * experts_over + place % experts_over
        return Sharers(grid.size(*DATA) // experts_over, groups, place // experts_over)


class Shards:
    """Makes parts of weights on a grid."""

    def __init__(self, r: Recorder, grid: Grid) -> None:
        self._r, self._grid = r, grid
        self._sharers: dict[int, Sharers] = {}

    def sharers_of(self, parameter: Parameter) -> Sharers:
        """The ranks that hold the same parts of a weight."""
        over = parameter.experts_over
        return self._sharers.get(over) or self._sharers.setdefault(over, Sharers.of(self._grid, over))

    def alike(self, weights: Sequence[Parameter]) -> list[list[Parameter]]:
        """Experts apart from what all ranks have."""
        kinds = sorted({each.experts_over for each in weights})
        return [[each for each in weights if each.experts_over == kind] for kind in kinds]

    def part(
        self, parameter: Parameter, name: str, dtype: str, *, is_input: bool = False, bits: float | None = None,
        on_host: bool = False,
    ) -> Tensor:  # fmt: skip
        """Memory for an N-th of the flattened weight, padded to equal shards."""
        sharers = self.sharers_of(parameter)
        part = -(-parameter.size // sharers.ranks)
        start = sharers.place * part
        slices = (*parameter.slices, Slices(None, start, start + part))
        return self._r.tensor(
            name, None, 1, part, dtype, tokens=1, batch=1, is_input=is_input, slices=slices, bits=bits, on_host=on_host
        )  # fmt: skip
