# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write your own schedule: simulate, prove and run it
#
# A schedule is one SPMD function per pass. Recorded once, it is priced and simulated, executed on tensors in float64,
# and run by real processes: all from the same text. This one is ring attention as one would write it first.

# %%
from dataclasses import dataclass
from typing import ClassVar

import attnsim
from simulator.schedules import SCHEDULES, Schedule
from simulator.schedules.base import split_sequence


@dataclass(frozen=True)
class FirstRing(Schedule):
    """Keys and values go round a ring of all ranks; in backward their gradients travel with them."""

    name: ClassVar[str] = "first-ring"
    source: ClassVar[str] = "this notebook"

    def resolve(self, setup):
        return self

    def check(self, setup):
        self.input_partition(setup)

    def input_partition(self, setup):
        return split_sequence(None, setup)  # zigzag for causal masks: every rank has as much to do

    def forward(self, r, q, k, v):
        ring, _ = r.setup.rings(double=False)
        total = None
        for step in r.steps(ring.size):
            if step:
                k, v = r.shift(ring, k, v)
            total = r.merge(total, r.attention(q, k, v))
        return r.finish(total)

    def backward(self, r, q, k, v, saved, do):
        ring, _ = r.setup.rings(double=False)
        (o, lse), dq, dkv = saved, None, None
        for _ in r.steps(ring.size):
            dq_part, *dkv_parts = r.attention_backward(q, k, v, do, lse, o=o)
            dq = r.accumulate(dq, (dq_part,), "fp32")
            dkv = r.accumulate(dkv, dkv_parts, "fp32")
            k, v, *dkv = r.shift(ring, k, v, *dkv)
        return tuple(r.cast(gradient, r.setup.workload.dtype) for gradient in (*dq, *dkv))


# %% [markdown]
# Which (query, key) pairs a step computes is not in there: it follows from the tokens that tensors hold, and the mask.
# So the class is right for any mask.
#
# ## Simulate
#
# Registered under its name, it can be asked for as any other.

# %%
SCHEDULES[FirstRing.name] = FirstRing

question = {"model": "llama-3.1-8b", "seq_len": "64k", "gpus": 8, "topology": "dgx-h100"}


def tell(schedule):
    result = attnsim.simulate(schedule=schedule, **question)
    exposed_ms = result.exposed_communication_s * 1e3
    print(f"{schedule:14}{result.time_s * 1e3:7.2f} ms, of which {exposed_ms:5.2f} ms is exposed communication")
    return result


first = tell("first-ring")
ring = tell("ring")

# %% [markdown]
# The library's ring is faster. The timeline says where (two of eight ranks, shaded where a rank only communicates).

# %%
from traces.figures.timeline import plot_timeline

plot_timeline(first.timeline, ranks=[0, 1])

# %% [markdown]
# Every step waits for its keys, as they are asked for when they are needed; in backward they even travel with the
# gradients, which are there only when the step is done. So: ask for the next step's keys before this step computes, and
# let the gradients follow on their own, one step behind.


# %%
@dataclass(frozen=True)
class BetterRing(FirstRing):
    """Keys go ahead, gradients follow."""

    name: ClassVar[str] = "better-ring"

    def forward(self, r, q, k, v):
        ring, _ = r.setup.rings(double=False)
        total = None
        for step in r.steps(ring.size):
            near = r.shift(ring, k, v) if step < ring.size - 1 else None
            total = r.merge(total, r.attention(q, k, v))
            k, v = near or (k, v)
        return r.finish(total)

    def backward(self, r, q, k, v, saved, do):
        ring, _ = r.setup.rings(double=False)
        (o, lse), dq, dkv = saved, None, None
        for step in r.steps(ring.size):
            near = r.shift(ring, k, v) if step < ring.size - 1 else None
            dq_part, *dkv_parts = r.attention_backward(q, k, v, do, lse, o=o)
            dq = r.accumulate(dq, (dq_part,), "fp32")
            dkv = r.shift(ring, *r.accumulate(dkv, dkv_parts, "fp32"))
            k, v = near or (k, v)
        return tuple(r.cast(gradient, r.setup.workload.dtype) for gradient in (*dq, *dkv))


SCHEDULES[BetterRing.name] = BetterRing
better = tell("better-ring")
assert better.time_s == ring.time_s

# %%
plot_timeline(better.timeline, ranks=[0, 1])

# %% [markdown]
# That is the library's ring, to the nanosecond. What is still exposed is the last hop, which brings the gradients home.
#
# ## Prove
#
# The loopback executor runs the recorded Program with all ranks in one process, in float64. New memory is full of NaN,
# so what is read too early or too late shows. The result must equal dense attention up to rounding (10^-12), under
# any mask.

# %%
from simulator.program.setup import Setup
from simulator.recording import build_program
from validators.executors.loopback import execute
from validators.executors.shards import draw_inputs
from validators.reference import reference, relative_error


def small_setup(mask):
    workload = attnsim.AttentionWorkload(1, 48, 8, 2, 16, 16, "bf16", attnsim.parse_mask(mask, 48))
    return Setup(workload, n_ranks=4, ranks_per_node=4)


def worst_error(results, inputs, setup):
    dense = reference(inputs, setup.workload.mask)
    assert set(results) == {"o", "lse", "dq", "dk", "dv"}
    return max(relative_error(results[name], dense[name]) for name in results)


for mask in ("causal", "full", "sliding-window:window=7,causal=true", "document:lengths=10+17+21,causal=true"):
    setup = small_setup(mask)
    program, inputs = build_program(BetterRing(), setup), draw_inputs(setup, seed=0)
    error = worst_error(execute(program, inputs).results, inputs, setup)
    assert error < 1e-12
    print(f"{mask:40} right to float64's rounding")

# %% [markdown]
# Does the proof notice a mistake? Gradients that stay behind while keys move on:


# %%
class BrokenRing(FirstRing):
    def backward(self, r, q, k, v, saved, do):
        ring, _ = r.setup.rings(double=False)
        (o, lse), dq, dkv = saved, None, None
        for _ in r.steps(ring.size):
            dq_part, *dkv_parts = r.attention_backward(q, k, v, do, lse, o=o)
            dq = r.accumulate(dq, (dq_part,), "fp32")
            dkv = r.accumulate(dkv, dkv_parts, "fp32")
            k, v = r.shift(ring, k, v)
        return tuple(r.cast(gradient, r.setup.workload.dtype) for gradient in (*dq, *dkv))


setup = small_setup("causal")
inputs = draw_inputs(setup, seed=0)
error = worst_error(execute(build_program(BrokenRing(), setup), inputs).results, inputs, setup)
assert error > 0.1
print(f"worst relative error {error:.2f}")

# %% [markdown]
# ## Run
#
# The same Program, replayed by real processes that send to each other over gloo. On a GPU node the same executor runs
# it over NCCL with the GPU's kernels (`python -m pytest -m gpu tests/gpu` does so with every schedule).

# %%
from validators.executors.processes import execute_on_processes

program = build_program(BetterRing(), setup)
error = worst_error(execute_on_processes(program, inputs), inputs, setup)
assert error < 1e-12
print(f"{setup.n_ranks} processes: right to float64's rounding")

# %% [markdown]
# To keep a schedule, put the class into a file of its own in `simulator/schedules/` and list it in `__init__.py` there:
# tests that go over all schedules then prove it, too.
