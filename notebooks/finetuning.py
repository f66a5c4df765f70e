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
# # Fine-tuning at long context: LoRA or everything, and what fits
#
# One node of eight H100, Llama 3.1 8B. Which sequence fits, and what does a step cost, when all weights are trained,
# half of the matrices, or low-rank adapters only? All numbers are predictions; memory is counted buffer by buffer, as
# PyTorch's allocator would.

# %%
import attnsim

question = {
    "model": "llama-3.1-8b", "gpus": 8, "topology": "dgx-h100", "layers": "model", "schedule": "ulysses",
    "checkpoint": "full", "loss_chunks": 16,
}  # fmt: skip
METHODS = {"all weights": "full", "half of the matrices": "half", "LoRA, rank 16": "lora:rank=16", "QLoRA": "qlora"}

# %% [markdown]
# ## The longest sequence
#
# `seq_len="max"` looks for the longest whose step fits. `zero` is what is sharded over the ranks: 0 nothing, 3 weights,
# gradients and optimizer states.


# %%
def longest(method, zero):
    """Tokens in thousands, None where nothing fits."""
    try:
        return attnsim.simulate(**question, method=method, zero=zero, seq_len="max").inputs["seq_len"] // 1024
    except attnsim.InputError:
        return None


table = {name: [longest(method, zero) for zero in (0, 3)] for name, method in METHODS.items()}
print(f"{'thousand tokens':24}{'ZeRO 0':>8}{'ZeRO 3':>8}")
for name, found in table.items():
    print(f"{name:24}" + "".join(f"{'-' if each is None else each:>8}" for each in found))

# %%
from traces.figures.style import new_figure

figure = new_figure("Longest sequence that fits", "Training step of Llama 3.1 8B on 8 H100, one sequence.", 340)
by_zero = zip((0, 3), ("#0072B2", "#D55E00"), zip(*table.values(), strict=True), strict=True)
for zero, colour, found in by_zero:
    figure.add_bar(name=f"ZeRO {zero}", x=list(table), y=[each or 0 for each in found], marker={"color": colour})
figure.update_yaxes(title_text="thousand tokens")
figure.update_layout(barmode="group")
figure

# %% [markdown]
# Without sharding, training all weights needs 16 bytes for each of them, 128 GB, and nothing fits. Adapters do away
# with nearly all gradients and optimizer states, and nearly a million fit without any sharding. With everything sharded
# over eight GPUs the gap shrinks from all or nothing to a fifth: at this length activations rule, and those are the
# same for every method. QLoRA, which keeps four bits of a weight, gains something only where weights are not sharded.
#
# ## What a step takes
#
# At 256k tokens, sharded (zero 3), so that all methods fit:

# %%
steps = {
    name: attnsim.simulate(**question, method=method, zero=3, seq_len="256k", timeline=False)
    for name, method in METHODS.items()
}
print(f"{'256k tokens':24}{'step':>8}{'forward':>9}{'backward':>10}{'other':>8}{'memory':>10}")
for name, step in steps.items():
    times = f"{step.time_s:7.1f}s{step.forward_s:8.1f}s{step.backward_s:9.1f}s{step.other_s:7.2f}s"
    print(f"{name:24}{times}{step.peak_memory_bytes / 2**30:6.1f} GiB")

# %%
from traces.figures.breakdown import plot_breakdown

plot_breakdown([{"schedule": name, "parts": step.breakdown} for name, step in steps.items()])

# %% [markdown]
# LoRA saves the gradients of the weights, half of the backward of dense products. Attention, which has no weights,
# costs the same, and at 256k tokens it is most of the step. The longer the context, the less time LoRA saves:

# %%
lengths = ["16k", "64k", "256k", "1M"]
schedules = {}
for method in ("full", "lora:rank=16"):
    rows = attnsim.sweep({"seq_len": lengths}, workers=1, **question, method=method, zero=3)
    schedules[method] = [row["time_s"] for row in rows]
for length, full, lora in zip(lengths, *schedules.values(), strict=True):
    print(f"{length:>5} tokens: all weights {full:7.2f} s, LoRA {lora:7.2f} s, {1 - lora / full:.0%} saved")

# %% [markdown]
# ## How sure is that?

# %%
from simulator.evidence import describe_trust, load_evidence, unmeasured

for sentence in describe_trust(steps["all weights"]).split(". "):
    print(sentence)
measured = next(each for each in load_evidence() if "training steps" in each.what)
print(f"{measured.what}: median error {measured.median:.1%}, 95th percentile {measured.p95:.0%}.")
print(unmeasured())

# %% [markdown]
# ## What to take from this
#
# - On few GPUs without sharding, adapters decide whether it fits at all; sharded over a node, they hardly do.
# - At 16k tokens LoRA saves a fifth of the time, at a million next to nothing.
# - To go beyond: more GPUs in the context parallel group, not a smaller method. `attnsim plan` searches grids
#   (`--method lora:rank=16`); [finetuning.md](../finetuning.md) lists all methods and their closed forms.
