"""Prices kernels: attention per distinct lowering, memory-bound kernels by their bytes, products by their sizes.

device_ns = round(1e9 seconds),  seconds by `cost_models.kernels`
host_ns   = launches x launch_s
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import cast

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import (
    AttentionShape,
    AttentionTimes,
    attention_launches,
    attention_workspace_bytes,
    estimate_elementwise_s,
    estimate_gemm_s,
    estimate_stencil_s,
    launches_apart,
    launches_of,
    put_together_bytes,
    put_together_launches,
)
from cost_models.masks import Lowering
from simulator.prices import Prices, array_to_ns, shrink, to_ns
from simulator.program.lowered import LoweringColumn
from simulator.program.operations import Attention, Column, Elementwise, Gemm, Operation, Stencil


class KernelCosts:
    """Costs of kernels on one GPU.

    Parameters
    ----------
    profile : the GPU.
    kernel : attention kernel, as in ``profile.kernels``.
    prices : of the same GPU and kernel, to use and to add to.
    """

    def __init__(self, profile: HardwareProfile, kernel: str, prices: Prices) -> None:
        self._profile, self._kernel = profile, kernel
        self._priced, self._tables, self._prices = prices.of, prices.tables, prices
        self._kernel_ns = to_ns(profile.host.kernel_s)

    def workspace_bytes(self, operation: Operation) -> Column:
        """Memory an operation needs while it runs besides its buffers, on each rank."""
        work = operation.work
        if not isinstance(work, Attention):
            return 0
        direction, executed = work.direction, self._profile.host.cold
        if direction == "forward" and not executed:
            return 0
        shape, delta, curve = attention_shape(work), work.precomputed_delta, self._profile.kernel(self._kernel)

        def need(lowering: Lowering, _: int) -> int:
            launches = launches_apart(curve, lowering.calls)
            needed = [
                attention_workspace_bytes(self._kernel, each, shape, precomputed_delta=delta)
                for each in (launches if direction == "backward" else ())
            ]
            workspace = max(needed, default=0)
            return put_together_bytes(launches, shape, direction, workspace) if executed else workspace

        return self._prices.per_lowering(("workspace", shape, delta, direction), work.lowering, need)

    def _put_together_launches(self, work: Attention) -> Column:
        """Memory-bound kernels that put together what several launches made of the same rows, on each rank."""
        if not self._profile.host.cold:
            return 0
        shape, curve = attention_shape(work), self._profile.kernel(self._kernel)

        def count(lowering: Lowering, _: int) -> int:
            return put_together_launches(launches_apart(curve, lowering.calls), shape, work.direction)

        return self._prices.per_lowering(("put together", shape, work.direction), work.lowering, count)

    def _launches(self, work: Attention) -> Column:
        """Attention calls that each rank launches."""
        curve = self._profile.kernel(self._kernel)
        if curve.varlen and curve.windows:
            return work.lowering.gather(work.lowering.table.launches)

        def count(lowering: Lowering, _: int) -> int:
            return sum(len(launches_of(curve, call)) for call in lowering.calls)

        return self._prices.per_lowering("launches", work.lowering, count)

    def _attention_host_ns(self, work: Attention) -> int:
        """Time to issue one attention call."""
        host = self._profile.host
        if host.cold and (known := host.kinds.get(f"{self._kernel}_{work.direction}")) is not None:
            return to_ns(known)
        host_s = self._profile.kernel(self._kernel).direction(work.direction, work.head_dim).host_s
        return to_ns(host_s) if host_s else attention_launches(self._kernel, work.direction) * self._kernel_ns

    def _attention(self, work: Attention, worked_s: float) -> Column:
        column, key, price = self._attention_price(work, worked_s)
        return self._prices.per_lowering(key, column, price)

    def _attention_price(
        self, work: Attention, worked_s: float
    ) -> tuple[LoweringColumn, Hashable, Callable[[Lowering, int], int]]:
        """The lowerings that are launched, what tells their prices, and the price of one."""
        shape, direction, delta = attention_shape(work), work.direction, work.precomputed_delta
        column, kernel, share = work.lowering, self._kernel, 1.0
        if work.sparse is not None:
            column, share = work.sparse.within, work.sparse.share
            kernel = work.sparse.kernel if work.sparse.kernel in self._profile.kernels else kernel

        times = self._times(kernel, shape, direction, delta, share)

        def price(lowering: Lowering, _: int) -> int:
            return to_ns(times.calls_s(lowering.calls, worked_s))

        return column, (shape, direction, delta, worked_s, share, kernel), price

    def _times(
        self, kernel: str, shape: AttentionShape, direction: str, precomputed_delta: bool, share: float = 1.0
    ) -> AttentionTimes:
        key = kernel, shape, direction, precomputed_delta, share
        if key not in self._prices.attention:
            self._prices.attention[key] = AttentionTimes(self._profile, *key)
        return self._prices.attention[key]

    def _elementwise(self, work: Elementwise) -> Column:
        if work.lowering is None:
            return self._bytes(work.pattern, work.bytes_read, work.bytes_written)
        covered = work.lowering.table.covered(work.side)

        def price(_: Lowering, number: int) -> int:
            tokens = int(covered[number])
            read, written = tokens * work.bytes_read, tokens * work.bytes_written
            return to_ns(float(estimate_elementwise_s(self._profile, read, written, work.pattern)))

        key = (work.pattern, work.bytes_read, work.bytes_written, work.side)
        return self._prices.per_lowering(key, work.lowering, price)

    def _bytes(self, pattern: str, read: Column, written: Column) -> Column:
        if isinstance(read, int) and isinstance(written, int):
            key = (pattern, read, written)
            if key not in self._priced:
                self._priced[key] = to_ns(float(estimate_elementwise_s(self._profile, read, written, pattern)))
            return self._priced[key]
        return array_to_ns(np.asarray(estimate_elementwise_s(self._profile, read, written, pattern)))

    def _gemm(self, work: Gemm, worked_s: float = 0.0) -> Column:
        if isinstance(work.m, int) and isinstance(work.planes, int):
            return self._gemm_ns(work, work.m, work.planes, worked_s)
        rows = np.stack(np.broadcast_arrays(work.m, work.planes), axis=1)
        distinct, index = np.unique(rows, axis=0, return_inverse=True)
        prices = [self._gemm_ns(work, int(m), int(planes), worked_s) for m, planes in distinct]
        return np.array(prices, dtype=np.int64)[index.reshape(-1)]

    def _gemm_ns(self, work: Gemm, m: int, planes: int, worked_s: float) -> int:
        limited = self._profile.gemm.sustained_loss or self._profile.power.deep_loss
        worked_s = worked_s if limited else 0.0
        key = ("gemm", m, planes, work.shapes, work.dtype, work.weight_bits, work.over_rows, worked_s)
        if key not in self._priced:
            dtype, bits = work.dtype, work.weight_bits
            sizes = gemm_sizes(work, m)
            profile = self._profile
            seconds = sum(estimate_gemm_s(profile, *size, dtype, bits, planes, worked_s=worked_s) for size in sizes)
            self._priced[key] = to_ns(seconds)
        return cast(int, self._priced[key])

    def _stencil(self, work: Stencil) -> Column:
        columns = np.broadcast_arrays(*map(np.atleast_1d, (work.bytes_read, work.bytes_written, work.flop)))
        distinct, index = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        seconds = [estimate_stencil_s(self._profile, *map(int, row)) for row in distinct]
        return shrink(array_to_ns(np.array(seconds))[index.reshape(-1)])


def attention_shape(work: Attention) -> AttentionShape:
    """What an attention kernel's price depends on besides its calls."""
    return AttentionShape(
        work.batch, work.heads, work.kv_heads, work.head_dim, work.v_head_dim, work.dtype, work.row_bytes
    )


def gemm_sizes(work: Gemm, m: int) -> list[tuple[int, int, int]]:
    """Size (m, n, k) of each product, for so many rows."""
    return [(n, k, m) if work.over_rows else (m, n, k) for n, k in work.shapes]
