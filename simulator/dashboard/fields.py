"""The form's fields: what each is called, how it is filled in, and where it counts."""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.finetuning import METHODS
from cost_models.hardware import HARDWARE_NAMES
from cost_models.models import PRESET_NAMES
from cost_models.packing import FORMS
from cost_models.topology.presets import PRESETS
from simulator.asked import RequestFields, flags
from simulator.dashboard.state import SERVED, STEP_FIELDS
from simulator.layers.checkpoint import CHECKPOINTS
from simulator.steps.parameters import OFFLOADS, OPTIMIZERS

HELP = {each.name: flag.help for each, flag in flags(RequestFields)}
MASKS = ("causal", "full", "sliding-window:window=4096", "document:lengths=64k+64k,causal=true")
DEGREES = ("1", "2", "4", "8")
LENGTHS = ("32k", "64k", "128k", "256k", "512k", "1M")


@dataclass(frozen=True)
class Field:
    """A field of the form.

    Parameters
    ----------
    label, hint : its name, and what is in it while it is empty.
    offers : values to choose from, or that a text suggests.
    kind : ``text``; ``choice``, of the offers alone; or ``flag``, on or off.
    wide : whether it has a line of its own.
    """

    label: str
    hint: str = ""
    offers: tuple[str, ...] = ()
    kind: str = "text"
    wide: bool = False


ALL = {
    "model": Field("Model", "a name or a config.json", PRESET_NAMES, wide=True),
    "seq_len": Field("Sequence length", "tokens, as 128k", LENGTHS),
    "batch": Field("Sequences", "batch", DEGREES),
    "mask": Field("Mask", "NAME:key=value", MASKS, wide=True),
    "topology": Field("Topology", "a preset or a file", tuple(PRESETS), wide=True),
    "gpus": Field("GPUs", "1 to 128", ("2", "4", "8", "16", "32", "64")),
    "nodes": Field("Nodes", "fewest", DEGREES),
    "hardware": Field("GPU", "its own", HARDWARE_NAMES),
    "kernel": Field("Attention kernel", "the fastest", ("cudnn", "flash2", "flash3")),
    "tp": Field("Tensor", "ranks", DEGREES),
    "dp": Field("Data", "ranks", DEGREES),
    "pp": Field("Pipeline", "stages", DEGREES),
    "ep": Field("Experts", "ranks", DEGREES),
    "microbatches": Field("Microbatches", "of a data rank", DEGREES),
    "zero": Field("ZeRO", offers=("0", "1", "2", "3"), kind="choice"),
    "checkpoint": Field("Checkpoint", offers=CHECKPOINTS, kind="choice"),
    "offload": Field("Offload", offers=OFFLOADS, kind="choice"),
    "optimizer": Field("Optimizer", offers=tuple(OPTIMIZERS), kind="choice"),
    "loss_chunks": Field("Loss chunks", "whole logits", ("8", "16", "32")),
    "method": Field("Method", "full, or NAME:key=value", tuple(METHODS), wide=True),
    "weight_bits": Field("Bits of a weight", "the type's", ("8", "4")),
    "kv_dtype": Field("KV cache in", "the type's", tuple(FORMS), "choice"),
    "mla": Field("Latent attention", "the pass's", ("absorbed", "expanded"), "choice"),
    "prefill_chunk": Field("Prefill chunk", "the whole prompt", ("2k", "8k", "32k")),
    "cached_prefix": Field("Cached prefix", "no tokens", ("4k", "32k", "64k")),
    "kv_block": Field("KV page", "contiguous", ("16", "64", "256")),
    "new_tokens": Field("New tokens", "tokens", ("1", "4", "16")),
    "stage_link": Field("Link between stages", "as 40ms,100Mbit/s", ("40ms,100Mbit/s",), wide=True),
    "cuda_graphs": Field("A token's kernels as one CUDA graph", kind="flag", wide=True),
    "interference": Field("Kernels and transfers slow each other (slower to compute)", kind="flag", wide=True),
    "measured": Field("Timeline, validation or calibration", "a file or folder", wide=True),
}
"""By the name of the option, in the order of the form."""
GROUPS = {
    "What": ("model", "seq_len", "batch", "mask"),
    "Where": ("topology", "gpus", "nodes", "hardware", "kernel"),
    "How it is split": tuple(name for name in ALL if name in STEP_FIELDS and name not in SERVED),
    "How it is served": tuple(name for name in ALL if name in SERVED),
}
GROUP_IDS = {"How it is split": "split", "How it is served": "served"}
"""Groups that are hidden where none of their fields counts."""
