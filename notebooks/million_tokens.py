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
# # Which schedule for a million tokens on my cluster
#
# 64 H100 in eight nodes, Llama 3.1 8B, 1M tokens in one sequence. Which schedule, does it fit, and is the answer the
# same for another length? First the attention of one layer, then a whole training step. Everything is predicted.

# %%
from rich import print

import attnsim

question = {"model": "llama-3.1-8b", "seq_len": "1M", "gpus": 64, "topology": "dgx-h100"}

# %% [markdown]
# Your own cluster: `topology="my_topo.xml"`, the file that NCCL writes with `NCCL_TOPO_DUMP_FILE`, or the output of
# `nvidia-smi topo -m`. `attnsim topology FILE` says what was understood of it.
#
# ## One layer's attention
#
# Max-plus engine: all operations of all ranks, each with its fair share of the links, without simulating how transfers
# meet (`engine="auto"` does, and takes longer).

# %%
from simulator.tables import compare_tables

outcomes = attnsim.compare(**question, engine="maxplus", interference=False)
print(*compare_tables(outcomes, width=110))

# %% [markdown]
# The first three lie within about one per cent of each other, far less than what we can tell apart (whiskers below).
# What they share: an all-to-all inside the node, and a ring, with eight times larger pieces, between nodes. Ulysses
# alone cannot run: there are 32 heads for 64 GPUs. Memory is of this layer's attention only; gathering all keys takes
# most.

# %%
from traces.figures.ranking import plot_ranking

ran = [each for each in outcomes if isinstance(each, attnsim.SimulationResult) and each.exact]
plot_ranking([each.to_json() for each in ran])

# %% [markdown]
# ## Other lengths
#
# Work grows with the square of the length, bytes with the length: the longer, the less the choice matters.

# %%
from traces.figures.style import new_figure

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
schedules = ["usp:ulysses=8,ring=8", "ring", "burst", "allgather"]
lengths = [2**16, 2**17, 2**18, 2**19, 2**20]
rows = attnsim.sweep(
    {"schedule": schedules, "seq_len": lengths}, workers=1, model="llama-3.1-8b", gpus=64, topology="dgx-h100",
    interference=False,
)  # fmt: skip
times = {(row["schedule"], row["seq_len"]): row["time_s"] for row in rows}
figure = new_figure(
    "Time over that of USP, by length", "One layer's attention on 64 H100, forward and backward. 1 is as fast.", 340
)
for schedule, colour in zip(schedules, COLOURS, strict=True):
    ratios = [times[schedule, length] / times[schedules[0], length] for length in lengths]
    figure.add_scatter(name=schedule, x=lengths, y=ratios, mode="lines+markers", line={"color": colour})
figure.update_xaxes(
    title_text="tokens", type="log", tickvals=lengths, ticktext=[f"{length // 1024}k" for length in lengths]
)
figure.update_yaxes(title_text="time / time of USP", rangemode="tozero")
figure

# %% [markdown]
# ## The whole training step
#
# A step has weights, optimizer states and activations, and other ways to split the GPUs: tensor parallel ranks in a
# node, sharding of the states (ZeRO), recomputing instead of keeping (checkpointing). `plan` searches these together;
# here among four schedules. It drops what cannot fit before it simulates anything, looks at the others with one and
# two layers, and simulates the best whole.

# %%
from simulator.planning.tables import plan_tables

found = attnsim.plan(
    **question, layers="model", loss_chunks=16, top=3, workers=1,
    axes={"schedule": ["usp", "ring", "burst", "allgather"], "tp": [1, 8], "checkpoint": ["none", "full", "attention"]},
)  # fmt: skip
print(*plan_tables(found))

# %% [markdown]
# Read the tables from the bottom. *Dropped* says what cannot be: nearly every step without checkpointing needs more
# memory than a GPU has. *What would help* says how many per cent of time one per cent more of a part would bring: here
# the tensor cores, and next to nothing of the network, so that faster NICs are no way to a faster step. The *Pareto
# front* is for those who need the memory for something else.

# %%
from traces.figures.pareto import plot_pareto

rows = {each["candidate"]: each | {"schedule": each["candidate"].partition(" ")[0]} for each in found.pareto}
front = len(rows)
for each in found.candidates:
    rows.setdefault(each["candidate"], each | {"schedule": each["candidate"].partition(" ")[0]})
plot_pareto(list(rows.values()), range(front), attnsim.load_hardware("h100-sxm").usable_memory_bytes)

# %% [markdown]
# How sure is that? The best one's interval, and what is known least of what it rests on:

# %%
from simulator.evidence import unmeasured

best = found.candidates[0]
print(f"{best['candidate']}: {best['time_s']:.1f} s, 90 % interval {best['low_s']:.1f} to {best['high_s']:.1f} s.")
print(unmeasured())

# %% [markdown]
# On the command line, with every schedule and all grids, and the report as one HTML file:
#
#     attnsim plan --model llama-3.1-8b --seq-len 1M --gpus 64 --topology dgx-h100 --loss-chunks 16 --html plan.html
