"""Fit of kernel curves: one efficiency per implementation and direction.

    minimise  sum over fitted rows of rho(ln(predicted / published)),       rho = soft L1 at 5 %

What a kernel does besides (tiles, dispatch, what masks, prologues and the power limit cost) is that of our model of the
kernel that is built alike, as measured on our own H100 (`validators/records/h100-sxm`): of flash-attention 2 and cuDNN
themselves, of cuDNN for the two on its tiles (flash-attention 3 and FFA, Hopper's warp-specialised kernels), of Triton
for the one that Triton compiles. These terms are written out, so that predictions of what others published stay when
we measure again; the rest of the profile is the published one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from cost_models.hardware import HardwareProfile, KernelPass, load_hardware
from cost_models.hardware.load import load_published
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA
from simulator.replay.sources.longca_block_sparse import KERNELS as BLOCK_SPARSE
from simulator.replay.sources.longca_block_sparse import LongcaBlockSparse
from simulator.replay.sources.magi_kernels import KERNELS, MagiKernels, is_dense
from traces.atomic import write_text_atomic

LONGEST_FIRST = {"longest_first": True, "in_order": False}
"""Flash-attention 3's persistent forward hands out the longest tiles first (hopper/tile_scheduler.hpp); FFA is made
from it."""

Structure = Mapping[str, tuple[str, dict[str, bool]]]
STRUCTURE: Structure = {
    "fa2": ("flash2", {}),
    "fa3": ("cudnn", LONGEST_FIRST),
    "cudnn-te": ("cudnn", {}),
    "sdpa": ("cudnn", {}),
    "sdpa-mask": ("flash2", {"masks_window_tiles": False}),
    "flex": ("triton", {}),
    "ffa": ("cudnn", LONGEST_FIRST),
    "flashmask": ("flash2", {}),
}
"""Our kernel that an implementation is built like, and what differs."""

WHOLE_GRID = ("flex", "flashmask")

TERMS = ("tile_rows", "tile_columns", "blocks_per_sm", "longest_first", "in_order", "alone_share", "masks_window_tiles",
         "masked_tile_cost", "skipped_tile_cost", "prologue_s", "varlen_s", "overhead_s", "boost_s", "sustained_loss",
         "sustained_s", "l2_miss_cost")  # fmt: skip
"""What is taken over."""

PINNED_BASE = ('base = "h100-sxm"', "calibrated = false")

FITTED_ON = (
    "magi-kernels: full, causal and sliding-window masks at 2K and 32K tokens, full documents at 16K (SDPA: full "
    "documents at 2K and 8K); time of a call from full documents at 1K (SDPA, FlexAttention: causal at 1K)"
)


def refit_magi_kernels() -> None:
    """Fit and write the curves and call times of `magi_kernels`."""
    source, base = MagiKernels(), load_hardware("h100-sxm")
    curves: dict[str, dict[str, float]] = {}
    call_s: dict[str, dict[str, float]] = {}
    published = {row["method"] for row in source.rows}
    for method, own in ((method, own) for method, own in KERNELS.items() if method in published):
        for direction in ("forward", "backward"):
            calls = [_published_s(source, row) for row in _one_k(source, method, direction)]
            call_s.setdefault(own, {})[direction] = min(calls)
        for kernel in (own, "sdpa-mask") if own == "sdpa" else (own,):
            curves[kernel] = fit_efficiencies(source, base, kernel, STRUCTURE)
    lines = ["# Fitted curves; made by python -m simulator.replay.refit magi-kernels", *PINNED_BASE,
             'default_kernel = "fa3"']  # fmt: skip
    for kernel, efficiencies in curves.items():
        lines += curve_lines(base, kernel, efficiencies, STRUCTURE)
    reference = (
        "MagiAttention docs, cp_benchmark @2c64135, rows of magi-kernels.fit.toml; all but the efficiency as measured "
        "on our H100 of the kernel that is built alike"
    )
    lines += ["", "[[source]]", 'terms = ["kernels"]', 'basis = "published"', f'reference = "{reference}"']
    write_text_atomic(DATA / f"{source.name}.hardware.toml", "\n".join(lines) + "\n")
    _write_calls(source, call_s)


def fit_efficiencies(source: MagiKernels, base: HardwareProfile, kernel: str, structure: Structure) -> dict[str, float]:
    """Efficiency of a kernel by direction, with the rest of its curve from the base's kernel that it is built like."""
    found = {}
    for direction in ("forward", "backward"):
        rows = [row for row in _fit_rows(source) if _is(source, row, kernel, direction)]
        found[direction] = _fit_pass(source, base, kernel, direction, structure, rows)
    return found


def _fit_rows(source: MagiKernels) -> Iterator[Row]:
    for row in source.rows:
        try:
            source.published(row), source.read(row)
        except Skip:
            continue
        if source.in_fit(row) and row["seq_len"] != "1024":
            yield row


def _one_k(source: MagiKernels, method: str, direction: str) -> list[Row]:
    rows = [row for row in source.rows if row["seq_len"] == "1024" and row["method"] == method and source.in_fit(row)]
    return [row for row in rows if source.read(row)[1] == direction]


def _is(source: MagiKernels, row: Row, kernel: str, direction: str) -> bool:
    mask, own, _ = source.read(row)
    of = "sdpa-mask" if is_dense(row["method"], mask) else KERNELS[row["method"]]
    return (of, own) == (kernel, direction)


def _published_s(source: MagiKernels, row: Row) -> float:
    return source.flop(row, *source.read(row)) / row.number("value") / 1e12


def _fit_pass(
    source: MagiKernels, base: HardwareProfile, kernel: str, direction: str, structure: Structure, rows: list[Row]
) -> float:
    published = np.array([_published_s(source, row) for row in rows])
    curve, like = base.kernels[structure[kernel][0]], _like(base, kernel, direction, structure)
    general = {"whole_grid": kernel in WHOLE_GRID, "general_masks": True}

    def residuals(x: Any) -> Any:
        changed = like.model_copy(update={"efficiency": ((128, float(x[0])),)})
        fitted = curve.model_copy(update={direction: changed, **general})
        profile = base.model_copy(update={"kernels": {kernel: fitted}})
        return np.log([source.kernel_s(profile, row, *source.read(row)) for row in rows] / published)

    found = least_squares(residuals, 0.4, bounds=(0.02, 0.99), loss="soft_l1", f_scale=0.05, diff_step=[1e-3])
    return float(found.x[0])


def _like(base: HardwareProfile, kernel: str, direction: str, structure: Structure) -> KernelPass:
    """One direction of our kernel that an implementation is built like, with what differs."""
    of, changes = structure[kernel]
    if changes is LONGEST_FIRST and direction == "backward":
        changes = {}
    return base.kernels[of].direction(direction).model_copy(update=changes)


def curve_lines(
    base: HardwareProfile, kernel: str, efficiencies: Mapping[str, float], structure: Structure
) -> list[str]:
    """Tables of one kernel in a hardware file."""
    lines = ["", f"[kernels.{kernel}]", "max_head_dim = 128", 'dtypes = ["bf16"]', "general_masks = true",
             f"whole_grid = {str(kernel in WHOLE_GRID).lower()}"]  # fmt: skip
    for direction, efficiency in efficiencies.items():
        like = _like(base, kernel, direction, structure)
        lines += ["", f"[kernels.{kernel}.{direction}]", f"efficiency = {{ 128 = {efficiency:.4g} }}"]
        lines += [f"{name} = {_toml(getattr(like, name))}" for name in TERMS]
        lines += ["fitted_rows = [2048, 32768]", "fitted_head_dims = [128]"]
    return lines


def _write_calls(source: MagiKernels, call_s: Mapping[str, Mapping[str, float]]) -> None:
    tables = [
        f"[constants.call_s.{kernel}]\n" + "".join(f"{d} = {s:.4g}\n" for d, s in by.items())
        for kernel, by in call_s.items()
    ]
    text = (
        "# Made by python -m simulator.replay.refit magi-kernels\n"
        + f'fitted_on = "{FITTED_ON}"\n\n'
        + "\n".join(tables)
    )
    write_text_atomic(DATA / f"{source.name}.fit.toml", text)


def _toml(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def refit_longca_block_sparse() -> None:
    """Efficiency of the gathering kernels, from two rows each; all else as published of flash-attention 2."""
    source, base = LongcaBlockSparse(), load_published("h100-sxm")
    curve = MagiKernels().hardware.kernels["fa2"]
    gathering = KernelPass(**{name: getattr(curve.forward, name) for name in GATHERING})
    lines = ["# Fitted; made by python -m simulator.replay.refit longca-block-sparse", *PINNED_BASE]
    for method, kernel in BLOCK_SPARSE.items():
        rows = [row for row in source.rows if row["method"] == method and source.in_fit(row)]
        published = np.array([source.published(row)[0] for row in rows])

        def residuals(x: Any, rows: list[Row] = rows, published: Any = published, kernel: str = kernel) -> Any:
            terms = {"efficiency": ((128, float(x[0])),)}
            fitted = curve.model_copy(update={"forward": gathering.model_copy(update=terms)})
            profile = base.model_copy(update={"kernels": {kernel: fitted}})
            return np.log([source.throughput(profile, row) for row in rows] / published)

        found = least_squares(residuals, 0.4, bounds=(0.05, 0.999), diff_step=[1e-3])
        lines += _block_sparse_lines(kernel, gathering, found.x)
    lines += ["", "[[source]]", 'terms = ["kernels"]', 'basis = "published"', f'reference = "{BLOCK_SPARSE_ROWS}"']
    write_text_atomic(DATA / f"{source.name}.hardware.toml", "\n".join(lines) + "\n")
    write_text_atomic(DATA / f"{source.name}.fit.toml", f'fitted_on = "{BLOCK_SPARSE_ROWS}"\n')


GATHERING = ("tile_rows", "tile_columns", "blocks_per_sm", "longest_first", "efficiency", "overhead_s", "prologue_s",
             "fitted_rows", "fitted_head_dims")  # fmt: skip
"""Terms of a gathering kernel that the fit is made with, which are those that are written."""

BLOCK_SPARSE_ROWS = "longca-block-sparse: Table 3, blocks of 128, half of them kept, 16K and 128K tokens"


def _block_sparse_lines(kernel: str, like: KernelPass, fitted: Any) -> list[str]:
    """Tables of one kernel; backward is nobody's, and has forward's numbers."""
    lines = ["", f"[kernels.{kernel}]", "max_head_dim = 128", 'dtypes = ["bf16"]', "general_masks = true"]
    for direction in ("forward", "backward"):
        lines += ["", f"[kernels.{kernel}.{direction}]"]
        lines += [f"{name} = {getattr(like, name)}" for name in ("tile_rows", "tile_columns", "blocks_per_sm")]
        lines += [
            "longest_first = false",
            f"efficiency = {{ 128 = {fitted[0]:.4g} }}",
            f"overhead_s = {like.overhead_s:g}",
        ]
        lines += [f"prologue_s = {like.prologue_s:g}"]
        lines += ["fitted_rows = [16384, 131072]", "fitted_head_dims = [128]"]
    return lines
