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
# 50 runs of whole attention passes, with shapes that no fit has seen, run on an H100. `attnsim validate` compares them
# operation by operation; its result is committed too. On one GPU a schedule has no communication, but all its kernels.

# %%
agreement = json.loads((ROOT / "docs" / "validation" / "h100-single" / "agreement.json").read_text())
summary = agreement["summary"]
print(f"runs {summary['runs']}, refused {agreement['outcomes']['refused']}")
print(f"error of time: median {summary['error']['median']:+.1%}, of its size {summary['error']['median_size']:.1%}, "
      f"95th percentile {summary['error']['p95_size']:.1%}")  # fmt: skip
print(f"spread of the measurements themselves: {summary['measured_spread']['median_size']:.1%}")
print(f"error of peak memory: {summary['peak_memory_error']['median_size']:.2%}")
print(f"runs inside the interval that claims 90 %: {summary['in_90_percent_interval']:.0%}")

# %% [markdown]
# The last line is a failure, and it is why one should read to the end: the intervals are too narrow. Where do the
# errors sit?

# %%
GROUPS = {
    "documents": lambda text: "document" in text,
    "windows": lambda text: "sliding" in text or "window" in text or "global" in text,
    "others": lambda text: True,
}


def group(run):
    """Kind of mask of a run."""
    return next(name for name, belongs in GROUPS.items() if belongs(run["configuration"]))


runs = agreement["runs"]
plot_agreement([
    {"schedule": group(run), "label": run["configuration"], "measured_s": run["measured_s"],
     "predicted_s": run["predicted_s"]}
    for run in runs
])  # fmt: skip

# %%
print(f"{'runs':12}{'number':>7}{'median size':>13}{'within 10 %':>13}")
for name in GROUPS:
    errors = [abs(run["error"]) for run in runs if group(run) == name]
    print(f"{name:12}{len(errors):>7}{np.median(errors):>13.1%}{np.mean(np.array(errors) < 0.1):>13.0%}")
worst = sorted(runs, key=lambda run: -abs(run["error"]))[:3]
for run in worst:
    print(f"\n{run['error']:+.0%}  {run['configuration']}")
    for kind in run["kinds"]:
        if kind["measured_s"] > 1e-4:
            print(f"      {kind['kind']:22}{kind['predicted_s'] * 1e3:8.3f} ms predicted, "
                  f"{kind['measured_s'] * 1e3:8.3f} measured")  # fmt: skip

# %% [markdown]
# An error has an address: an operation. With documents the executor launches a kernel per document, the model prices
# one launch for all: the executor is slower than it need be, and until that is settled, predictions with several
# documents are too quick. Of the rest four in five are within 10 %; those that are not are short: in calls of a
# millisecond, fixed costs decide.
#
# ## A cross-check with communication
#
# Several GPUs of one machine have not been measured for these files. What has: processes on one host that talk through
# gloo, 4 and 8 ranks, with a profile fitted to other shapes.

# %%
gloo = json.loads((ROOT / "docs" / "validation" / "h100-gloo" / "agreement.json").read_text())
for ranks, found in gloo["by_ranks"].items():
    error = found["error"]
    print(f"{ranks} ranks, {found['runs']} runs: median error {error['median']:+.1%}, of its size "
          f"{error['median_size']:.1%}, 95th percentile {error['p95_size']:.1%}; "
          f"half the measured spread {found['measured_spread']['median_size']:.1%}")  # fmt: skip
plot_agreement([
    {"schedule": run["schedule"].partition(":")[0], "label": run["configuration"], "measured_s": run["measured_s"],
     "predicted_s": run["predicted_s"]}
    for run in gloo["runs"]
])  # fmt: skip

# %% [markdown]
# The host is noisy: the same call varies by 11 % either way, about as much as predictions are off. A model cannot be
# better than its measurement, and a single run on such a machine proves nothing.
#
# ## How to read any such file
#
# 1. How much do the measurements spread? That is the floor.
# 2. Were the shapes in the fit? Only errors on what was left out count: the
#    [report](../validation/calibration-h100-sxm.md) has them, the first figure above does not.
# 3. Is the interval honest: are nine runs of ten inside?
# 4. Where do the errors sit: masks, sizes, an operation?
# 5. What was not measured at all? Here: NVLink, NICs, 4 and 8 GPUs. Published measurements stand in for those, see
#    [replay.md](../replay.md).
