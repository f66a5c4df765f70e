"""What was asked for, in a line: what of the model, how it is split, where, and what is changed about that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from cost_models.units import format_count
from simulator.asked import FaultFields, StepFields
from simulator.result import Json

SUBJECTS = {
    ("attention", "both"): "attention",
    ("attention", "forward"): "attention, forward,",
    ("attention", "backward"): "attention, backward,",
    ("layer", "both"): "one layer",
    ("layer", "forward"): "one layer, forward,",
    ("layer", "backward"): "one layer, backward,",
    ("model", "step"): "training step",
    ("model", "prefill"): "prefill",
    ("model", "decode"): "decoding",
}
"""What of a model is simulated, by layers and pass; both passes where none is named."""
LONG_NAME = 60
"""Characters up to which a mask is named in full."""
NAMES = {"tp": "tensor", "dp": "data", "pp": "pipeline", "ep": "expert", "zero": "ZeRO", "kv_dtype": "KV cache",
         "kv_block": "KV pages of", "mla": "MLA", "cuda_graphs": "CUDA graphs",
         "fp8": "FP8 products"}  # fmt: skip
UNSAID = ("placement", "seed", "draws", "new_tokens")
"""Options that a line has no room for, or that it says elsewhere."""


def describe_inputs(inputs: Json) -> str:
    """What was asked for, in a line.

    Parameters
    ----------
    inputs : of a result: options by name, with their defaults.

    >>> one = {"model": "yi-34b", "seq_len": 131072, "gpus": 8, "nodes": 1, "topology": "dgx-h100",
    ...        "hardware": "h100-sxm", "batch": 1, "dtype": "bf16", "mask": "causal"}
    >>> describe_inputs(one)
    'attention of yi-34b, 128k tokens, causal, bf16, batch 1 on 8 h100-sxm of dgx-h100'
    >>> describe_inputs(one | {"layers": "model", "pass": "step", "tp": 2, "zero": 3, "what_if": "net=0.5"})
    'training step of yi-34b, 128k tokens, causal, bf16, batch 1, tensor 2, ZeRO 3 on 8 h100-sxm of dgx-h100, net 0.5x'
    """
    what = f"{_subject(inputs)} of {_shape(inputs)}, {format_count(inputs['seq_len'])} tokens, {_brief(inputs['mask'])}"
    nodes = f" ({inputs['nodes']} nodes)" if inputs["nodes"] > 1 else ""
    where = f"{inputs['gpus']} {inputs['hardware']} of {inputs['topology']}{nodes}"
    split = ", ".join([what, inputs["dtype"], f"batch {inputs['batch']}", *_settings(inputs, StepFields)])
    return ", ".join([f"{split} on {where}", *_changes(inputs)])


def _subject(inputs: Json) -> str:
    layers = inputs.get("layers", "attention")
    default = "step" if layers == "model" else "both"
    subject = SUBJECTS.get((layers, inputs.get("pass") or default), f"{layers}, {inputs.get('pass')},")
    tokens = inputs.get("new_tokens", 1)
    return f"{subject} {tokens} tokens" if subject == "decoding" and tokens != 1 else subject


def _shape(inputs: Json) -> str:
    if "model" in inputs:
        return f"{inputs['model']} pruned to {inputs['prune']}" if inputs.get("prune") else str(inputs["model"])
    return f"{inputs['heads']} heads, {inputs['kv_heads']} kv heads, head dim {inputs['head_dim']}"


def _settings(inputs: Json, of: type) -> Iterator[str]:
    """Options of a kind that are not their defaults."""
    for each in fields(of):
        value = inputs.get(each.name, each.default)
        if value != each.default and each.name not in UNSAID:
            name = NAMES.get(each.name, each.name.replace("_", " "))
            yield name if value is True else f"{name} {_text(value)}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _changes(inputs: Json) -> Iterator[str]:
    """How the cluster differs from what its name says."""
    if inputs.get("what_if"):
        yield ", ".join(f"{part.replace('=', ' ')}x" for part in inputs["what_if"].split(","))
    yield from _settings(inputs, FaultFields)


def _brief(mask: str) -> str:
    """A mask's name, without a long list of documents."""
    from cost_models.masks import parse_mask

    return mask if len(mask) < LONG_NAME else parse_mask(mask).brief
