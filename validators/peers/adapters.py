"""Calls into peers' code: (q, k, v, dO) of one rank to (o, dq, dk, dv), by the options of our description of them.

Tensors are [B, n, H, D]. What is known to go wrong is kept out (`facts/ecosystem.md`): ring-flash-attn never gets fp32
backward (its buffers then alias), PyTorch's context parallelism uses flash kernels, whose backward takes the strides of
merged outputs.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from simulator.schedules import Schedule
from simulator.schedules.peers import RingFlashAttn, TorchCp, YunChang
from traces.errors import InputError
from validators.executors.world import World

Results = dict[str, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Results]
"""O, and with dO the gradients too."""

_STAND_IN = str(Path(__file__).with_name("stand_in"))


def why_missing(schedule: Schedule) -> str | None:
    """Why a peer cannot run here, None if it can."""
    module = {"ring-flash-attn": "ring_flash_attn", "yunchang": "yunchang"}.get(schedule.name)
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"package {module} is not installed"


def build_peer(world: World, schedule: Schedule, *, causal: bool) -> Attend:
    """A peer's attention among all ranks of a world.

    Raises
    ------
    InputError
        Where the package is missing, or the schedule is none of a peer's.
    """
    missing = why_missing(schedule)
    if missing:
        raise InputError(f"{schedule.name} cannot run here", got=missing)
    everyone = (tuple(range(world.size)),)
    if isinstance(schedule, TorchCp):
        return torch_cp(world.group("peer", everyone, first=False), schedule, causal=causal)
    if isinstance(schedule, RingFlashAttn):
        return _ring_flash_attn(world.group("peer", everyone, first=False), schedule, causal)
    if isinstance(schedule, YunChang):
        return _yunchang(world, schedule, causal)
    raise InputError(f"{schedule.name} is no peer's schedule")


def _ring_flash_attn(group: dist.ProcessGroup | None, schedule: RingFlashAttn, causal: bool) -> Attend:
    with _stand_in():
        import ring_flash_attn

    function = {
        "ring": ring_flash_attn.ring_flash_attn_func,
        "zigzag": ring_flash_attn.zigzag_ring_flash_attn_func,
        "stripe": ring_flash_attn.stripe_flash_attn_func,
    }[schedule.variant]
    return _differentiated(lambda q, k, v: function(q, k, v, causal=causal, group=group))


def _yunchang(world: World, schedule: YunChang, causal: bool) -> Attend:
    """Its process groups are set to ours, which have the backend that is measured."""
    with _stand_in():
        from yunchang.globals import PROCESS_GROUP
        from yunchang.hybrid import LongContextAttention

    heads, ranks = schedule.ulysses, world.size
    assert heads is not None
    if heads == ranks and world.backend == "gloo":
        raise InputError("yunchang with a ring of one sends to itself, which gloo refuses", remedy="use ring=2 or nccl")
    neighbours = tuple(tuple(range(first, first + heads)) for first in range(0, ranks, heads))
    across = tuple(tuple(range(first, ranks, heads)) for first in range(heads))
    PROCESS_GROUP.ULYSSES_PG = world.group("peer heads", neighbours, first=False)
    PROCESS_GROUP.RING_PG = world.group("peer ring", across, first=False)
    layer = LongContextAttention(ring_impl_type="zigzag" if causal else "basic")
    return _differentiated(lambda q, k, v: layer(q, k, v, causal=causal))


def _differentiated(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attend:
    """Forward, and by autograd backward."""

    def attend(q: Tensor, k: Tensor, v: Tensor, do: Tensor | None) -> Results:
        if do is None:
            with torch.no_grad():
                return {"o": function(q, k, v)}
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in (q, k, v)]
            o = function(*leaves)
            dq, dk, dv = torch.autograd.grad(o, leaves, do)
        return {"o": o.detach(), "dq": dq, "dk": dk, "dv": dv}

    return attend


def torch_cp(group: dist.ProcessGroup | None, schedule: TorchCp, *, causal: bool) -> Attend:
    """The templates that its context manager dispatches to, which take [B, H, n, D]."""
    from torch.distributed.tensor.experimental._context_parallel import _attention as cp

    cp._cp_options.enable_load_balance = schedule.balance
    cp._cp_options.rotate_method = cp._RotateMethod.ALL_TO_ALL if schedule.rotate == "alltoall" else (
        cp._RotateMethod.ALL_GATHER
    )  # fmt: skip

    def attend(q: Tensor, k: Tensor, v: Tensor, do: Tensor | None) -> Results:
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        o, lse, *_ = cp._templated_ring_attention(group, 2, _sdpa, q, k, v, is_causal=causal)
        if do is None:
            return {"o": o.transpose(1, 2), "lse": lse}
        dq, dk, dv, *_ = cp._templated_ring_attention_backward(
            group, 2, _sdpa_backward, do.transpose(1, 2), "grad_out", q, k, v, o, lse, causal
        )
        gradients = {"dq": dq, "dk": dk, "dv": dv}
        return {"o": o.transpose(1, 2), "lse": lse, **{name: each.transpose(1, 2) for name, each in gradients.items()}}

    return attend


def _sdpa(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, ...]:
    """PyTorch's flash attention on [B, H, n, D]; the CPU's wants as many KV heads as query heads."""
    if q.is_cuda:
        o, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal)
        return o, lse
    group = q.shape[1] // k.shape[1]
    k, v = (each.repeat_interleave(group, dim=1) for each in (k, v))
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal)
    return o, lse


def _sdpa_backward(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, is_causal: bool, grad_out: Tensor
) -> tuple[Tensor, ...]:
    if query.is_cuda:
        state = torch.zeros(2, dtype=torch.uint64, device=query.device), torch.zeros((), dtype=torch.uint64)
        found: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad_out,
            query,
            key,
            value,
            out,
            logsumexp,
            None,
            None,
            query.shape[2],
            key.shape[2],
            0.0,
            is_causal,
            *state,
        )
        return found
    group = query.shape[1] // key.shape[1]
    wide = [each.repeat_interleave(group, dim=1) for each in (key, value)]
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, query, *wide, out, logsumexp, 0.0, is_causal
    )
    shape = (key.shape[0], key.shape[1], group, key.shape[2], -1)
    return dq, dk.reshape(shape).sum(dim=2), dv.reshape(shape).sum(dim=2)


@contextmanager
def _stand_in() -> Iterator[None]:
    """Have ``import flash_attn`` find ours where there is no other, and ``import transformers`` an empty one.

    ring-flash-attn has adapters for Transformers that nothing here uses, and importing it takes seconds.
    """
    if importlib.util.find_spec("flash_attn") is None:
        sys.path.append(_STAND_IN)
    names = ("transformers", "transformers.modeling_flash_attention_utils")
    if names[0] in sys.modules:
        yield
        return
    package, module = (types.ModuleType(name) for name in names)
    module.is_flash_attn_greater_or_equal_2_10 = lambda: True  # type: ignore[attr-defined]
    package.modeling_flash_attention_utils = module  # type: ignore[attr-defined]
    sys.modules |= dict(zip(names, (package, module), strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
