"""Fit of kernel curves: per implementation and direction efficiency, prologue, cost of masking and varlen cost.

    minimise  sum over fitted rows of rho(ln(predicted / published)),       rho = soft L1 at 5 %

Physical bounds: efficiency below 1, times up to 40 us, masking at most six tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from cost_models.hardware import HardwareProfile, KernelPass, load_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA
from simulator.replay.sources.longca_block_sparse import KERNELS as BLOCK_SPARSE
from simulator.replay.sources.longca_block_sparse import LongcaBlockSparse
from simulator.replay.sources.magi_kernels import KERNELS, MagiKernels, is_dense
from traces.atomic import write_text_atomic

STRUCTURE = {
    "fa2": ("flash2", {}),
    "fa3": ("flash3", {}),
    "cudnn-te": ("cudnn", {}),
    "sdpa": ("cudnn", {}),
    "sdpa-mask": ("flash2", {"masks_window_tiles": False}),
    "flex": ("flex", {}),
    "ffa": ("flash3", {}),
    "flashmask": ("flash2", {}),
}
"""Kernel of h100-sxm whose tiles an implementation has, and what differs."""

WHOLE_GRID = ("flex", "flashmask")
SEARCHING = ("flashmask",)
"""Implementations that look at every tile's interval of masked rows, and skip it."""

NAMES = ("efficiency", "prologue_s", "masked_tile_cost", "varlen_s", "skipped_tile_cost")
UNITS = np.array([1, 1e-6, 1, 1e-6, 1])
START, LOWEST, HIGHEST = (0.4, 2.0, 1.3, 1.0, 0.01), (0.02, 0.0, 1.0, 0.0, 0.0), (0.99, 40.0, 6.0, 40.0, 0.3)


FITTED_ON = (
    "magi-kernels: full, causal and sliding-window masks at 2K and 32K tokens, full documents at 16K (SDPA: full "
    "documents at 2K and 8K); time of a call from full documents at 1K (SDPA, FlexAttention: causal at 1K)"
)


def refit_magi_kernels() -> None:
    """Fit and write the curves and call times of `magi_kernels`."""
    source = MagiKernels()
    base = load_hardware("h100-sxm")
    curves: dict[str, dict[str, dict[str, float]]] = {}
    call_s: dict[str, dict[str, float]] = {}
    published = {row["method"] for row in source.rows}
    for method, own in ((method, own) for method, own in KERNELS.items() if method in published):
        for kernel in (own, "sdpa-mask") if own == "sdpa" else (own,):
            for direction in ("forward", "backward"):
                rows = [
                    row for row in _fit_rows(source) if row["method"] == method and _is(source, row, kernel, direction)
                ]
                calls = [_published_s(source, row) for row in _one_k(source, method, direction)]
                call_s.setdefault(own, {})[direction] = min(calls)
                curves.setdefault(kernel, {})[direction] = _fit_pass(source, base, kernel, direction, rows)
    _write(source, base, curves, call_s)


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
    dense = kernel == "sdpa-mask"
    mask, own, _ = source.read(row)
    return own == direction and dense == is_dense(row["method"], mask)


def _published_s(source: MagiKernels, row: Row) -> float:
    return source.flop(row, *source.read(row)) / row.number("value") / 1e12


def _fit_pass(
    source: MagiKernels, base: HardwareProfile, kernel: str, direction: str, rows: list[Row]
) -> dict[str, float]:
    published = np.array([_published_s(source, row) for row in rows])

    def residuals(x: Any) -> Any:
        profile = _with_curve(base, kernel, direction, x)
        return np.log([source.kernel_s(profile, row, *source.read(row)) for row in rows] / published)

    count = len(NAMES) if kernel in SEARCHING else len(NAMES) - 1
    bounds = (LOWEST[:count], HIGHEST[:count])
    found = least_squares(residuals, START[:count], bounds=bounds, x_scale=(0.1, 1, 0.5, 1, 0.01)[:count],
                          loss="soft_l1", f_scale=0.05, diff_step=[1e-3] * count)  # fmt: skip
    return dict(zip(NAMES, found.x * UNITS[:count], strict=False))


def _with_curve(base: HardwareProfile, kernel: str, direction: str, x: Any) -> HardwareProfile:
    of, changes = STRUCTURE[kernel]
    curve = base.kernels[of]
    values = dict(zip(NAMES, (x * UNITS[: len(x)]).tolist(), strict=False))
    terms = {**values, "efficiency": ((128, values["efficiency"]),), **changes}
    changed = curve.direction(direction).model_copy(update=terms)
    fitted = curve.model_copy(update={direction: changed, "whole_grid": kernel in WHOLE_GRID, "general_masks": True})
    return base.model_copy(update={"kernels": {kernel: fitted}})


def _write(
    source: MagiKernels,
    base: HardwareProfile,
    curves: Mapping[str, Mapping[str, Mapping[str, float]]],
    call_s: Mapping[str, Mapping[str, float]],
) -> None:
    lines = ["# Fitted curves; made by python -m simulator.replay.refit magi-kernels", 'base = "h100-sxm"',
             'default_kernel = "fa3"']  # fmt: skip
    for kernel, passes in curves.items():
        of, changes = STRUCTURE[kernel]
        lines += ["", f"[kernels.{kernel}]", "max_head_dim = 128", 'dtypes = ["bf16"]', "general_masks = true",
                  f"whole_grid = {str(kernel in WHOLE_GRID).lower()}"]  # fmt: skip
        for direction, fitted in passes.items():
            like = base.kernels[of].direction(direction)
            window = changes.get("masks_window_tiles", like.masks_window_tiles)
            lines += ["", f"[kernels.{kernel}.{direction}]"]
            lines += [f"{name} = {getattr(like, name)}" for name in ("tile_rows", "tile_columns", "blocks_per_sm")]
            lines += [
                f"longest_first = {str(like.longest_first).lower()}",
                f"masks_window_tiles = {str(window).lower()}",
            ]
            lines += [f"efficiency = {{ 128 = {fitted['efficiency']:.4g} }}", f"overhead_s = {like.overhead_s:g}"]
            lines += [f"{name} = {fitted[name]:.4g}" for name in NAMES[1:] if name in fitted]
            lines += ["fitted_rows = [2048, 32768]", "fitted_head_dims = [128]"]
    lines += [
        "",
        "[[source]]",
        'terms = ["kernels"]',
        'basis = "published"',
        'reference = "MagiAttention docs, cp_benchmark @2c64135, rows of magi-kernels.fit.toml; tiles as h100-sxm"',
    ]
    write_text_atomic(DATA / f"{source.name}.hardware.toml", "\n".join(lines) + "\n")
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


def refit_longca_block_sparse() -> None:
    """Efficiency of the gathering kernels, from two rows each; all else as published of flash-attention 2."""
    source, base = LongcaBlockSparse(), load_hardware("h100-sxm")
    curve = MagiKernels().hardware.kernels["fa2"]
    gathering = KernelPass(**{name: getattr(curve.forward, name) for name in GATHERING})
    lines = ["# Fitted; made by python -m simulator.replay.refit longca-block-sparse", 'base = "h100-sxm"']
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
