"""What is asked of prefill and decode besides how they are parallelised: read and checked here."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from cost_models.packing import FORMS, PACKED
from cost_models.units import parse_count
from cost_models.wide_area import WideAreaLink, parse_link
from simulator.asked import StepFields
from simulator.schedules.base import Schedule
from simulator.schedules.chunk import Chunk
from traces.errors import InputError

if TYPE_CHECKING:
    from simulator.steps.plan import Plan

ONLY = {
    "weight_bits": ("prefill", "decode"),
    "kv_dtype": ("prefill", "decode"),
    "mla": ("prefill", "decode"),
    "stage_link": ("prefill", "decode"),
    "prefill_chunk": ("prefill",),
    "cached_prefix": ("prefill",),
    "kv_block": ("decode",),
    "new_tokens": ("decode",),
    "cuda_graphs": ("decode",),
    "overlap_microbatches": ("prefill", "decode"),
    "virtual_stages": ("step",),
}
"""Options that not all passes have, and the passes that have them."""


def check_options(asked: StepFields) -> None:
    """Refuse what no model could have."""
    for name, value, choices in (("kv_dtype", asked.kv_dtype, tuple(FORMS)),
                                 ("mla", asked.mla, ("absorbed", "expanded"))):  # fmt: skip
        if value is not None and value not in choices:
            raise InputError(f"unknown {name}", got=repr(value), expected="one of " + ", ".join(choices))
    for name in ("kv_block", "prefill_chunk", "cached_prefix", "new_tokens"):
        value = getattr(asked, name)
        if value is not None and parse_count(value, name) < 1:
            raise InputError(f"{name} is not a number of tokens", got=repr(value), expected="at least 1")
    stage_link(asked)


def tokens_of(asked: StepFields, name: str) -> int:
    """An option that counts tokens; 0 where it is not given."""
    return parse_count(getattr(asked, name) or 0, name)


def stage_link(asked: StepFields) -> WideAreaLink | None:
    """The link between stages, where one is described."""
    return None if asked.stage_link is None else parse_link(asked.stage_link)


def packed_dtype(asked: StepFields) -> str | None:
    """Dtype of the cache's buffers, where rows are packed."""
    return None if asked.kv_dtype is None else PACKED + asked.kv_dtype


def check_pass(plan: Plan, pass_: str) -> None:
    """Refuse options that the pass does not have, or the model or schedule not with it.

    Raises
    ------
    InputError
        For the first of them, with the reason.
    """
    defaults = {each.name: each.default for each in fields(StepFields)}
    for name, passes in ONLY.items():
        value = getattr(plan.options, name)
        if value != defaults[name] and pass_ not in passes:
            raise InputError(f"{name} does not go with pass {pass_}", got=value, expected=" or ".join(passes))
    if plan.options.mla and plan.shape.mla is None:
        raise InputError(f"mla is about latent attention, and {plan.shape.name} has none", got=plan.options.mla)
    if plan.options.stage_link and plan.grid.pp == 1:
        raise InputError("stage_link needs pipeline stages", got="pp 1", remedy="use pp 2 or more")
    if plan.options.new_tokens > plan.seq_len // plan.grid.cp:
        raise InputError("new tokens are more than the last rank's part of the context", got=plan.options.new_tokens,
                         expected=f"at most {plan.seq_len // plan.grid.cp}")  # fmt: skip
    if plan.options.chunked:
        _check_chunks(plan)
    if plan.options.overlap_microbatches:
        _check_overlap(plan)
    plan.check_routing(pass_)


def _check_overlap(plan: Plan) -> None:
    """Refuse two microbatches in turn where there are none, or nothing of a layer is communicated."""
    if plan.options.microbatches % 2:
        raise InputError("overlapped microbatches come in pairs", got=f"{plan.options.microbatches} microbatches",
                         expected="an even number")  # fmt: skip
    if plan.grid.pp > 1:
        raise InputError("overlapped microbatches do not go with pipeline stages", got=f"pp {plan.grid.pp}")
    if plan.schedule.asks_again:
        raise InputError(f"overlapped microbatches do not go with {plan.schedule.name}, which asks its query again")
    if plan.grid.tp == 1 and plan.options.ep == 1:
        raise InputError("nothing of a layer is communicated that another microbatch could hide", got="tp 1, ep 1",
                         remedy="use tensor or expert parallel ranks")  # fmt: skip


def _check_chunks(plan: Plan) -> None:
    """Refuse chunks where the schedule, the mask or the model does not allow them."""
    schedule, options = plan.schedule, plan.options
    if schedule.whole_prompt:
        raise InputError(f"{schedule.name} cannot take a prompt in chunks: {schedule.whole_prompt}",
                         remedy="leave prefill_chunk and cached_prefix out, or use another schedule")  # fmt: skip
    if not plan.mask.is_causal or not plan.mask.translation_invariant:
        raise InputError("a prompt in chunks needs a mask that is causal and depends on distance alone",
                         got=plan.mask.brief, expected="causal or sliding-window:window=,causal=true")  # fmt: skip
    if tokens_of(options, "cached_prefix") >= plan.seq_len:
        raise InputError("the cached prefix leaves nothing of the prompt", got=options.cached_prefix,
                         expected=f"less than {plan.seq_len} tokens")  # fmt: skip
    for chunk in plan.chunks:
        _check_chunk(schedule, chunk)
        tokens = chunk.setup.workload.seq_len // plan.grid.cp
        if options.tp_version == 3 and tokens % plan.grid.tp:
            raise InputError("tokens of a chunk on a rank are not divisible by the tensor parallel ranks",
                             got=f"{tokens} / {plan.grid.tp}")  # fmt: skip
    by_head = schedule.cached_layout(plan.chunks[0], 1).first_head is not None
    if plan.shape.mla and by_head and options.mla != "absorbed" and plan.grid.cp > 1:
        raise InputError(f"{schedule.name} scatters heads, and latent rows have none to make keys of before",
                         remedy="use mla absorbed, or a ring")  # fmt: skip


def _check_chunk(schedule: Schedule, chunk: Chunk) -> None:
    try:
        schedule.check(chunk.setup)
    except InputError as error:
        raise InputError(f"{schedule.name} cannot spread a chunk of {chunk.setup.workload.seq_len} tokens",
                         got=error.message, remedy="use another prefill_chunk or cached_prefix") from None  # fmt: skip
