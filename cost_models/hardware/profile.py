"""A GPU: its specification, and what kernels, the host and links reach on it.

Peaks are rates of the hardware; everything that is measured is dimensionless (a share of a peak) or a time that does
not depend on size, so that a GPU nobody measured can take it from a relative with the same architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from cost_models.hardware.links import LINK_KINDS, LinkCurve
from cost_models.hardware.sources import Source
from cost_models.hardware.terms import (
    ByNumber,
    Cost,
    Count,
    Counts,
    Fraction,
    Names,
    Positive,
    Range,
    Ratio,
    Seconds,
    Share,
    Terms,
)
from traces.errors import InputError

PATTERNS = ("copy", "fill", "merge", "accumulate", "reduce", "gather", "pack", "combine")
"""Access patterns of memory-bound kernels (`simulator.program.operations`, Elementwise)."""


class KernelPass(Terms):
    """One direction of an attention kernel.

    Parameters
    ----------
    tile_rows, tile_columns : queries and keys of the tile in the inner loop.
    blocks_per_sm : thread blocks that share a multiprocessor.
    longest_first : work is handed out longest first (persistent kernels), else in order of position.
    in_order : dispatch in order of position is simulated, else taken as waves of pieces of like length.
    alone_share : part of the time for which one block keeps a multiprocessor busy (``schedule``; with ``in_order``).
    efficiency : share of the tensor cores' peak in the inner loop, by head dim.
    masked_tile_cost : time of a tile to which the mask is applied, in whole tiles.
    skipped_tile_cost : time to look at a tile that the mask leaves out, in whole tiles; 0 where the kernel knows its
        tiles beforehand.
    masks_window_tiles : a windowed call applies the mask to all its tiles, not only to those that are cut.
    window_tile_cost : then, time of a tile that is not cut, in whole tiles; None where it is that of one that is.
    prologue_s : of each piece of work: loading its own rows, writing its result, filling the pipeline.
    overhead_s : of the whole call, on the GPU.
    host_s : of the host for the whole call; None where it is that of its launches (``HostCosts.kernel_s`` each).
    varlen_s : of each piece of a call of several segments besides: finding its segment, and what pipelining between
        pieces saves in calls of one.
    checked_mask_s : of each piece besides, where the mask is applied by a variant of the kernel that checks bounds: of
        windows, and causal where there are several segments or lengths that tiles do not divide.
    boost_s : duration from which on the power limit lowers the clock.
    sustained_loss, sustained_s : share of the rate that long calls lose to it, and the duration, counted from
        ``boost_s``, at which half of it is lost.
    l2_miss_cost : time that a tile takes more when its loads come from memory, not from the L2 cache, in whole tiles.
    read_share : share of memory bandwidth at which launches of few queries read keys and values; None where it is that
        of a copy.
    fitted_rows, fitted_head_dims : queries and head dims of the measurements behind the numbers.
    """

    tile_rows: Count
    tile_columns: Count
    blocks_per_sm: Count
    longest_first: bool
    in_order: bool = False
    alone_share: Fraction = 1.0
    efficiency: ByNumber
    masked_tile_cost: Ratio = 1.0
    skipped_tile_cost: Share = 0.0
    masks_window_tiles: bool = False
    window_tile_cost: Ratio | None = None
    prologue_s: Seconds
    overhead_s: Seconds
    host_s: Seconds | None = None
    varlen_s: Seconds = 0.0
    checked_mask_s: Seconds = 0.0
    boost_s: Seconds = 0.0
    sustained_loss: Share = 0.0
    sustained_s: Seconds = 1e-3
    l2_miss_cost: Cost = 0.0
    read_share: Fraction | None = None
    fitted_rows: Range
    fitted_head_dims: Counts

    def efficiency_at(self, head_dim: float) -> float:
        """Share of peak at a head dim, linear between those listed and constant beyond."""
        dims, shares = zip(*self.efficiency, strict=True)
        return float(np.interp(head_dim, dims, shares))


class Passes(Terms):
    """Both directions of an attention kernel at one head dim."""

    forward: KernelPass
    backward: KernelPass


class AttentionCurve(Terms):
    """An attention kernel on one GPU.

    Parameters
    ----------
    max_head_dim : largest head dim it takes.
    dtypes : of Q, K and V that it takes.
    general_masks : one launch takes any mask (as blocks), not only a window around the diagonal.
    takes_delta : backward can be given delta = rowsum(dO O); else an output that has it is made for it (one more pass
        over dO).
    whole_grid : tiles lie on a grid over all rows and columns, so that one may hold the ends of two segments; else each
        segment has its own.
    varlen : one launch has several segments (packed documents); else each is a launch.
    windows : takes windows with a left bound; else full attention and causal attention of as many rows as columns, of
        which other causal calls are made (`cost_models.kernels.split_call`).
    forward, backward : the passes.
    head_dims : passes of their own of some head dims, where the kernel has other tiles for them.
    """

    max_head_dim: Count
    dtypes: Names
    general_masks: bool
    takes_delta: bool = False
    whole_grid: bool = False
    varlen: bool = True
    windows: bool = True
    forward: KernelPass
    backward: KernelPass
    head_dims: dict[str, Passes] = Field(default_factory=dict)

    def direction(self, direction: str, head_dim: int | None = None) -> KernelPass:
        """The pass by name, and that of a head dim which has its own."""
        if direction not in ("forward", "backward"):
            raise InputError("unknown direction", got=repr(direction), expected="forward or backward")
        passes: AttentionCurve | Passes = self.head_dims.get(str(head_dim), self)
        return passes.forward if direction == "forward" else passes.backward


class ElementwiseCosts(Terms):
    """Memory-bound kernels: time of one that moves nothing, and the share of memory bandwidth by access pattern."""

    overhead_s: Seconds
    efficiency: dict[str, Fraction]

    @model_validator(mode="after")
    def _has_all_patterns(self) -> ElementwiseCosts:
        if set(self.efficiency) != set(PATTERNS):
            raise ValueError("efficiency is not given for exactly " + ", ".join(PATTERNS))
        return self


class GemmCosts(Terms):
    """Dense products: the largest tile of the output, share of peak within it, time of a call besides.

    ``prologue_s`` is of each tile, ``edge_cost`` the part of a tile's time that goes with the operands it loads for
    each result (`cost_models.kernels.gemm`); by default as fitted to an H100: a matter of tiles, not of rates.
    ``boost_s``, ``sustained_loss`` and ``sustained_s`` are of the power limit, as of a `KernelPass`.
    """

    tile_rows: Count
    tile_columns: Count
    efficiency: Fraction
    overhead_s: Seconds
    prologue_s: Seconds = 0.0
    edge_cost: Cost = 0.2
    boost_s: Seconds = 0.0
    sustained_loss: Share = 0.0
    sustained_s: Seconds = 1e-3


class PowerTerms(Terms):
    """What a GPU's control of power does to the clock, beyond what each kernel loses (`cost_models.kernels.power`).

    Parameters
    ----------
    overshoot, overshoot_s : the loss at first, over that in the end, and how long it lasts.
    deep_from_s, deep_for_s, deep_loss : duration of work after which a slower control takes a share of every kernel's
        rate, for how long, and which.
    later_loss : the share that it takes from then on, on average.
    """

    overshoot: Ratio = 1.0
    overshoot_s: Seconds = 0.0
    deep_from_s: Seconds = 1.0
    deep_for_s: Seconds = 0.0
    deep_loss: Share = 0.0
    later_loss: Share = 0.0

    def after_work(self, worked_s: float) -> PowerTerms:
        """The same for a GPU that has worked for so long without a rest."""
        acted_s = max(0.0, worked_s - self.deep_from_s)
        return self.model_copy(update={
            "overshoot_s": max(0.0, self.overshoot_s - worked_s),
            "deep_from_s": max(0.0, self.deep_from_s - worked_s),
            "deep_for_s": max(0.0, self.deep_for_s - acted_s),
        })  # fmt: skip


class HostCosts(Terms):
    """Time the host needs to issue one kernel, one grouped send and receive, one collective, and a CUDA graph.

    A graph of n kernels in a row takes ``graph_s + n graph_node_s``; the defaults are NVIDIA's figures for CUDA 12.6
    (developer blog of 2024-09, "Constant Time Launch for Straight-Line CUDA Graphs": a repeated launch takes 2.5 us and
    about 1 ns a node, 2 us and 200 ns a node before), read in three places that quote it; nobody here has measured it.

    ``kernel_s`` and `KernelPass.host_s` are of a host that issues the like all the time. In a call on its own
    (``cold``) code and data of operations are in few of the host's caches. Then ``kinds`` has the time of one operation
    of a kind (`simulator.program.operations`; of attention of one launch, KERNEL_DIRECTION), with all its launches and
    the memory that it takes and gives back, as this toolkit's executor issues it. The first operation of each kind
    takes ``first`` more, or ``first_s``. ``isolated`` is how many times as long as all that a call takes to issue in
    fact, ``isolated_error`` the half-width of the 90 % band around it.
    """

    kernel_s: Seconds
    exchange_s: Seconds
    collective_s: Seconds
    graph_s: Seconds = 2.5e-6
    graph_node_s: Seconds = 1e-9
    kinds: dict[str, Seconds] = {}
    first: dict[str, Seconds] = {}
    first_s: Seconds = 0.0
    cold: bool = False
    isolated: Ratio = 1.0
    isolated_error: Share = 0.0

    def alone(self) -> HostCosts:
        """The same in a call on its own."""
        f = self.isolated
        scaled = {"kernel_s": self.kernel_s * f, "first_s": self.first_s * f, "cold": True, "isolated": 1.0}
        tables = {name: {kind: s * f for kind, s in getattr(self, name).items()} for name in ("kinds", "first")}
        return self.model_copy(update={**scaled, **tables})


class CopyTerms(Terms):
    """Copies between GPU and host by copy engines.

    The rates are shares of what NCCL takes a link for (48 GB/s of PCIe Gen5 x16, whose line rate is 63): nvbandwidth's
    host_to_device_memcpy_ce and its reverse reach 55.4 and 55.1 GB/s on an H200 (stas00/ml-engineering,
    network/README.md). C2C is taken as NCCL has it.
    """

    latency_s: Seconds = 10e-6
    pcie: Positive = 1.15
    c2c: Positive = 1.0


class InterferenceTerms(Terms):
    """What communication takes from kernels beside it (`simulator.engines.interference`).

    The defaults follow from what NCCL's kernels do (NVIDIA/nccl 2.30.7, src/device/prims_simple.h, src/transport/): a
    channel is a thread block on a multiprocessor of its own. Where GPUs reach each other, a sender reads its tensor and
    writes into the receiver's buffer, which the receiver reads and writes to its tensor: one byte of the sender's
    memory traffic and three of the receiver's. A NIC reads and writes a buffer on its own GPU, three and three; buffers
    in host memory cost the GPUs one and one.

    A multiprocessor that becomes free goes to the kernel that was there first, so that communication starts when a
    kernel that fills the GPU has handed out its blocks. That is so with PyTorch's default (ProcessGroupNCCL's
    ``is_high_priority_stream`` is false) and in the executors here. It is not so with streams of high priority, with
    one launch queue (CUDA_DEVICE_MAX_CONNECTIONS=1: kernels start in the order in which the host launches them), or
    where kernels leave multiprocessors free. Source: MagiAttention docs/source/blog/kernel_overlap.md ("SM
    starvation"); NVIDIA/Megatron-LM issues 533 and 827; CUDA C++ programming guide, stream priorities.

    Parameters
    ----------
    sms_per_channel : multiprocessors that a channel keeps from kernels.
    communication_first : whether communication gets them before blocks of kernels that run already.
    send_traffic, receive_traffic : bytes of memory traffic per byte sent and received, by kind of link.
    """

    sms_per_channel: Count = 1
    communication_first: bool = False
    send_traffic: dict[str, Positive] = {
        "nvlink": 1.0, "c2c": 1.0, "pcie": 1.0, "shm": 1.0, "net": 3.0, "socket": 1.0
    }  # fmt: skip
    receive_traffic: dict[str, Positive] = {
        "nvlink": 3.0, "c2c": 3.0, "pcie": 3.0, "shm": 1.0, "net": 3.0, "socket": 1.0
    }  # fmt: skip

    @model_validator(mode="after")
    def _has_all_kinds(self) -> InterferenceTerms:
        if set(self.send_traffic) != set(LINK_KINDS) or set(self.receive_traffic) != set(LINK_KINDS):
            raise ValueError("traffic is not given for exactly " + ", ".join(LINK_KINDS))
        return self


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
            what.append(f"{rows:,} queries, measured were {low:,} to {high:,}")
        if head_dim not in curve.fitted_head_dims:
            what.append(f"head dim {head_dim}, measured were {', '.join(map(str, curve.fitted_head_dims))}")
        return f"{kernel} {direction} on {self.name}: " + "; ".join(what) if what else None
