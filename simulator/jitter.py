"""How step times spread when durations vary: many draws of a Program, run at once by max-plus.

Every kernel and transfer takes its duration times a factor of its own, on each rank and in each draw: lognormal with
mean 1 and relative standard deviation sigma,

    factor = exp(s z - s^2 / 2),  s^2 = log(1 + sigma^2),  z standard normal.

A collective has one factor per draw. Sharing and interference are those of the run without jitter: they are in the
durations that are varied. A step waits for its slowest rank again and again, so the mean lies above the time without
jitter, the more so the more ranks there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engines.costs import Costs
from simulator.engines.maxplus import MaxPlus
from simulator.program.operations import Collective, Column, IntArray, Operation
from simulator.program.program import Program
from simulator.result import StepTimes

MOST_COLUMNS = 1 << 16
"""Numbers (draws times ranks) that are computed at once."""


@dataclass
class Jittered:
    """Costs of several draws: columns of shape [draws, ranks]."""

    costs: Costs
    n_ranks: int
    draws: int
    sigma: float
    rng: np.random.Generator

    def host_ns(self, operation: Operation) -> Column:
        """As it is."""
        return self.costs.host_ns(operation)

    def device_ns(self, operation: Operation) -> Column:
        """Varied."""
        s = np.sqrt(np.log1p(self.sigma**2))
        shape = self.draws, 1 if isinstance(operation.work, Collective) else self.n_ranks
        factor = np.exp(s * self.rng.standard_normal(shape) - s * s / 2)
        alone_ns = np.broadcast_to(np.asarray(self.costs.device_ns(operation)), self.n_ranks)
        varied: IntArray = np.rint(alone_ns * factor).astype(np.int64)
        return varied


def draw_step_times(program: Program, costs: Costs, sigma: float, seed: int, draws: int) -> StepTimes:
    """The distribution of the makespan.

    Parameters
    ----------
    sigma : relative standard deviation of each duration.
    seed : the same seed gives the same draws.
    """
    rng, n_ranks = np.random.default_rng(seed), program.setup.n_ranks
    chunk = max(MOST_COLUMNS // n_ranks, 1)
    times = [_makespans_s(program, Jittered(costs, n_ranks, min(chunk, draws - done), sigma, rng))
             for done in range(0, draws, chunk)]  # fmt: skip
    makespans = np.concatenate(times)
    p5, p50, p95, p99 = np.quantile(makespans, [0.05, 0.5, 0.95, 0.99]).tolist()
    return StepTimes(
        draws=draws, seed=seed, jitter=sigma, mean_s=float(makespans.mean()), min_s=float(makespans.min()), p5_s=p5,
        p50_s=p50, p95_s=p95, p99_s=p99, max_s=float(makespans.max()),
    )  # fmt: skip


def _makespans_s(program: Program, costs: Jittered) -> NDArray[np.float64]:
    engine = MaxPlus(costs.n_ranks, costs)
    program.replay(engine)
    last = np.broadcast_to(engine.finish_ns, (costs.draws, costs.n_ranks))
    return np.asarray(last.max(axis=-1) / 1e9)
