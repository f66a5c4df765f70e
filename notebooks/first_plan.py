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
# # First plan in five minutes
#
# 128k tokens of Llama 3.1 8B on one DGX H100: which context-parallel schedule, does it fit, and where does the time
# go? No GPU is needed; every number below is a prediction.

# %%
from rich import print

import attnsim

question = {"model": "llama-3.1-8b", "seq_len": "128k", "gpus": 8, "topology": "dgx-h100"}

# %% [markdown]
# ## Compare all schedules
#
# `compare` simulates the attention of one layer, forward and backward, with every schedule. Exact schedules compute
# dense attention; approximate ones compute something else, faster, and only forward. Those that cannot run say why.

# %%
from simulator.tables import compare_tables

outcomes = attnsim.compare(**question)
print(*compare_tables(outcomes, width=110))

# %% [markdown]
# Most exact schedules are close to each other here: on eight GPUs with NVLink nearly all communication hides behind
# computation. Whiskers are the interval in which we expect a measured time nine times of ten; where they overlap,
# choose by memory and simplicity.

# %%
from traces.figures.ranking import plot_ranking

ran = [outcome for outcome in outcomes if isinstance(outcome, attnsim.SimulationResult)]
exact = [outcome for outcome in ran if outcome.exact]
plot_ranking([outcome.to_json() for outcome in exact])

# %% [markdown]
# ## Where the time goes
#
# A bar is the critical rank's time. Communication is what computation does not hide.

# %%
from traces.figures.breakdown import plot_breakdown

plot_breakdown([{"schedule": outcome.schedule, "parts": outcome.breakdown} for outcome in exact[:5]])

# %% [markdown]
# A timeline shows when. Ring attention hands keys round while it computes (two of eight ranks).

# %%
from traces.figures.timeline import plot_timeline

ring = attnsim.simulate(schedule="ring", **question)
plot_timeline(ring.timeline, ranks=[0, 1])

# %% [markdown]
# Why a rank needs as much memory as it does: what is held, operation by operation, on the rank with the peak.

# %%
from traces.figures.memory import plot_memory

plot_memory(ring.memory_curve)

# %% [markdown]
# ## Plan a whole layer
#
# `plan` also searches degrees and kernels, here for a whole transformer layer. It says what limits each candidate,
# what would help the best one most, and what became of all the others. `layers="model"` does so for a whole training
# step, with sharding and checkpointing; that takes a minute (`attnsim plan` shows its progress).

# %%
from simulator.planning.tables import plan_tables

found = attnsim.plan(**question, layers="layer", workers=1)
print(*plan_tables(found))

# %% [markdown]
# ## How far to trust it
#
# A prediction knows what it rests on: terms fitted to measurements, published ones, and guesses, each with its error.
# The table is how wrong predictions have been, of runs that nothing was fitted to. Before buying, read both: where the
# link between the GPUs is a guess and decides, measure it (`attnsim calibrate`).

# %%
from simulator.evidence import describe_trust, load_evidence, unmeasured

print(describe_trust(ring), unmeasured())
for each in load_evidence():
    print(f"{each.what}, by {each.by}: {each.runs} runs, median {each.median:.1%}, 95th percentile {each.p95:.0%}")

# %% [markdown]
# ## What to do next
#
# - The same on the command line: `attnsim compare --model llama-3.1-8b --seq-len 128k --gpus 8 --topology dgx-h100`,
#   with `--html FILE` for a report and `--trace FOLDER` for Perfetto.
# - Your own cluster: `topology="my_topo.xml"`, the file that NCCL writes with `NCCL_TOPO_DUMP_FILE`.
# - The notebooks `what_if` (another network, larger nodes) and `own_schedule` (write, prove and run one).
