"""Which attention kernel runs: the one asked for if it can, else the fastest that can."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cost_models.kernels.launches import split_call
from cost_models.masks import Lowering, TokenRange, lower
from cost_models.workload import AttentionWorkload
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


def choose_kernel(profile: HardwareProfile, kernel: str | None, workload: AttentionWorkload) -> str:
    """Kernel for a workload.

    Parameters
    ----------
    kernel : the user's choice, None for the fastest exact one: the profile's default if it takes head dim, dtype and
        mask (one that needs too many launches wants a kernel for general masks), else the first that does.

    Raises
    ------
    InputError
        Where the GPU has no such kernel, or none that can.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.masks import parse_mask
    >>> workload = AttentionWorkload(1, 8192, 32, 8, 128, 128, "bf16", parse_mask("causal"))
    >>> choose_kernel(load_hardware("h200-sxm"), None, workload)
    'cudnn'
    """
    if kernel is not None:
        reason = _refusal(profile, kernel, workload)
        if reason:
            able = [name for name in profile.kernels if not _refusal(profile, name, workload)]
            raise InputError(f"kernel {kernel} {reason}", expected=("one of " + ", ".join(able)) if able else None)
        return kernel
    able = [name for name in _by_preference(profile) if not _refusal(profile, name, workload)]
    if not able:
        raise InputError(
            f"no kernel of {profile.name} takes this attention",
            got=f"head dims {workload.head_dim} and {workload.v_head_dim}, {workload.dtype}",
            expected=", ".join(f"{name}: {_limits(profile, name)}" for name in profile.kernels),
        )
    if _lowers_to_few_launches(workload):
        return able[0]
    return next((name for name in able if profile.kernels[name].general_masks), able[0])


def _by_preference(profile: HardwareProfile) -> list[str]:
    return sorted(profile.kernels, key=lambda name: name != profile.default_kernel)


def _refusal(profile: HardwareProfile, kernel: str, workload: AttentionWorkload) -> str | None:
    curve = profile.kernel(kernel)
    if max(workload.head_dim, workload.v_head_dim) > curve.max_head_dim:
        return f"takes head dims up to {curve.max_head_dim}, not {max(workload.head_dim, workload.v_head_dim)}"
    if workload.dtype not in curve.dtypes:
        return f"takes {', '.join(curve.dtypes)}, not {workload.dtype}"
    if not curve.windows and _has_windows(workload):
        return "takes full and causal attention, not windows"
    return None


def _limits(profile: HardwareProfile, kernel: str) -> str:
    curve = profile.kernels[kernel]
    return f"up to {curve.max_head_dim}, {' '.join(curve.dtypes)}"


def _lowers_to_few_launches(workload: AttentionWorkload) -> bool:
    return _lowered(workload).exact_kernel


def _has_windows(workload: AttentionWorkload) -> bool:
    """Whether a call of the whole sequence has a left bound, or a right one that keeps keys before it from a query."""
    calls = _lowered(workload).calls
    return any(
        launch.left is not None or launch.right not in (None, 0)
        for call in calls
        for launch in split_call(call, varlen=False, top_left=True)
    )


@lru_cache(maxsize=64)
def _lowered(workload: AttentionWorkload) -> Lowering:
    whole = [TokenRange(0, workload.seq_len)]
    return lower(workload.mask, whole, whole, workload.seq_len)
