"""A GPU: its specification, and what kernels, the host and links reach on it.

Peaks are rates of the hardware; everything that is measured is dimensionless (a share of a peak) or a time that does
not depend on size, so that a GPU nobody measured can take it from a relative with the same architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from cost_models.hardware.attention import AttentionCurve, KernelPass, Passes
from cost_models.hardware.dense import ElementwiseCosts, GemmCosts
from cost_models.hardware.host import CopyTerms, HostCosts
from cost_models.hardware.interference import InterferenceTerms
from cost_models.hardware.links import LINK_KINDS, TWO_RANKS, LinkCurve, Regimes
from cost_models.hardware.power import PowerTerms
from cost_models.hardware.sources import Source
from cost_models.hardware.terms import Count, Fraction, Positive, Share, Terms
from traces.errors import InputError


class HardwareProfile(Terms):
    """A GPU and its host.

    Parameters
    ----------
    name : as in the contract, or that of the user's file.
    base : profile of ours that a user's file completes: the GPU that it is about.
    sm_arch : compute capability times 10.
    sm_count, clock_hz, smem_bytes : multiprocessors, their boost clock and the shared memory of each.
    memory_bytes, usable_fraction : device memory, and the share that PyTorch's allocator can have: not what the driver
        keeps (0.6 % of an H100: 85.017 of 85.521 GB, our records), the CUDA context and NCCL's buffers (1.5 GiB,
        estimated). What the allocator takes over its tensors is ``allocator_slack``, and no part of this.
    hbm_bytes_per_s, l2_bytes : memory bandwidth, and size of the L2 cache.
    peak_flop_per_s : of dense matrix products, fp32 accumulation, by dtype.
    kernels, default_kernel : attention kernels, and the fastest exact one.
    links : curves by kind of link (those of ``Route.kind``).
    pairs : operations of two ranks of one host as they were measured there, by link type
        (`cost_models.topology.link_types`) and operation: instead of ``links`` and the terms of collectives.
    power : how the clock follows power.
    interference : what communication takes from kernels beside it.
    copies : between the memories of GPU and host.
    allocator_slack : memory that PyTorch's caching allocator takes in a training step, over what tensors have at the
        peak: the median of 30 steps on an H100 (PyTorch 2.11, 1.00 to 1.22, one 1.70; docs/validation/h100-steps and
        -heldout). It comes of many sizes in turn: for attention calls and inference, which have few, it is taken as 1.
    call_error : half-width of the 90 % band of whole calls around their predictions, beyond the errors of the terms:
        how one machine's GPU, its clock and its state differ from those that were fitted.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    base: str | None = None
    sm_arch: Count
    sm_count: Count
    clock_hz: Positive
    smem_bytes: Count
    memory_bytes: Count
    usable_fraction: Fraction
    hbm_bytes_per_s: Positive
    l2_bytes: Count
    peak_flop_per_s: dict[str, Positive]
    default_kernel: str
    kernels: dict[str, AttentionCurve]
    elementwise: ElementwiseCosts
    gemm: GemmCosts
    power: PowerTerms = PowerTerms()
    host: HostCosts
    links: dict[str, LinkCurve]
    pairs: dict[str, dict[str, Regimes]] = {}
    interference: InterferenceTerms = InterferenceTerms()
    copies: CopyTerms = CopyTerms()
    allocator_slack: Positive = 1.08
    call_error: Share = 0.0
    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_agree(self) -> HardwareProfile:
        if self.default_kernel not in self.kernels:
            raise ValueError(f"default_kernel {self.default_kernel} is not one of {', '.join(self.kernels)}")
        if set(self.links) != set(LINK_KINDS):
            raise ValueError("links are not given for exactly " + ", ".join(LINK_KINDS))
        if any(set(operations) - set(TWO_RANKS) for operations in self.pairs.values()):
            raise ValueError("pairs have other operations than " + ", ".join(TWO_RANKS))
        if "bf16" not in self.peak_flop_per_s:
            raise ValueError("peak_flop_per_s has no bf16")
        return self

    @property
    def sources(self) -> Mapping[str, Source]:
        """Source of every number, by its dotted name (``links.nvlink.latency_s``)."""
        return self._sources

    @property
    def usable_memory_bytes(self) -> int:
        """Memory for tensors: less what the driver, CUDA, NCCL and fragmentation take."""
        return int(self.memory_bytes * self.usable_fraction)

    def with_fewer_sms(self, taken: int) -> HardwareProfile:
        """The GPU as kernels see it while others hold ``taken`` multiprocessors; at least one is left.

        >>> from cost_models.hardware import load_hardware
        >>> load_hardware("h100-sxm").with_fewer_sms(32).sm_count
        100
        """
        left = max(self.sm_count - taken, 1)
        peaks = {dtype: peak * left / self.sm_count for dtype, peak in self.peak_flop_per_s.items()}
        return self.model_copy(update={"sm_count": left, "peak_flop_per_s": peaks})

    def with_communication_first(self) -> HardwareProfile:
        """The GPU with software that lets communication start beside kernels.

        >>> from cost_models.hardware import load_hardware
        >>> load_hardware("h100-sxm").with_communication_first().interference.communication_first
        True
        """
        terms = self.interference.model_copy(update={"communication_first": True})
        return self.model_copy(update={"interference": terms})

    def isolated(self) -> HardwareProfile:
        """The GPU in a call on its own, on a host that has not issued the like just before (`HostCosts.alone`)."""
        factor = self.host.isolated
        return self._with_passes(
            lambda each: {} if each.host_s is None else {"host_s": each.host_s * factor}
        ).model_copy(update={"host": self.host.alone()})

    def after_work(self, worked_s: float) -> HardwareProfile:
        """The GPU after so much work without a rest: that much of each kernel's boost is used up."""
        gemm = self.gemm.model_copy(update={"boost_s": max(0.0, self.gemm.boost_s - worked_s)})
        attention = self._with_passes(lambda each: {"boost_s": max(0.0, each.boost_s - worked_s)})
        return attention.model_copy(update={"gemm": gemm, "power": self.power.after_work(worked_s)})

    def beside_products(self) -> HardwareProfile:
        """The GPU where attention takes turns with products: the clock is one, so that it loses at least what they do.

        Where it loses more by itself that stays; measured on training steps, products lose the same in turns as alone.
        """
        gemm = self.gemm
        limit = {"boost_s": gemm.boost_s, "sustained_loss": gemm.sustained_loss, "sustained_s": gemm.sustained_s}
        return self._with_passes(lambda each: limit if each.sustained_loss < gemm.sustained_loss else {})

    def _with_passes(self, change: Callable[[KernelPass], dict[str, float]]) -> HardwareProfile:
        """All passes of all kernels with other terms."""

        def both(each: AttentionCurve | Passes) -> dict[str, KernelPass]:
            return {
                name: each_pass.model_copy(update=change(each_pass))
                for name, each_pass in (("forward", each.forward), ("backward", each.backward))
            }

        def whole(curve: AttentionCurve) -> AttentionCurve:
            own = {dim: passes.model_copy(update=both(passes)) for dim, passes in curve.head_dims.items()}
            return curve.model_copy(update={**both(curve), "head_dims": own})

        return self.model_copy(update={"kernels": {name: whole(curve) for name, curve in self.kernels.items()}})

    def peak(self, dtype: str) -> float:
        """FLOP/s of the tensor cores.

        Raises
        ------
        InputError
            Where the GPU has no such units.
        """
        if dtype not in self.peak_flop_per_s:
            raise InputError(
                f"{self.name} has no matrix units for {dtype}", expected="one of " + ", ".join(self.peak_flop_per_s)
            )
        return self.peak_flop_per_s[dtype]

    def kernel(self, name: str) -> AttentionCurve:
        """An attention kernel by name.

        Raises
        ------
        InputError
            Where the GPU has none of that name.
        """
        if name not in self.kernels:
            raise InputError(f"{self.name} has no kernel {name}", expected="one of " + ", ".join(self.kernels))
        return self.kernels[name]

    def outside_fit(self, kernel: str, rows: int, head_dim: int, direction: str = "forward") -> str | None:
        """What of a call lies outside the measurements behind its kernel's curve, None if nothing does.

        Parameters
        ----------
        rows : queries of the call.

        >>> from cost_models.hardware import load_hardware
        >>> load_hardware("h100-sxm").outside_fit("flash2", 2**20, 128)
        'flash2 forward on h100-sxm: 1,048,576 queries, measured were 512 to 262,144'
        """
        curve = self.kernel(kernel).direction(direction, head_dim)
        low, high = curve.fitted_rows
        what = []
        if not low <= rows <= high:
            what.append(f"{rows:,} {'query' if rows == 1 else 'queries'}, measured were {low:,} to {high:,}")
        if head_dim not in curve.fitted_head_dims:
            what.append(f"head dim {head_dim}, measured were {', '.join(map(str, curve.fitted_head_dims))}")
        return f"{kernel} {direction} on {self.name}: " + "; ".join(what) if what else None
