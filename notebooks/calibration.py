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
# # Reading a calibration and a cross-check
#
# How far can a prediction be trusted? Two kinds of files answer. A *calibration* measures single kernels on one GPU and
# fits the parameters of their cost model. A *cross-check* runs whole schedules and compares them with predictions made
# before. Both are committed; this notebook reads them, no GPU needed.

# %%
import json
from collections import Counter
from pathlib import Path

import numpy as np

import attnsim
from cost_models.calibration.observations import attention_samples
from cost_models.kernels import estimate_attention_s
from traces.figures.agreement import plot_agreement
from traces.records import latest, read_folder

ROOT = Path(attnsim.__file__).parent

# %% [markdown]
# ## The records
#
# One line per measured case, with every sample and the machine it ran on. The spread of the samples bounds what any
# model can achieve.

# %%
records = latest(read_folder(ROOT / "validators" / "records" / "h100-sxm"))
kinds = {}
for record in records:
    kinds.setdefault(record.kind, []).append(record.spread)
for kind, spreads in sorted(kinds.items()):
    print(f"{kind:14}{len(spreads):5} cases, samples spread by {np.median(spreads):.1%} (median)")

# %% [markdown]
# ## The fit
#
# `attnsim calibrate --hardware h100-sxm` fits each kernel, direction and head dim, and writes a
# [report](../validation/calibration-h100-sxm.md) with errors on lengths and shapes that were left out. The profile
# carries the result, a source for every term:

# %%
profile = attnsim.load_hardware("h100-sxm")
print(dict(Counter(source.basis for source in profile.sources.values())))
for term in ("kernels.cudnn.forward.efficiency.128", "hbm_bytes_per_s", "kernels.flash3.forward.efficiency.128"):
    if term in profile.sources:
        source = profile.sources[term]
        error = f", off by {source.relative_error:.1%}" if source.relative_error else ""
        print(f"{term}: {source.basis}{error}\n    {source.reference[:100]}")

# %% [markdown]
# Predicted with that profile against the records it was fitted to, cuDNN and FlashAttention 2, head dim 128 (dots on
# the line agree):

# %%
points, sizes = [], {}
for (kernel, direction, head_dim), samples in attention_samples(records).items():
    if kernel not in ("cudnn", "flash2") or head_dim != 128:
        continue
    for sample in samples:
        predicted_s = estimate_attention_s(profile, kernel, sample.call, sample.shape, direction)
        points.append(
            {"schedule": f"{kernel} {direction}", "label": f"{sample.rows} queries", "measured_s": sample.seconds,
             "predicted_s": predicted_s}
        )  # fmt: skip
        sizes.setdefault((kernel, direction), []).append((sample.rows, predicted_s / sample.seconds - 1))
plot_agreement(points)

# %% [markdown]
# An error has a cause, and it shows by size. Below 2k queries a call takes tens of microseconds, and launches, clocks
# and caches matter that the model rounds off:

# %%
edges = [(0, 2**11), (2**11, 2**14), (2**14, 2**20)]
print(f"{'median, 95th percentile':24}" + "".join(f"{f'{low // 1024}k to {high // 1024}k':>20}" for low, high in edges))
for (kernel, direction), found in sizes.items():
    cells = ""
    for low, high in edges:
        errors = [abs(error) for rows, error in found if low < rows <= high]
        cells += f"{f'{np.median(errors):.1%}, {np.percentile(errors, 95):.1%}':>20}"
    print(f"{kernel + ' ' + direction:24}{cells}")

# %% [markdown]
# ## A cross-check: one GPU
#
# 36 runs of whole attention passes, with shapes that no fit has seen, run on an H100. `attnsim validate` compares them
# operation by operation; its result is committed too. On one GPU a schedule has no communication, but all its kernels.

# %%
agreement = json.loads((ROOT / "docs" / "validation" / "h100-single" / "runs" / "agreement.json").read_text())


def describe(name, summary):
    """Figures of some runs in two lines."""
    error = summary["error"]
    print(f"{name}: {summary['runs']} runs, error {error['median']:+.1%} in the median, of its size "
          f"{error['median_size']:.1%}, at the 95th percentile {error['p95_size']:.1%}\n"
          f"    spread of the measurements {summary['measured_spread']['median_size']:.1%}, "
          f"inside the interval that claims 90 %: {summary['in_90_percent_interval']:.0%}")  # fmt: skip


describe("all", agreement["summary"])
for limit, summary in agreement["by_limit"].items():
    describe(f"limited by the {limit}", summary)

# %% [markdown]
# Together they say little: in ten runs the GPU is predicted to wait for its host, and what a host takes to issue a call
# whose code is in no cache varies a lot. Where the GPU sets the pace the intervals are honest. Where do errors sit?

# %%
runs = agreement["runs"]
limits = {True: "host", False: "device"}
plot_agreement([
    {"schedule": limits[run["host_limited"]], "label": run["configuration"], "measured_s": run["measured_s"],
     "predicted_s": run["predicted_s"]}
    for run in runs
])  # fmt: skip

# %%
of_device = [run for run in runs if not run["host_limited"]]
for run in sorted(of_device, key=lambda run: -abs(run["error"]))[:3]:
    print(f"\n{run['error']:+.0%}  {run['configuration']}")
    for kind in run["kinds"]:
        if kind["measured_s"] > 1e-4:
            print(f"      {kind['kind']:22}{kind['predicted_s'] * 1e3:8.3f} ms predicted, "
                  f"{kind['measured_s'] * 1e3:8.3f} measured")  # fmt: skip

# %% [markdown]
# An error has an address: an operation.
#
# ## A trace of two GPUs
#
# Ring attention of 16k tokens on two H100 over NVLink, forward and backward, traced with PyTorch's profiler. The same
# schedule simulated, with the profile above:

# %%
from traces.differences import compare_timelines, select_step
from traces.differences import describe as describe_difference
from traces.figures.timeline import plot_timeline
from traces.kineto import read_recording

measured = select_step(read_recording(ROOT / "tests" / "traces" / "kineto" / "recorded" / "h100-pair-ring"))
simulated = attnsim.simulate(
    schedule="ring", gpus=2, topology="dgx-h100", kernel="flash2", heads=16, kv_heads=16, head_dim=128, seq_len="16k",
    timeline=True,
).timeline  # fmt: skip
difference = compare_timelines(simulated, measured)
print(describe_difference(difference))
print(f"\n{'part of the critical rank':44}{'simulated':>10}{'measured':>10}  ms")
for part in difference.parts:
    values = [f"{(each or 0) / 1e6:.3f}" for each in (part.simulated_ns, part.measured_ns)]
    print(f"{part.name:44}{values[0]:>10}{values[1]:>10}")
plot_timeline(measured)

# %% [markdown]
# The parts of the critical rank add up to the whole. Attention agrees within a few per cent. What differs is
# communication: the first exchange begins before there is a kernel to hide it, and beside kernels exchanges last longer
# than predicted. `attnsim trace diff` says the same of any trace, and the dashboard shows both on one scale:

# %%
plot_timeline(simulated, span_ns=measured.makespan_ns)

# %% [markdown]
# ## A cross-check with communication
#
# Many runs, and more ranks than those two GPUs: processes on one host that talk through gloo, 4 and 8 of them, with a
# profile fitted to other shapes in the same call.

# %%
gloo = json.loads((ROOT / "docs" / "validation" / "h100-gloo-14" / "agreement.json").read_text())
for ranks, found in gloo["by_ranks"].items():
    describe(f"{ranks} ranks", found)
plot_agreement([
    {"schedule": run["schedule"].partition(":")[0], "label": run["configuration"], "measured_s": run["measured_s"],
     "predicted_s": run["predicted_s"]}
    for run in gloo["runs"]
])  # fmt: skip

# %% [markdown]
# The host is noisy: the same call varies nearly as much as predictions are off. A model cannot be
# better than its measurement, and a single run on such a machine proves nothing.
#
# ## How to read any such file
#
# 1. How much do the measurements spread? That is the floor.
# 2. Were the shapes in the fit? Only errors on what was left out count: the
#    [report](../validation/calibration-h100-sxm.md) has them, the first figure above does not.
# 3. Is the interval honest: are nine runs of ten inside?
# 4. Where do the errors sit: masks, sizes, an operation?
# 5. What was not measured at all? Here: NICs, and more than two GPUs. Published measurements stand in for those, see
#    [replay.md](../replay.md).
