"""Which ways there are to compute an attention on given ranks: mechanism, degrees, placement and partitioner.

`list_choices` gives those worth comparing: every mechanism with its defaults, and the variants that change the
ranking. With ``every`` it gives all combinations of degrees, placements and partitioners of every mechanism. Each is
legal, or has the reason why it is not: heads or sequence not divisible, a mask that the algorithm is not defined for,
...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from cost_models.masks import DocumentMask
from simulator.program.partitioners import PARTITIONERS
from simulator.program.setup import Setup
from simulator.recording import check_program
from simulator.schedules import SCHEDULES, parse_schedule
from simulator.schedules.allgather import AllGather
from simulator.schedules.base import Schedule
from simulator.schedules.burst import Burst
from simulator.schedules.loongtrain import LoongTrain
from simulator.schedules.magi import Magi
from simulator.schedules.mesh import PLACEMENTS
from simulator.schedules.ring import Ring
from simulator.schedules.tp import TensorParallel
from simulator.schedules.two_dimensional import choose_degrees
from simulator.schedules.usp import Usp
from traces.errors import InputError

MOST_SEGMENTS = 320_000
"""Pairs of parts times documents up to which a partition per document is compared: each is a segment of a kernel."""


@dataclass(frozen=True)
class Choice:
    """A schedule, and why it cannot run; None where it can."""

    schedule: Schedule
    reason: str | None

    @property
    def legal(self) -> bool:
        """Whether it can run."""
        return self.reason is None


def list_choices(setup: Setup, pass_: str | None = None, *, every: bool = False, chunked: bool = False) -> list[Choice]:
    """What can be compared for a workload on some ranks.

    Parameters
    ----------
    pass_ : forward, backward or both; None for what each mechanism has.
    every : all combinations instead of the sensible ones.
    chunked : whether prompts come in chunks or after a cached prefix: then queries may go round instead of keys.

    >>> from cost_models.masks import parse_mask
    >>> from cost_models.workload import AttentionWorkload
    >>> setup = Setup(AttentionWorkload(1, 4096, 8, 2, 16, 16, "bf16", parse_mask("causal", 4096)), 16, 8)
    >>> reasons = {str(each.schedule): each.reason for each in list_choices(setup)}
    >>> reasons["ulysses"], reasons["lightseq"]
    ('8 heads are not divisible by 16 ranks', None)
    """
    listed = _every(setup) if every else _sensible(setup)
    listed = _with_pass_q(listed) if chunked else listed
    return [make_choice(schedule, setup, pass_) for schedule in listed]


def make_choice(schedule: Schedule, setup: Setup, pass_: str | None = None) -> Choice:
    """A schedule with its defaults for a setup, and why it cannot run there."""
    return Choice(_resolved(schedule, setup), reason_against(schedule, setup, pass_))


def reason_against(schedule: Schedule, setup: Setup, pass_: str | None = None) -> str | None:
    """Why a schedule cannot run; None where it can."""
    try:
        check_program(schedule, setup, pass_ or ("both" if schedule.has_backward else "forward"))
    except InputError as error:
        return error.message
    return None


def _resolved(schedule: Schedule, setup: Setup) -> Schedule:
    """With its defaults, where they can be found."""
    try:
        schedule.check(setup)
    except InputError:
        return schedule
    return schedule.resolve(setup)


def _with_pass_q(schedules: Iterable[Schedule]) -> Iterator[Schedule]:
    """Each ring twice: with keys going round, and with queries."""
    for schedule in schedules:
        yield schedule
        if isinstance(schedule, Ring | Usp):
            yield replace(schedule, circulate="q")


def _sensible(setup: Setup) -> Iterator[Schedule]:
    for name in SCHEDULES:
        yield from VARIANTS.get(name, _default(name))(setup)


def _default(name: str) -> Callable[[Setup], list[Schedule]]:
    return lambda _: [parse_schedule(name)]


def _ring(setup: Setup) -> list[Schedule]:
    return [Ring(), *[Ring(partition=name) for name in _other_partitions(setup, setup.n_ranks)]]


def _burst(setup: Setup) -> list[Schedule]:
    return [Burst(), *[Burst(partition=name) for name in _other_partitions(setup, setup.n_ranks)]]


def _other_partitions(setup: Setup, parts: int) -> list[str]:
    """Besides the default: the one per document, unless it has too many kernels to look at."""
    mask = setup.workload.mask
    if not isinstance(mask, DocumentMask) or not mask.is_causal or parts**2 * len(mask.lengths) > MOST_SEGMENTS:
        return []
    return ["document-zigzag"]


def _allgather(setup: Setup) -> list[Schedule]:
    """All heads at once, and one by one."""
    return [AllGather(), *([AllGather(head_group=1)] if setup.workload.kv_heads > 1 else [])]


def _usp(setup: Setup) -> list[Schedule]:
    """The largest head groups that leave a ring, and on several nodes the other placement."""
    heads = _heads_of_2d(setup)
    others = _other_partitions(setup, setup.n_ranks // heads)
    head_first: list[Schedule] = [Usp(ulysses=heads), *[Usp(ulysses=heads, partition=name) for name in others]]
    return head_first + ([Usp(ulysses=heads, placement="context-first")] if setup.nodes > 1 else [])


def _loongtrain(setup: Setup) -> list[Schedule]:
    return [LoongTrain(head=_heads_of_2d(setup))]


def _heads_of_2d(setup: Setup) -> int:
    """USP's default degree, or half of it where that leaves no ring: with one it would be Ulysses again."""
    heads, context = choose_degrees(setup, None, None)
    return heads if context > 1 or heads % 2 else heads // 2


def _tp(setup: Setup) -> list[Schedule]:
    return [TensorParallel(1), TensorParallel(3)]


VARIANTS: dict[str, Callable[[Setup], list[Schedule]]] = {
    "ring": _ring, "burst": _burst, "allgather": _allgather, "usp": _usp, "loongtrain": _loongtrain, "tp": _tp,
}  # fmt: skip
"""What is compared of a mechanism, where that is more than its defaults."""


def _every(setup: Setup) -> Iterator[Schedule]:
    """All degrees, placements and partitioners."""
    degrees = [degree for degree in range(1, setup.n_ranks + 1) if setup.n_ranks % degree == 0]
    for partition in PARTITIONERS:
        yield Ring(partition)
        yield from (Burst(ring, partition) for ring in ("flat", "double"))
        yield AllGather(partition=partition)
        yield Magi(partition=partition)
    for heads, placement, partition in product(degrees, PLACEMENTS[:2], PARTITIONERS):
        yield Usp(heads, setup.n_ranks // heads, placement, partition)
    for heads, placement in product(degrees, PLACEMENTS):
        context = setup.n_ranks // heads
        for window in (each for each in degrees if context % each == 0):
            yield from (LoongTrain(heads, context, window, placement, partition) for partition in PARTITIONERS)
    groups = [group for group in range(1, setup.workload.kv_heads) if setup.workload.kv_heads % group == 0]
    yield from (AllGather(head_group=group) for group in groups)
    yield from _tp(setup)
    others = [
        name for name in SCHEDULES if name not in {"ring", "burst", "allgather", "magi", "usp", "loongtrain", "tp"}
    ]
    yield from (parse_schedule(name) for name in others)
