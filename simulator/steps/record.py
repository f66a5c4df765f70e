"""What is recorded for a request: attention alone, a layer, or a step of a model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from cost_models.finetuning import Dpo
from cost_models.models import ModelShape
from simulator.program.setup import Setup
from simulator.program.tape import Sink
from simulator.recording import check_program, default_pass, record_program
from simulator.resolved import ResolvedRequest
from simulator.schedules import Ring, Schedule
from simulator.steps.inference import record_decode, record_prefill
from simulator.steps.layer_pass import record_layer
from simulator.steps.plan import Plan
from simulator.steps.serving import check_pass
from simulator.steps.train import record_training_step

MODEL_PASSES = {"step": record_training_step, "prefill": record_prefill, "decode": record_decode}


@dataclass(frozen=True)
class Subject:
    """What is simulated.

    Attributes
    ----------
    schedule : with its defaults filled in.
    setup : all ranks, and the attention of one of them.
    pass_ : as the contract names it.
    copies : how often the heads of ``setup`` are attended: layers x microbatches x replicas x tensor parallel ranks,
        and once more by the reference of a preference.
    record : records it, into a sink.
    what : equal where the same is recorded.
    """

    schedule: Schedule
    setup: Setup
    pass_: str
    copies: int
    record: Callable[[Sink], None]
    what: Hashable


def subject_of(schedule: Schedule, resolved: ResolvedRequest) -> Subject:
    """What a request asks for, checked.

    Raises
    ------
    InputError
        Where it cannot run, with the reason.
    """
    request = resolved.request
    if request.layers == "attention":
        setup = setup_of(resolved)
        pass_ = request.pass_ or default_pass(schedule)
        check_program(schedule, setup, pass_)
        filled = schedule.resolve(setup)
        what: Hashable = (filled, setup, pass_)
        return Subject(filled, setup, pass_, 1, lambda sink: record_program(filled, setup, pass_, sink), what)
    assert resolved.model is not None
    plan = plan_of(schedule, resolved, resolved.model)
    if plan.options.fp8:
        resolved.profile.peak("fp8")  # refuses where there is none
    if request.layers == "layer":
        pass_ = request.pass_ or default_pass(schedule)
        plan.check(training=pass_ != "forward")
        plan.check_routing(pass_)
        filled, what = plan.resolved().schedule, (plan, "layer", pass_)
        return Subject(filled, plan.world, pass_, plan.grid.tp, lambda sink: record_layer(plan, pass_, sink), what)
    pass_ = request.pass_ or "step"
    plan.check(training=pass_ == "step")
    check_pass(plan, pass_)
    method = plan.options.parsed_method
    passes = 2 if pass_ == "step" and isinstance(method, Dpo) and method.where != "stored" else 1
    copies = passes * plan.shape.layers * plan.grid.dp * plan.grid.tp * plan.options.microbatches
    schedule, what = plan.resolved().schedule, (plan, "model", pass_)
    return Subject(schedule, plan.world, pass_, copies, lambda sink: MODEL_PASSES[pass_](plan, sink), what)


def setup_of(resolved: ResolvedRequest) -> Setup:
    """The ranks and heads that a schedule gets: all, or those of one context parallel group.

    Raises
    ------
    InputError
        Where the grid does not fit the ranks or the heads.
    """
    topology = resolved.topology
    if resolved.request.layers == "attention":
        return Setup(resolved.workload, topology.n_ranks, topology.ranks_per_node)
    assert resolved.model is not None
    return plan_of(Ring(), resolved, resolved.model).setup


def plan_of(schedule: Schedule, resolved: ResolvedRequest, shape: ModelShape) -> Plan:
    """A request for a layer or a model, with a schedule."""
    workload, topology = resolved.workload, resolved.topology
    return Plan(
        shape, schedule, workload.batch, workload.seq_len, workload.dtype, workload.mask, topology.n_ranks,
        topology.ranks_per_node, resolved.step_options,
    )  # fmt: skip
