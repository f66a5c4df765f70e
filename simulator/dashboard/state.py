"""What the form holds, as a request and as a link.

A state is text as the user typed it, so that a wrong one can be shown and sent as a link too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from simulator.request import SimulationRequest
from simulator.steps.serving import ONLY

PARTS = {"flop": "tensor cores", "hbm": "GPU memory", "nvlink": "NVLink", "pcie": "PCIe", "net": "network"}
"""Parts of the cluster with a slider, and their names."""
SUBJECTS = {
    "": "attention, both passes",
    "attention/forward": "attention, forward",
    "attention/backward": "attention, backward",
    "layer/both": "layer, both passes",
    "layer/forward": "layer, forward",
    "model/step": "model, training step",
    "model/prefill": "model, prefill",
    "model/decode": "model, decoding a token",
}
"""What is simulated: ``layers/pass``, empty where both are the request's defaults."""
SPLIT = ("tp", "dp", "pp", "ep", "microbatches")
TRAINED = ("zero", "checkpoint", "offload", "optimizer", "loss_chunks", "method")
SERVED = ("weight_bits", "kv_dtype", "mla", "prefill_chunk", "cached_prefix", "kv_block", "new_tokens", "stage_link",
          "cuda_graphs")  # fmt: skip
"""Options of how a model is spread over ranks, of training, and of inference."""
STEP_FIELDS = (*SPLIT, *TRAINED, *SERVED)
FIELDS_OF = {
    "attention": (),
    "layer": ("tp", "ep", "checkpoint"),
    "model/step": (*SPLIT, *TRAINED),
    "model/prefill": (*SPLIT, "method", *(name for name in SERVED if "prefill" in ONLY[name])),
    "model/decode": (*SPLIT, "method", *(name for name in SERVED if "decode" in ONLY[name])),
}
"""Of `STEP_FIELDS` those that count, by subject."""
WHOLE_NUMBERS = ("tp", "dp", "pp", "ep", "microbatches", "zero", "loss_chunks", "kv_block", "new_tokens")
FLAGS = ("cuda_graphs", "interference")
MOST_FIELDS = 100
"""Of a link."""
MOST_CHARACTERS = 400
"""Of a field: documents of a mask can be many."""


@dataclass(frozen=True)
class State:
    """One set-up: options as text, factors of parts, the schedule looked at (empty: the best), a run measured."""

    subject: str = ""
    model: str = "llama-3.1-8b"
    topology: str = "dgx-h100"
    hardware: str = ""
    gpus: str = "8"
    nodes: str = ""
    kernel: str = ""
    seq_len: str = "128k"
    batch: str = "1"
    mask: str = "causal"
    tp: str = "1"
    dp: str = "1"
    pp: str = "1"
    ep: str = "1"
    microbatches: str = "1"
    zero: str = "0"
    checkpoint: str = "none"
    offload: str = "none"
    optimizer: str = "adamw"
    loss_chunks: str = ""
    method: str = "full"
    weight_bits: str = ""
    kv_dtype: str = ""
    mla: str = ""
    prefill_chunk: str = ""
    cached_prefix: str = ""
    kv_block: str = ""
    new_tokens: str = "1"
    stage_link: str = ""
    cuda_graphs: str = "off"
    interference: str = "off"
    flop: str = "1"
    hbm: str = "1"
    nvlink: str = "1"
    pcie: str = "1"
    net: str = "1"
    schedule: str = ""
    measured: str = ""

    @property
    def layers(self) -> str:
        """Attention, layer or model."""
        return self.subject.partition("/")[0] or "attention"

    @property
    def step_fields(self) -> tuple[str, ...]:
        """Fields of a layer or a model that count for what is simulated."""
        return FIELDS_OF.get(self.subject, FIELDS_OF.get(self.layers, ()))

    @property
    def what_if(self) -> str:
        """The factors that are not 1, as the option ``--what-if`` takes them."""
        return ",".join(f"{part}={getattr(self, part)}" for part in PARTS if getattr(self, part) != "1")

    @property
    def options(self) -> dict[str, Any]:
        """Options of a request that are not its defaults, without the schedule.

        >>> State(net="0.5").options["what_if"]
        'net=0.5'
        """
        layers, _, pass_ = self.subject.partition("/")
        given: dict[str, Any] = {"layers": layers} if layers not in ("", "attention") else {}
        given |= {"pass_": pass_} if pass_ not in ("", "step") else {}
        given |= {"model": self.model, "topology": self.topology}
        given |= {"hardware": self.hardware} if self.hardware else {}
        given |= {"seq_len": self.seq_len, "gpus": _number(self.gpus)}
        given |= {"nodes": _number(self.nodes)} if self.nodes else {}
        given |= {"kernel": self.kernel} if self.kernel else {}
        given |= {"batch": _number(self.batch)} if self.batch != "1" else {}
        given |= {"mask": self.mask} if self.mask != "causal" else {}
        given |= self.step_options
        given["engine"] = "maxplus"
        given |= {"interference": False} if self.interference != "on" else {}
        return given | ({"what_if": self.what_if} if self.what_if else {})

    @property
    def step_options(self) -> dict[str, Any]:
        """Options of a layer or a model that are not the defaults.

        >>> State(subject="model/step", tp="2", zero="3").step_options
        {'tp': 2, 'zero': 3}
        """
        start = State()
        return {
            name: _value(name, getattr(self, name))
            for name in self.step_fields
            if getattr(self, name) != getattr(start, name)
        }

    def request(self, **more: Any) -> SimulationRequest:
        """What is simulated."""
        return SimulationRequest(**self.options, **more)

    @property
    def query(self) -> str:
        """The state as a link: what differs from the start.

        >>> State(gpus="16").query
        '?gpus=16'
        """
        start = asdict(State())
        changed = {name: value for name, value in asdict(self).items() if value != start[name]}
        return f"?{urlencode(changed)}" if changed else ""

    @staticmethod
    def from_query(query: str) -> State:
        """Read a link; names that no field has are passed over."""
        pairs = parse_qsl(query.lstrip("?"), max_num_fields=MOST_FIELDS)
        return State.of(dict(pairs))

    @staticmethod
    def of(values: Mapping[str, object]) -> State:
        """From values by field; None is empty."""
        known = {each.name for each in fields(State)}
        return State(**{
            name: ("" if value is None else str(value).strip())[:MOST_CHARACTERS]
            for name, value in values.items() if name in known
        })  # fmt: skip


def _value(name: str, text: str) -> Any:
    """An option of a step, as its type is; text where it is not."""
    if name in FLAGS:
        return text == "on"
    if name == "weight_bits":
        return _decimal(text)
    return _number(text) if name in WHOLE_NUMBERS else text


def _decimal(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _number(text: str) -> int | str:
    """A whole number, or text that is none and will be refused."""
    return int(text) if text.isdecimal() else text


def factor_of(exponent: float) -> str:
    """A slider's place as a factor.

    >>> factor_of(-1), factor_of(0), factor_of(0.5)
    ('0.5', '1', '1.414')
    """
    return f"{2.0**exponent:.4g}"


def exponent_of(factor: str) -> float:
    """Where a slider stands for a factor; the middle for text that is none."""
    try:
        number = float(factor)
    except ValueError:
        return 0.0
    return round(math.log2(number) * 2) / 2 if 1e-3 <= number <= 1e3 else 0.0
