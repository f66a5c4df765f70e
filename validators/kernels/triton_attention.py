"""Flash attention over bands from a table: the Triton code behind `triton.TritonKernel`.

A segment's rows i and columns j (counted from its first) meet where `low <= j - i <= high`; unbounded is far out. The
work of one program is a tile of rows (forward, dQ) or of columns (dK, dV) of one segment, a line of the table

    first, stop        the tile's rows (columns) in the tensors: [first, min(first + tile, stop))
    other_first, other_stop, from, to, inner_from, inner_to
                       the segment's columns (rows), those that the tile visits, and the inner ones no mask cuts
    low, high          the band on absolute positions, of columns minus rows

so one launch does any number of segments, whose columns may overlap (forward): packed documents, or APB's mask, where
the anchor's rows see the anchor and the local rows see [passed | anchor | local] up to themselves. Programs of one head
and batch row follow each other, longest first.

Forward keeps the running maximum m, sum l and unnormalised output acc of online softmax in base 2. Given a running
(O, LSE) of other keys it starts from m = LSE, l = 1, acc = O, and so merges in the kernel (Burst's LAO, which carries
(m, lse, acc); normalised, m and lse are one). Backward takes delta.

Source: Dao 2023 (arXiv 2307.08691), algorithms 1 and 2; Sun et al. 2024 (arXiv 2403.09347) section 3.2 (LAO).
"""

from __future__ import annotations

from validators.kernels.interpreter import tl, triton

LOG2_E = tl.constexpr(1.4426950408889634)
LINE = tl.constexpr(10)


@triton.jit
def _head(tensor, batch, head, stride_b, stride_h):
    return tensor + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h


@triton.jit
def _rows(start, rows, stop, dims, stride, width):
    """Load [rows, dims], zero beyond the tensor's part."""
    at = start + rows[:, None].to(tl.int64) * stride + dims[None, :]
    return tl.load(at, mask=(rows < stop)[:, None] & (dims < width)[None, :], other=0.0)


@triton.jit
def _put(start, rows, stop, dims, stride, width, value):
    at = start + rows[:, None].to(tl.int64) * stride + dims[None, :]
    tl.store(at, value.to(start.dtype.element_ty), mask=(rows < stop)[:, None] & (dims < width)[None, :])


@triton.jit
def _visit(
    acc, m, total, q, k, v, rows, dims, v_dims, begin, end, stop, low, high, scale, k_n, v_n, width, v_width,
    CUT: tl.constexpr, TILE_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Online softmax over columns [begin, end); CUT where the band or the segment's end may cut a tile."""
    for start in range(begin, end, TILE_N):
        columns = start + tl.arange(0, TILE_N)
        keys = _rows(k, columns, stop, dims, k_n, width)
        score = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        if CUT:
            apart = columns[None, :] - rows[:, None]
            seen = (apart >= low) & (apart <= high) & (columns < stop)[None, :]
            score = tl.where(seen, score, float("-inf"))
        new = tl.maximum(m, tl.max(score, axis=1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        p, shrink = tl.exp2(score - safe[:, None]), tl.exp2(m - safe)
        total = total * shrink + tl.sum(p, axis=1)
        values = _rows(v, columns, stop, v_dims, v_n, v_width)
        acc = acc * shrink[:, None] + tl.dot(p.to(values.dtype), values, input_precision=PRECISION)
        m = new
    return acc, m, total


@triton.jit
def forward(
    q, k, v, o, lse, table, heads, group, scale,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, o_b, o_n, o_h, l_b, l_h, width, v_width,
    RUNNING: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(O, LSE) of a tile of rows."""
    line, batch, head = table + tl.program_id(0) * LINE, tl.program_id(1) // heads, tl.program_id(1) % heads
    first, row_stop, stop = tl.load(line), tl.load(line + 1), tl.load(line + 3)
    begin, end, inner_begin, inner_end = (
        tl.load(line + 4), tl.load(line + 5), tl.load(line + 6), tl.load(line + 7),
    )  # fmt: skip
    low, high = tl.load(line + 8), tl.load(line + 9)
    rows, dims, v_dims = first + tl.arange(0, TILE_M), tl.arange(0, D), tl.arange(0, DV)
    k, v = _head(k, batch, head // group, k_b, k_h), _head(v, batch, head // group, v_b, v_h)
    mine = _rows(_head(q, batch, head, q_b, q_h), rows, row_stop, dims, q_n, width)
    o, lse_at = _head(o, batch, head, o_b, o_h), _head(lse, batch, head, l_b, l_h) + rows
    if RUNNING:
        m = tl.load(lse_at, mask=rows < row_stop, other=float("-inf")).to(tl.float32) * LOG2_E
        total = tl.where(m == float("-inf"), 0.0, 1.0)
        acc = _rows(o, rows, row_stop, v_dims, o_n, v_width).to(tl.float32) * total[:, None]
    else:
        m = tl.full([TILE_M], float("-inf"), tl.float32)
        total = tl.zeros([TILE_M], tl.float32)
        acc = tl.zeros([TILE_M, DV], tl.float32)
    acc, m, total = _visit(
        acc, m, total, mine, k, v, rows, dims, v_dims, begin, inner_begin, stop, low, high, scale, k_n, v_n, width,
        v_width, True, TILE_N, PRECISION,
    )  # fmt: skip
    acc, m, total = _visit(
        acc, m, total, mine, k, v, rows, dims, v_dims, inner_begin, inner_end, stop, low, high, scale, k_n, v_n, width,
        v_width, False, TILE_N, PRECISION,
    )  # fmt: skip
    acc, m, total = _visit(
        acc, m, total, mine, k, v, rows, dims, v_dims, inner_end, end, stop, low, high, scale, k_n, v_n, width, v_width,
        True, TILE_N, PRECISION,
    )  # fmt: skip
    nothing = total == 0.0
    divisor = tl.where(nothing, 1.0, total)
    _put(o, rows, row_stop, v_dims, o_n, v_width, acc / divisor[:, None])
    final = tl.where(nothing, float("-inf"), m + tl.log2(divisor)) / LOG2_E
    tl.store(lse_at, final, mask=rows < row_stop)


@triton.jit
def _probabilities(score, lse, rows, columns, row_stop, column_stop, low, high, CUT: tl.constexpr):
    """P [rows, columns] from scores and LSE in base 2; rows without keys have 0."""
    p = tl.exp2(score - tl.where(lse == float("-inf"), 0.0, lse)[:, None])
    if CUT:
        apart = columns[None, :] - rows[:, None]
        seen = (apart >= low) & (apart <= high) & (columns < column_stop)[None, :] & (rows < row_stop)[:, None]
        p = tl.where(seen, p, 0.0)
    return p


@triton.jit
def _statistics(lse, delta, rows, stop):
    there = rows < stop
    base_2 = tl.load(lse + rows, mask=there, other=0.0).to(tl.float32) * LOG2_E
    return base_2, tl.load(delta + rows, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _visit_columns(
    dq, q, do, lse, delta, k, v, rows, dims, v_dims, begin, end, row_stop, stop, low, high, scale, k_n, v_n, width,
    v_width, CUT: tl.constexpr, TILE_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ (unscaled) of a tile of rows over columns [begin, end)."""
    for start in range(begin, end, TILE_N):
        columns = start + tl.arange(0, TILE_N)
        keys = _rows(k, columns, stop, dims, k_n, width)
        score = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        p = _probabilities(score, lse, rows, columns, row_stop, stop, low, high, CUT)
        values = _rows(v, columns, stop, v_dims, v_n, v_width)
        dp = tl.dot(do, tl.trans(values), input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq += tl.dot(ds.to(keys.dtype), keys, input_precision=PRECISION)
    return dq


@triton.jit
def backward_q(
    q, k, v, do, lse, delta, dq, table, heads, group, scale, factor,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, o_b, o_n, o_h, l_b, l_h, r_b, r_h, g_b, g_n, g_h, width, v_width,
    D: tl.constexpr, DV: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of a tile of rows."""
    line, batch, head = table + tl.program_id(0) * LINE, tl.program_id(1) // heads, tl.program_id(1) % heads
    first, row_stop, stop = tl.load(line), tl.load(line + 1), tl.load(line + 3)
    begin, end, inner_begin, inner_end = (
        tl.load(line + 4), tl.load(line + 5), tl.load(line + 6), tl.load(line + 7),
    )  # fmt: skip
    low, high = tl.load(line + 8), tl.load(line + 9)
    rows, dims, v_dims = first + tl.arange(0, TILE_M), tl.arange(0, D), tl.arange(0, DV)
    k, v = _head(k, batch, head // group, k_b, k_h), _head(v, batch, head // group, v_b, v_h)
    mine = _rows(_head(q, batch, head, q_b, q_h), rows, row_stop, dims, q_n, width)
    change = _rows(_head(do, batch, head, o_b, o_h), rows, row_stop, v_dims, o_n, v_width)
    base_2, dot = _statistics(_head(lse, batch, head, l_b, l_h), _head(delta, batch, head, r_b, r_h), rows, row_stop)
    total = tl.zeros([TILE_M, D], tl.float32)
    total = _visit_columns(
        total, mine, change, base_2, dot, k, v, rows, dims, v_dims, begin, inner_begin, row_stop, stop, low, high,
        scale, k_n, v_n, width, v_width, True, TILE_N, PRECISION,
    )  # fmt: skip
    total = _visit_columns(
        total, mine, change, base_2, dot, k, v, rows, dims, v_dims, inner_begin, inner_end, row_stop, stop, low, high,
        scale, k_n, v_n, width, v_width, False, TILE_N, PRECISION,
    )  # fmt: skip
    total = _visit_columns(
        total, mine, change, base_2, dot, k, v, rows, dims, v_dims, inner_end, end, row_stop, stop, low, high, scale,
        k_n, v_n, width, v_width, True, TILE_N, PRECISION,
    )  # fmt: skip
    _put(_head(dq, batch, head, g_b, g_h), rows, row_stop, dims, g_n, width, total * factor)


@triton.jit
def _visit_rows(
    dk, dv, k, v, q, do, lse, delta, columns, dims, v_dims, begin, end, row_stop, stop, low, high, scale, q_n, o_n,
    width, v_width, CUT: tl.constexpr, TILE_M: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK (unscaled) and dV of a tile of columns over rows [begin, end); scores are transposed: P^T is at hand."""
    for start in range(begin, end, TILE_M):
        rows = start + tl.arange(0, TILE_M)
        queries = _rows(q, rows, row_stop, dims, q_n, width)
        change = _rows(do, rows, row_stop, v_dims, o_n, v_width)
        base_2, dot = _statistics(lse, delta, rows, row_stop)
        score = tl.dot(k, tl.trans(queries), input_precision=PRECISION) * scale
        p = tl.exp2(score - tl.where(base_2 == float("-inf"), 0.0, base_2)[None, :])
        if CUT:
            apart = columns[:, None] - rows[None, :]
            seen = (apart >= low) & (apart <= high) & (columns < stop)[:, None] & (rows < row_stop)[None, :]
            p = tl.where(seen, p, 0.0)
        dv += tl.dot(p.to(change.dtype), change, input_precision=PRECISION)
        dp = tl.dot(v, tl.trans(change), input_precision=PRECISION)
        ds = p * (dp - dot[None, :])
        dk += tl.dot(ds.to(queries.dtype), queries, input_precision=PRECISION)
    return dk, dv


@triton.jit
def backward_kv(
    q, k, v, do, lse, delta, dk, dv, table, heads, group, scale, factor,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, o_b, o_n, o_h, l_b, l_h, r_b, r_h, gk_b, gk_n, gk_h, gv_b, gv_n, gv_h,
    width, v_width,
    D: tl.constexpr, DV: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of columns, from one query head."""
    line, batch, head = table + tl.program_id(0) * LINE, tl.program_id(1) // heads, tl.program_id(1) % heads
    first, stop, row_stop = tl.load(line), tl.load(line + 1), tl.load(line + 3)
    begin, end, inner_begin, inner_end = (
        tl.load(line + 4), tl.load(line + 5), tl.load(line + 6), tl.load(line + 7),
    )  # fmt: skip
    low, high = tl.load(line + 8), tl.load(line + 9)
    columns, dims, v_dims = first + tl.arange(0, TILE_N), tl.arange(0, D), tl.arange(0, DV)
    keys = _rows(_head(k, batch, head // group, k_b, k_h), columns, stop, dims, k_n, width)
    values = _rows(_head(v, batch, head // group, v_b, v_h), columns, stop, v_dims, v_n, v_width)
    total_k, total_v = tl.zeros([TILE_N, D], tl.float32), tl.zeros([TILE_N, DV], tl.float32)
    queries, change = _head(q, batch, head, q_b, q_h), _head(do, batch, head, o_b, o_h)
    base_2, dot = _head(lse, batch, head, l_b, l_h), _head(delta, batch, head, r_b, r_h)
    total_k, total_v = _visit_rows(
        total_k, total_v, keys, values, queries, change, base_2, dot, columns, dims, v_dims, begin, inner_begin,
        row_stop, stop, low, high, scale, q_n, o_n, width, v_width, True, TILE_M, PRECISION,
    )  # fmt: skip
    total_k, total_v = _visit_rows(
        total_k, total_v, keys, values, queries, change, base_2, dot, columns, dims, v_dims, inner_begin, inner_end,
        row_stop, stop, low, high, scale, q_n, o_n, width, v_width, False, TILE_M, PRECISION,
    )  # fmt: skip
    total_k, total_v = _visit_rows(
        total_k, total_v, keys, values, queries, change, base_2, dot, columns, dims, v_dims, inner_end, end, row_stop,
        stop, low, high, scale, q_n, o_n, width, v_width, True, TILE_M, PRECISION,
    )  # fmt: skip
    _put(_head(dk, batch, head, gk_b, gk_h), columns, stop, dims, gk_n, width, total_k * factor)
    _put(_head(dv, batch, head, gv_b, gv_h), columns, stop, v_dims, gv_n, v_width, total_v)
