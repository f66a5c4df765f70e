"""How many tokens each expert gets, and who sends how many rows to whom: an input of the simulation.

    counts[d, e]   tokens of data place d (context and data parallel ranks together) that visit expert e; sum over e is
                   k n: each of n tokens visits k different experts, so no count exceeds n

Rows lie sorted by expert. The j-th row of a rank is its token j mod n: neighbouring rows are then different tokens, and
every token occurs k times, whatever the counts. With a capacity, an expert takes at most ceil(capacity k n / E) rows of
each rank, and drops what comes after (Lepikhin et al. 2020, GShard, arXiv 2006.16668, section 2.2).

New tokens are replicated: every context parallel rank of a replica has the same ones, and knows where all of them go. A
rank then dispatches only rows whose expert lies at its own context position, so that each row travels once, and sums
over a token's experts are sums over those ranks of the experts' group that share the token:

    sent[d, e] = context position of e's owner in d's group == context position of d
    shared     = context positions in a group of experts' owners;   after that an all-reduce over them
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cost_models.models.shape import MoeShape
from cost_models.spec import parse_spec
from simulator.grid import Grid, IntArray
from simulator.program.operations import Column
from simulator.steps.axes import DATA
from traces.bounded import read_bounded
from traces.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
MAX_FILE_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Routing:
    """Rows of every rank, for a grid with experts spread over groups of neighbouring data places.

    Parameters
    ----------
    counts : [data places, experts].
    grid : the ranks.
    over : ranks among which the experts are spread.
    replicated : whether context parallel ranks have the same tokens.
    """

    counts: IntArray
    grid: Grid
    over: int
    replicated: bool = False

    @cached_property
    def place(self) -> IntArray:
        """Data place of each rank."""
        return self.grid.position(*DATA)

    @cached_property
    def _context(self) -> IntArray:
        """[groups of owners, members]: context position of each."""
        context = np.zeros(len(self.counts), dtype=np.int64)
        context[self.place] = self.grid.context
        return context.reshape(-1, self.over)

    @cached_property
    def sent(self) -> BoolArray | None:
        """[data places, experts]: whether a place dispatches its rows to an expert; None where it sends all."""
        if self.shared == 1:
            return None
        owner = np.arange(self.counts.shape[1]) // (self.counts.shape[1] // self.over)
        own = self._context[:, :, None] == self._context[:, None, owner]
        return np.asarray(own.reshape(self.counts.shape))

    @cached_property
    def shared(self) -> int:
        """Ranks of a group of owners that have the same tokens."""
        return len(np.unique(self._context[0])) if self.replicated else 1

    @cached_property
    def sharers(self) -> IntArray:
        """Number of each rank's group of such ranks."""
        numbers = self.groups * self.grid.dp + self.grid.coordinate("dp")
        return np.asarray(np.unique(numbers, return_inverse=True)[1].reshape(-1))

    @cached_property
    def dispatched(self) -> IntArray:
        """[data places, experts]: rows that each place dispatches."""
        return self.counts if self.sent is None else np.where(self.sent, self.counts, 0)

    @cached_property
    def rows(self) -> IntArray:
        """Rows that each rank dispatches."""
        return np.asarray(self.dispatched.sum(axis=1)[self.place])

    @cached_property
    def by_owner(self) -> IntArray:
        """[data places, owners]: rows for each member of the place's group, whose experts are neighbours."""
        places, experts = self.counts.shape
        return np.asarray(self.dispatched.reshape(places, self.over, experts // self.over).sum(axis=2))

    @cached_property
    def travels(self) -> bool:
        """Whether any row has its expert on another rank."""
        return self.over > self.shared

    @cached_property
    def groups(self) -> IntArray:
        """Number of each rank's group of experts' owners."""
        groups = self.grid.size(*DATA) // self.over
        return self.grid.groups(*DATA) * groups + self.place // self.over

    @cached_property
    def splits(self) -> IntArray:
        """[ranks, ranks]: rows from each to each, as an all-to-all sends them."""
        same = self.groups[:, None] == self.groups
        return np.where(same, self.by_owner[self.place][:, self.place % self.over], 0)

    @cached_property
    def returning(self) -> IntArray:
        """The same rows on their way back."""
        return self.splits.T

    @cached_property
    def received(self) -> IntArray:
        """[ranks, sources, own experts]: rows that each rank gets of each member of its group, for each expert."""
        own = self.counts.shape[1] // self.over
        grouped = self.dispatched.reshape(-1, self.over, self.over, own)  # group, source, owner, expert of the owner
        return grouped.transpose(0, 2, 1, 3)[self.place // self.over, self.place % self.over]

    @cached_property
    def computed(self) -> IntArray:
        """Rows that each rank's experts compute."""
        return np.asarray(self.received.sum(axis=(1, 2)))


def build_routing(
    moe: MoeShape, grid: Grid, tokens: Column, over: int, spec: str = "uniform", capacity: float | None = None, *,
    replicated: bool = False,
) -> Routing:  # fmt: skip
    """Routing of so many tokens on each rank.

    Parameters
    ----------
    tokens : of each rank; a column over the context parallel ranks where they have unequally many.
    spec : ``uniform``, ``zipf:exponent=1.0,seed=0`` (popularity of experts, in an order drawn with the seed) or
        ``@FILE``, a CSV of weights, one row for all ranks or one per data place (of replicated tokens: per replica).
    replicated : whether the ranks of a context parallel group have the same tokens.

    Raises
    ------
    InputError
        Where experts cannot be spread evenly, or the file does not fit.

    >>> moe = MoeShape(experts=4, top_k=2, shared=0, intermediate=8)
    >>> build_routing(moe, Grid(), 6, 1).counts.tolist()
    [[3, 3, 3, 3]]
    >>> build_routing(moe, Grid(cp=2), 6, 2, replicated=True).dispatched.tolist()
    [[3, 3, 0, 0], [0, 0, 3, 3]]
    """
    places = grid.size(*DATA)
    if moe.experts % over or places % over:
        raise InputError("experts cannot be spread evenly", got=f"{moe.experts} experts, {places} data and context "
                         f"parallel ranks, over {over}")  # fmt: skip
    if replicated:
        _check_groups(grid, over)
    rows = grid.dp if replicated else places
    weights = np.broadcast_to(_weights(spec, moe.experts, rows), (rows, moe.experts))
    each = _by_place(grid, tokens) if isinstance(tokens, np.ndarray) else np.full(places, tokens)
    kind = _by_place(grid, grid.coordinate("dp")) if replicated else np.arange(places)
    counts = np.stack([
        _share_out(weights[kind[place]], int(own) * moe.top_k, int(own)) for place, own in enumerate(each)
    ])  # fmt: skip
    if capacity is not None:
        counts = np.minimum(counts, np.ceil(capacity * moe.top_k * each / moe.experts).astype(np.int64)[:, None])
    return Routing(counts, grid, over, replicated)


def _by_place(grid: Grid, column: IntArray) -> IntArray:
    """A column over all ranks, or over those of a context parallel group, by data place."""
    found = np.zeros(grid.size(*DATA), dtype=np.int64)
    found[grid.position(*DATA)] = column if len(column) == grid.n_ranks else column[grid.context]
    return found


def _check_groups(grid: Grid, over: int) -> None:
    """Refuse groups of owners that have parts of several context parallel groups."""
    inner = min(DATA, key=grid.stride)
    if over % grid.size(inner) and grid.size(inner) % over:
        raise InputError("experts' ranks are neither whole context parallel groups nor an even part of one",
                         got=f"ep {over}, {inner} {grid.size(inner)}",
                         expected=f"a multiple or a divisor of {grid.size(inner)}")  # fmt: skip


def _weights(spec: str, experts: int, places: int) -> FloatArray:
    if spec.startswith("@"):
        return _read(spec[1:], experts, places)
    parsed = parse_spec(spec, "routing")
    if parsed.name == "uniform":
        parsed.only(())
        return np.ones((1, experts))
    if parsed.name != "zipf":
        raise InputError("unknown routing", got=repr(spec), expected="uniform, zipf:exponent=,seed= or @FILE")
    parsed.only(("exponent", "seed"))
    try:
        exponent, seed = float(parsed.options.get("exponent", "1")), int(parsed.options.get("seed", "0"))
        order = np.random.default_rng(seed).permutation(experts)
    except ValueError:
        raise InputError("zipf's exponent or seed is not a number", got=repr(spec)) from None
    if not 0 <= exponent <= 10:
        raise InputError("zipf's exponent is out of range", got=exponent, expected="0 to 10")
    return np.asarray((order + 1.0) ** -exponent)[None]


def _read(name: str, experts: int, places: int) -> FloatArray:
    data = read_bounded(name, f"routing file {name}", MAX_FILE_BYTES)
    if not data.strip():
        raise InputError(f"routing file {name} is empty", expected=f"1 or {places} rows of {experts} numbers")
    try:
        weights = np.loadtxt(data.decode().splitlines(), delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"routing file {name} is not a CSV of numbers", got=str(error)[:80]) from None
    if weights.shape not in ((1, experts), (places, experts)):
        raise InputError(f"routing file {name} has other rows or columns", got=str(weights.shape),
                         expected=f"1 or {places} rows of {experts}")  # fmt: skip
    if not np.isfinite(weights).all() or (weights < 0).any() or (np.count_nonzero(weights, axis=1) == 0).any():
        raise InputError(f"routing file {name} has a row without positive weights, or a negative one")
    return np.asarray(weights, dtype=np.float64)


def _share_out(weights: FloatArray, total: int, most: int) -> IntArray:
    """Whole numbers near the weights' shares of ``total``, none above ``most``: what is over goes to the others."""
    counts = np.zeros(len(weights), dtype=np.int64)
    shares = np.maximum(weights, weights[weights > 0].min() * 1e-9)
    while (missing := total - int(counts.sum())) > 0:
        room = counts < most
        exact = np.where(room, shares, 0) / shares[room].sum() * missing
        step = np.minimum(np.floor(exact).astype(np.int64), most - counts)
        if not step.any():
            first = np.argsort(np.where(room, -exact, 1), kind="stable")[: min(missing, int(room.sum()))]
            step[first] = 1
        counts += step
    return counts
