"""What the form holds, and everything that reproduces it: a request, a link, a command line, Python.

A state is text as the user typed it, so that a wrong one can be shown and sent as a link too.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from simulator.request import SimulationRequest

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
LAYER_FIELDS = ("tp", "checkpoint")
STEP_FIELDS = (*LAYER_FIELDS, "dp", "pp", "zero", "microbatches", "loss_chunks", "method")
"""Options of layers, and of training steps; prefill and decoding have the first of them and data and pipeline ranks."""
FIELDS_OF = {"attention": (), "layer": LAYER_FIELDS, "model/step": STEP_FIELDS,
             "model/prefill": ("tp", "dp", "pp"), "model/decode": ("tp", "dp", "pp")}  # fmt: skip
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
    seq_len: str = "128k"
    batch: str = "1"
    mask: str = "causal"
    tp: str = "1"
    dp: str = "1"
    pp: str = "1"
    zero: str = "0"
    checkpoint: str = "none"
    microbatches: str = "1"
    loss_chunks: str = ""
    method: str = "full"
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
            name: _number(getattr(self, name))
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
        pairs = parse_qsl(query.lstrip("?"), max_num_fields=50)
        return State.of(dict(pairs))

    @staticmethod
    def of(values: Mapping[str, object]) -> State:
        """From values by field; None is empty."""
        known = {each.name for each in fields(State)}
        return State(**{
            name: ("" if value is None else str(value).strip())[:MOST_CHARACTERS]
            for name, value in values.items() if name in known
        })  # fmt: skip


def command_line(state: State, schedule: str | None) -> str:
    """The command that prints the ranking, or one schedule's numbers.

    >>> command_line(State(model="yi-34b"), None)
    'attnsim compare --model yi-34b --topology dgx-h100 --seq-len 128k --gpus 8 --engine maxplus --no-interference'
    """
    words = ["attnsim", "simulate" if schedule else "compare", *(["--schedule", schedule] if schedule else [])]
    for name, value in state.options.items():
        option = f"--{name.replace('_', '-')}"
        words += ["--no-interference"] if name == "interference" else [option.rstrip("-"), str(value)]
    return shlex.join(words)


def python_code(state: State, schedule: str | None) -> str:
    """Python that computes the same.

    >>> print(python_code(State(), "ring"))
    import attnsim
    <BLANKLINE>
    result = attnsim.simulate(
        schedule='ring',
        model='llama-3.1-8b',
        topology='dgx-h100',
        seq_len='128k',
        gpus=8,
        engine='maxplus',
        interference=False,
    )
    """
    options = ({"schedule": schedule} if schedule else {}) | state.options
    lines = "".join(f"    {name}={value!r},\n" for name, value in options.items())
    name, function = ("result", "simulate") if schedule else ("outcomes", "compare")
    return f"import attnsim\n\n{name} = attnsim.{function}(\n{lines})"


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
