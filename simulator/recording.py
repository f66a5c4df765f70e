"""From a schedule and a setup to a Program: as a stream of events, or kept.

A pass is forward, backward or both. Backward alone runs forward unrecorded: what it saved is then in memory at the
start, like Q, K, V and dO.
"""

from __future__ import annotations

from simulator.program.program import Program
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Sink
from simulator.schedules.base import Schedule
from traces.errors import InputError

PASSES = ("forward", "backward", "both")


def default_pass(schedule: Schedule) -> str:
    """Both, where there is a backward."""
    return "both" if schedule.has_backward else "forward"


def check_program(schedule: Schedule, setup: Setup, pass_: str) -> None:
    """Refuse what the schedule cannot run, before anything is recorded."""
    if pass_ not in PASSES:
        raise InputError("unknown pass", got=pass_, expected="one of " + ", ".join(PASSES))
    if pass_ != "forward" and not schedule.has_backward:
        raise InputError(f"{schedule.name} is for inference only: it has no backward pass", got=f"pass {pass_}",
                         remedy="ask for the forward pass")  # fmt: skip
    schedule.check(setup)


def record_program(schedule: Schedule, setup: Setup, pass_: str, sink: Sink) -> None:
    """Run a schedule against a sink.

    Raises
    ------
    InputError
        Where the schedule cannot run on this setup.
    """
    check_program(schedule, setup, pass_)
    schedule = schedule.resolve(setup)
    r, w = Recorder(setup, sink), setup.workload
    shards = schedule.input_shards(setup)
    r.muted = pass_ == "backward"
    q = r.tensor("q", *shards["q"], w.head_dim, w.dtype, is_input=True)
    k = r.tensor("k", *shards["k"], w.head_dim, w.dtype, is_input=True)
    v = r.tensor("v", *shards["v"], w.v_head_dim, w.dtype, is_input=True)
    saved = schedule.forward(r, q, k, v)
    outputs = {"o": saved[0], "lse": saved[1]} if pass_ != "backward" else {}
    if pass_ != "forward":
        r.phase, r.step = "backward", 0
        if r.muted:
            r.unmute()
        do = r.tensor("do", *shards["do"], w.v_head_dim, w.dtype, is_input=True)
        gradients = schedule.backward(r, q, k, v, saved, do)
        outputs |= dict(zip(("dq", "dk", "dv"), gradients, strict=True))
    r.close(outputs)


def build_program(schedule: Schedule, setup: Setup, pass_: str | None = None) -> Program:
    """Record and keep a Program.

    >>> from cost_models.masks import parse_mask
    >>> from cost_models.workload import AttentionWorkload
    >>> from simulator.schedules import Ring
    >>> workload = AttentionWorkload(1, 64, 4, 4, 16, 16, "bf16", parse_mask("causal", 64))
    >>> [operation.kind for operation in build_program(Ring(), Setup(workload, 2, 2), "forward").operations]
    ['exchange', 'attention_forward', 'attention_forward', 'cast', 'merge', 'cast']
    """
    program = Program(setup)
    record_program(schedule, setup, pass_ or default_pass(schedule), program)
    return program
