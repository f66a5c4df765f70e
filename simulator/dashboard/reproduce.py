"""What reproduces a state elsewhere: a command line, Python."""

from __future__ import annotations

import shlex
from typing import Any

from simulator.dashboard.state import State


def command_line(state: State, schedule: str | None) -> str:
    """The command that prints the ranking, or one schedule's numbers.

    >>> command_line(State(model="yi-34b"), None)
    'attnsim compare --model yi-34b --topology dgx-h100 --seq-len 128k --gpus 8 --engine maxplus --no-interference'
    """
    words = ["attnsim", "simulate" if schedule else "compare", *(["--schedule", schedule] if schedule else [])]
    for name, value in state.options.items():
        option = f"--{name.replace('_', '-')}"
        words += _words(option.rstrip("-"), value)
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


def _words(option: str, value: Any) -> list[str]:
    """An option as words of a command line; a flag is one word."""
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    return [option, str(value)]
