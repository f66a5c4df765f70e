"""Hops that start late, as in implementations whose communication stream has no priority.

A ring posts its next hop before the kernel of the step. But NCCL's kernel waits for an event of the compute stream, and
the attention kernel behind the same event needs no wait: it is first, and fills the GPU. NCCL's blocks get a
multiprocessor only when the kernel has handed out its last blocks, a wave before its end. With c the step's kernel, h
its hops and d = c / waves,

    step = c + max(0, h - d)    instead of    max(c, h)

Streams of high priority (Burst's) or one launch queue (CUDA_DEVICE_MAX_CONNECTIONS=1) avoid it. Nothing is fitted.
Source: CUDA programming guide, stream priorities; NVIDIA/Megatron-LM issues 533 and 827; NVIDIA/nccl issue 689 (a
channel has a multiprocessor of its own); github zhuzilin/ring-flash-attention utils.py (RingComm: no priority).
"""

from __future__ import annotations

from simulator.replay.attention import Machine, Problem, Times

TILE = 128
"""Rows of a forward piece, columns of a backward one."""


def with_late_hops(machine: Machine, times: Times, problem: Problem, n_gpus: int, ring: int) -> Times:
    """Times of a schedule whose ``ring`` ranks' hops start late; dK and dV travel in fp32."""
    if ring < 2:
        return times
    tokens = problem.batch * problem.seq_len // n_gpus
    kv_bytes = 2 * 2 * tokens * problem.kv_heads * problem.head_dim
    hop_s = machine.hop_s(n_gpus, n_gpus // ring, kv_bytes)
    gradient_s = machine.hop_s(n_gpus, n_gpus // ring, 2 * kv_bytes)
    rows = tokens * problem.heads / TILE
    forward = _late_s(times.forward_s / ring, hop_s, rows / machine.slots("forward"))
    backward = _late_s((times.both_s - times.forward_s) / ring, hop_s + gradient_s, rows / machine.slots("backward"))
    return Times(times.forward_s + (ring - 1) * forward, times.both_s + (ring - 1) * (forward + backward))


def _late_s(step_s: float, hop_s: float, waves: float) -> float:
    """What a step takes more than the longer of kernel and hops."""
    return max(0.0, min(hop_s, step_s) - step_s / max(waves, 1.0))
