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
# # What if: another network, another node, fewer SMs
#
# One million tokens, the attention of one layer of Llama 3.1 8B, forward and backward. What would a faster or slower
# network, other NICs, or a rack of 72 GPUs on NVLink change, and for which schedule? `what_if` scales the rate of one
# part of the cluster and leaves latencies and efficiencies as they are. A sweep uses the max-plus engine;
# `engine="des"` also follows how transfers share a link, and takes longer.

# %%
from rich import print

import attnsim
from simulator.planning.tables import sweep_table

question = {"model": "llama-3.1-8b", "seq_len": "1M", "workers": 1}


def times_ms(rows, over):
    """Table of times: a row per schedule, a column per value."""
    found = {}
    for row in rows:
        found.setdefault(row["schedule"], {})[row[over]] = row["time_s"] * 1e3
    return found


# %% [markdown]
# ## Slower and faster networks: 4 DGX H100
#
# Each GPU has a 400 Gbit/s NIC. `net` scales NICs and what lies between them.

# %%
schedules = ["ring", "burst", "ulysses", "usp:ulysses=8,ring=4", "allgather"]
factors = [0.1, 0.25, 1, 2]
rows = attnsim.sweep(
    {"schedule": schedules, "what_if": [f"net={factor}" for factor in factors]},
    gpus=32, topology="dgx-h100", **question,
)  # fmt: skip
print(sweep_table(rows, ["schedule", "what_if"]))

# %%
from traces.figures.style import new_figure

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"]
figure = new_figure(
    "One layer's attention by network bandwidth", "1M tokens, 32 H100 on 4 nodes, forward and backward.", 340
)
for (schedule, times), colour in zip(times_ms(rows, "what_if").items(), COLOURS, strict=True):
    figure.add_scatter(name=schedule, x=factors, y=list(times.values()), mode="lines+markers", line={"color": colour})
figure.update_xaxes(title_text="network bandwidth (times that of the DGX H100)", type="log", tickvals=factors)
figure.update_yaxes(title_text="time (ms)")
figure

# %% [markdown]
# At a quarter of the bandwidth all but the flat ring take up to six per cent longer: attention grows with the square of
# the sequence, communication with its first power. At a tenth the flat ring takes nearly twice as long: each hop is
# as slow as its slowest link, the one between nodes. Burst's double ring and USP send most of their bytes inside a
# node.
#
# ## Twice the NICs
#
# Twice the network bandwidth changes nothing, but not because nothing is exposed: each NIC hangs on a PCIe slot that
# is no faster than the NIC itself. A faster NIC needs a faster slot.

# %%
upgrades = ["net=1", "net=2", "net=2,pcie=2"]
schedules = ["ulysses", "usp:ulysses=8,ring=4"]
rows = attnsim.sweep({"schedule": schedules, "what_if": upgrades}, gpus=32, topology="dgx-h100", **question)
print(sweep_table(rows, ["schedule", "what_if"]))

# %% [markdown]
# With both, half of Ulysses' exposed communication is gone. That is one per cent of the time: no reason to buy NICs
# for this work.
#
# ## NVL72
#
# 64 GPUs of a GB200 NVL72 rack, once on one NVLink switch, and once as eight GPUs in each of eight racks with the
# network between them: the same GPUs, so that only the wiring differs.

# %%
schedules = ["ring", "burst:ring=flat", "burst:ring=double", "usp:ulysses=8,ring=8", "allgather"]
rows = attnsim.sweep({"schedule": schedules, "nodes": [1, 8]}, gpus=64, topology="gb200-nvl72", **question)
print(sweep_table(rows, ["schedule", "nodes"]))

# %%
figure = new_figure("One NVLink domain or eight", "1M tokens, 64 B200, forward and backward.", 340)
times = times_ms(rows, "nodes")
for nodes, colour in ((1, COLOURS[0]), (8, COLOURS[1])):
    name = "one rack" if nodes == 1 else "eight racks, 8 GPUs each"
    figure.add_bar(name=name, x=list(times), y=[times[each][nodes] for each in times], marker={"color": colour})
figure.update_yaxes(title_text="time (ms)")
figure.update_layout(barmode="group")
figure

# %% [markdown]
# Between racks every hop of a flat ring goes at the network's pace, and Burst sends most in backward; schedules that
# know the racks (its double ring, USP with the all-to-all inside) lose next to nothing.
#
# ## Half the SMs for communication
#
# Communication kernels run on SMs too. What if half of them were set aside, so that kernels never wait for it? A
# profile with fewer SMs prices kernels anew (waves are counted, not divided); links carry what they carried before.

# %%
profile = attnsim.load_hardware("h100-sxm")
lines = [f"{'kernels run on':18}{'schedule':10}{'time':>10}{'exposed':>12}"]
for taken in (0, 16, 66):
    hardware = profile.with_fewer_sms(taken) if taken else profile
    for schedule in ("ring", "ulysses"):
        asked = {"schedule": schedule, "model": "llama-3.1-8b", "seq_len": "128k", "gpus": 8, "topology": "dgx-h100"}
        result = attnsim.simulate(**asked, hardware=hardware, interference=not taken, timeline=False)
        sms = f"{profile.sm_count - taken} of {profile.sm_count} SMs"
        exposed_ms = result.exposed_communication_s * 1e3
        lines.append(f"{sms:18}{schedule:10}{result.time_s * 1e3:8.1f}ms{exposed_ms:10.2f}ms")
print("\n".join(lines))

# %% [markdown]
# The first two rows share SMs as they are needed (interference is simulated); the others set some aside for good.
# Attention is bound by the tensor cores, so half the SMs nearly double its time, and there was little exposed
# communication to win. Sixteen SMs, as many as NCCL's channels of a collective take, cost what they are: an eighth.
#
# ## Which part would help
#
# `plan` answers that in general: by how many per cent the best candidate's time falls for each per cent of a part's
# speed.

# %%
from simulator.planning.tables import PART_NAMES

lines = []
for seq_len in ("64k", "256k", "1M"):
    asked = question | {"seq_len": seq_len, "gpus": 32, "topology": "dgx-h100", "kernel": "cudnn"}
    found = attnsim.plan(**asked, axes={"schedule": ["ring", "ulysses", "usp:ulysses=8,ring=4"]})
    helps = ", ".join(f"{PART_NAMES[part]} {elasticity:.2f}" for part, elasticity in found.sensitivity.items())
    lines.append(f"{seq_len:5}{found.candidates[0]['options']['schedule'].split(':')[0]:9}{helps}")
print("\n".join(lines))
