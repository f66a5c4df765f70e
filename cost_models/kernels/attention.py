"""Seconds of attention kernel calls: of their launches one after the other (`launch_times`), and what joins those.

Where a kernel takes a call in several launches (`launches`), they are put together: forward merges what several
launches made of the same rows, backward adds gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.launch_times import LaunchTimes, count_tokens
from cost_models.kernels.launches import launches_of
from cost_models.kernels.put_together import estimate_put_together_s, takes_together
from cost_models.kernels.shape import AttentionShape
from cost_models.masks import KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


class AttentionTimes(LaunchTimes):
    """Times of an attention kernel's calls on a GPU, for one shape; each distinct launch is looked at once.

    Parameters are those of :func:`estimate_calls_s`.
    """

    def calls_s(self, calls: Sequence[KernelCall], worked_s: float = 0.0) -> float:
        """Time of all calls of a lowering, in seconds, after ``worked_s`` of work without a rest."""
        if self.together(calls):
            return self.launch_s(tuple(calls), worked_s)
        total, made = 0.0, list[KernelCall]()
        for call in calls:
            launches = launches_of(self.curve, call)
            for launch in launches:
                total += self.launch_s((launch,), worked_s + total)
            if len(launches) > 1 and not self.curve.windows:
                total += sum(self._gathered_s(launch) for launch in launches)
            made += launches
        if self.curve.windows and not self.profile.host.cold:  # other software's kernels add to one result
            return total
        return total + estimate_put_together_s(self.profile, made, self.shape, self.direction)

    def together(self, calls: Sequence[KernelCall]) -> bool:
        """Whether calls are one launch of a kernel for general masks."""
        return takes_together(self.curve, calls)

    def _gathered_s(self, launch: KernelCall) -> float:
        """Copies of Q, K, V, O and dO in a backward launch that has a part of every batch row."""
        if self.direction == "forward" or self.shape.batch == 1:
            return 0.0
        sizes = gathered_bytes(launch, self.shape)
        return sum(float(estimate_elementwise_s(self.profile, size, size, "copy")) for size in sizes)


def estimate_attention_s(
    profile: HardwareProfile,
    kernel: str,
    call: KernelCall,
    shape: AttentionShape,
    direction: str,
    *,
    precomputed_delta: bool = False,
    worked_s: float = 0.0,
) -> float:
    """Time of one attention call on the GPU, in seconds.

    Parameters
    ----------
    profile : the GPU.
    kernel : one of ``profile.kernels``.
    call : segments and window.
    shape : batch, heads, head dims, dtype.
    direction : ``forward`` or ``backward``.
    precomputed_delta : backward is given rowsum(dO O), and does not compute it (Burst).
    worked_s : how long the GPU has worked without a rest before the call: the power limit counts it (``boost_s``).

    Raises
    ------
    InputError
        Where the GPU has no such kernel, or no matrix units for the dtype.
    """
    calls = (call,)
    return estimate_calls_s(
        profile, kernel, calls, shape, direction, precomputed_delta=precomputed_delta, worked_s=worked_s
    )


def estimate_calls_s(
    profile: HardwareProfile,
    kernel: str,
    calls: Sequence[KernelCall],
    shape: AttentionShape,
    direction: str,
    *,
    precomputed_delta: bool = False,
    worked_s: float = 0.0,
    share: float = 1.0,
) -> float:
    """Time of all calls of a lowering, in seconds.

    They run one after the other, each in the launches that the kernel makes of it (`launches`); more than
    `MAX_LAUNCHES` are one launch of a kernel for general masks. ``share`` is of the tiles, where a kernel chooses among
    them. Other parameters and errors are those of :func:`estimate_attention_s`.
    """
    return AttentionTimes(profile, kernel, shape, direction, precomputed_delta, share).calls_s(calls, worked_s)


def gathered_bytes(launch: KernelCall, shape: AttentionShape) -> tuple[int, ...]:
    """Sizes of Q, K, V, O and dO of a launch."""
    rows, columns = count_tokens((launch,))
    queries, keys = rows * shape.problems * shape.element_bytes, columns * shape.batch * shape.kv_heads
    keys *= shape.element_bytes
    return (
        queries * shape.head_dim, keys * shape.head_dim, keys * shape.v_head_dim, queries * shape.v_head_dim,
        queries * shape.v_head_dim,
    )  # fmt: skip
