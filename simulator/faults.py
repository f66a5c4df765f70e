"""What is wrong with a cluster: slow ranks, slow or lost links, a lost rank; and how much kernels and transfers vary.

| option | meaning |
|---|---|
| ``--slow-rank RANK:FACTOR`` | kernels of a rank take FACTOR times as long |
| ``--slow-link NAME:SHARE`` | a link has SHARE of its capacity |
| ``--lost NAME`` | a link or a port is gone: routed around, or refused with who is cut off |
| ``--lost-rank RANK[:SECONDS]`` | a rank does nothing from then on: refused with who waits for whom |
| ``--jitter SIGMA`` | durations vary, each on its own, with this relative standard deviation |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cost_models.topology import ClusterTopology, lose, slow_links
from simulator.asked import FaultFields
from traces.errors import InputError

MOST_DRAWS = 100_000


@dataclass(frozen=True, kw_only=True)
class FaultOptions(FaultFields):
    """The options above, as the user gave them."""

    def check(self, n_ranks: int) -> None:
        """Refuse what cannot be.

        Raises
        ------
        InputError
            For an option that is malformed or out of range.
        """
        self.factors(n_ranks)
        self.loss(n_ranks)
        if not 0 <= self.jitter <= 1:
            raise InputError("jitter is out of range", got=self.jitter, expected="a relative deviation from 0 to 1")
        if not 1 <= self.draws <= MOST_DRAWS:
            raise InputError("draws is out of range", got=self.draws, expected=f"1 to {MOST_DRAWS}")
        if self.seed < 0:
            raise InputError("seed is negative", got=self.seed)

    def apply(self, topology: ClusterTopology) -> ClusterTopology:
        """The cluster with its faults."""
        slow = [_split(each, "slow-link", "NAME:SHARE") for each in self.slow_link]
        _refuse_twice("slow-link", [name for name, _ in slow])
        _refuse_twice("lost", self.lost)
        if both := sorted({name for name, _ in slow} & set(self.lost)):
            raise InputError("a link is lost and slow", got=both[0], expected="one of the two")
        topology = lose(topology, self.lost)
        return slow_links(topology, dict(slow)) if slow else topology

    def factors(self, n_ranks: int) -> dict[int, float]:
        """How much longer the kernels of slow ranks take."""
        found: dict[int, float] = {}
        for text in self.slow_rank:
            rank, factor = _split(text, "slow-rank", "RANK:FACTOR")
            if not 0 < factor <= 1000:
                raise InputError("slow-rank's factor is out of range", got=text, expected="more than 0, at most 1000")
            if found.setdefault(_rank(rank, "slow-rank", n_ranks), factor) != factor:
                raise InputError("slow-rank names a rank twice", got=text, expected="one factor for a rank")
        return found

    def loss(self, n_ranks: int) -> tuple[int, int] | None:
        """The rank that is lost, and from which nanosecond on."""
        if self.lost_rank is None:
            return None
        rank, _, seconds = self.lost_rank.partition(":")
        since_s = _number(seconds, "lost-rank", "RANK:SECONDS") if seconds else 0.0
        if since_s < 0:
            raise InputError("lost-rank's time is negative", got=self.lost_rank)
        return _rank(rank, "lost-rank", n_ranks), round(since_s * 1e9)

    @property
    def given(self) -> dict[str, object]:
        """Options that differ from their defaults, as JSON holds them."""
        values = {"slow_rank": list(self.slow_rank), "slow_link": list(self.slow_link), "lost": list(self.lost)}
        given: dict[str, object] = {name: texts for name, texts in values.items() if texts}
        if self.lost_rank is not None:
            given["lost_rank"] = self.lost_rank
        if self.jitter:
            given |= {"jitter": self.jitter, "seed": self.seed, "draws": self.draws}
        return given


def _refuse_twice(option: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{option} names a link twice", got=twice[0], expected="each link once")


def _split(text: str, option: str, form: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    if not colon or not name:
        raise InputError(f"{option} is malformed", got=text, expected=form)
    return name, _number(number, option, form)


def _number(text: str, option: str, form: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} is malformed", got=text, expected=form) from None


def _rank(text: str, option: str, n_ranks: int) -> int:
    if not text.isdecimal() or int(text) >= n_ranks:
        raise InputError(f"{option} names no rank", got=text, expected=f"0 to {n_ranks - 1}")
    return int(text)
