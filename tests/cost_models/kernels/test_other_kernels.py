"""Memory-bound kernels, matrix products, launches, and which attention kernel is chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.hardware import load_hardware
from cost_models.hardware.dense import PATTERNS
from cost_models.kernels import attention_launches, choose_kernel, estimate_elementwise_s, estimate_gemm_s
from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from traces.errors import InputError

H100 = load_hardware("h100-sxm")
sizes = st.integers(1, 4000)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_elementwise_is_overhead_and_bytes(pattern):
    share = H100.elementwise.efficiency[pattern]
    expected = H100.elementwise.overhead_s + 3e9 / (share * 3.35e12)
    assert estimate_elementwise_s(H100, 10**9, 2 * 10**9, pattern) == pytest.approx(expected)


def test_elementwise_of_columns_and_of_nothing():
    column = estimate_elementwise_s(H100, np.array([0, 4, 2**30]), np.array([0, 0, 2**30]), "copy")
    assert column[0] == 0
    assert column.tolist() == [estimate_elementwise_s(H100, r, w, "copy") for r, w in ((0, 0), (4, 0), (2**30, 2**30))]
    with pytest.raises(InputError, match="unknown access pattern"):
        estimate_elementwise_s(H100, 1, 1, "shuffle")


@given(m=sizes, n=sizes, k=sizes)
def test_gemm_is_bounded_by_peak_and_memory_and_symmetric_in_waves(m, n, k):
    seconds = estimate_gemm_s(H100, m, n, k, "bf16")
    assert seconds >= 2 * m * n * k / H100.peak("bf16")
    assert seconds >= 2 * (m * k + k * n + m * n) / H100.hbm_bytes_per_s
    assert estimate_gemm_s(H100, m, n, k + 64, "bf16") >= seconds
    assert estimate_gemm_s(H100, m + 128, n, k, "bf16") >= seconds


def test_gemm_counts_whole_waves_of_tiles_of_which_it_takes_the_fastest():
    costs = H100.gemm.model_copy(update={"boost_s": 1.0})
    free = H100.model_copy(update={"gemm": costs})
    one_s = 2 * 128 * 256 * 8192 * 132 / (costs.efficiency * H100.peak("bf16")) + costs.prologue_s
    one = estimate_gemm_s(free, 128 * 12, 256 * 11, 8192, "bf16")
    assert one == pytest.approx(costs.overhead_s + one_s)
    more = estimate_gemm_s(free, 128 * 12, 256 * 11 + 1, 8192, "bf16")
    assert costs.overhead_s + 1.1 * one_s < more < costs.overhead_s + 2 * one_s


def test_smaller_tiles_fill_a_wave_that_large_ones_leave_half_empty():
    """Records of an H100: 1536 x 4096 over 14336 takes 229 us where two waves of 128 x 256 would take 295."""
    assert estimate_gemm_s(H100, 1536, 4096, 14336, "bf16") == pytest.approx(229e-6, rel=0.05)
    assert estimate_gemm_s(H100, 512, 10240, 8192, "bf16") == pytest.approx(118e-6, rel=0.05)


def test_short_sums_pay_for_filling_their_tiles():
    """Records of an H100: 24576 x 2048 over 512 takes 86 us, over 2048 266, over 5632 698."""
    for k, seconds in ((512, 86e-6), (2048, 266e-6), (5632, 698e-6)):
        assert estimate_gemm_s(H100, 24576, 2048, k, "bf16") == pytest.approx(seconds, rel=0.06)


def test_gemm_of_few_tiles_splits_what_is_summed():
    """Records of an H100, `validators/records`: dw of 512 x 2048 over 24576 tokens takes 74 us, not 264."""
    assert estimate_gemm_s(H100, 512, 2048, 24576, "bf16") == pytest.approx(74e-6, rel=0.1)
    assert estimate_gemm_s(H100, 4096, 16, 32768, "bf16") < 3 * (4096 + 16) * 32768 * 2 / H100.hbm_bytes_per_s
    short = estimate_gemm_s(H100, 512, 2048, 512, "bf16")
    assert H100.gemm.overhead_s + H100.gemm.prologue_s < estimate_gemm_s(H100, 512, 2048, 256, "bf16") < short


def test_gemm_of_nothing_and_of_unknown_dtype():
    assert estimate_gemm_s(H100, 0, 8, 8, "bf16") == 0
    with pytest.raises(InputError, match="no matrix units"):
        estimate_gemm_s(H100, 8, 8, 8, "int4")


def test_launches():
    assert [attention_launches(kernel, "forward") for kernel in H100.kernels] == [1] * len(H100.kernels)
    assert [attention_launches(kernel, "backward") for kernel in ("flash2", "cudnn", "flex", "mine")] == [3, 1, 2, 3]


def workload(mask="causal", head_dim=128, dtype="bf16", seq_len=8192):
    return AttentionWorkload(1, seq_len, 32, 8, head_dim, head_dim, dtype, parse_mask(mask, seq_len))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("h100-sxm", {}, "cudnn"),
        ("a100-80", {}, "flash2"),
        ("b200", {"head_dim": 256}, "flash2"),
        ("h100-sxm", {"dtype": "fp8"}, "flash3"),
        ("h100-sxm", {"dtype": "fp32"}, "flex"),
        ("h100-sxm", {"mask": "block-sparse:block=64,keep=0.3,seed=1", "seq_len": 32768}, "flex"),
    ],
)
def test_default_kernel_is_the_first_that_can(name, options, expected):
    assert choose_kernel(load_hardware(name), None, workload(**options)) == expected


def test_asked_for_kernels_are_taken_or_refused_with_a_reason():
    assert choose_kernel(H100, "flash2", workload()) == "flash2"
    with pytest.raises(InputError, match="takes bf16, fp16, not fp8.*flash3"):
        choose_kernel(H100, "flash2", workload(dtype="fp8"))
    with pytest.raises(InputError, match="head dims up to 256, not 512"):
        choose_kernel(H100, "flash2", workload(head_dim=512))
    with pytest.raises(InputError, match="has no kernel"):
        choose_kernel(H100, "flash9", workload())
    with pytest.raises(InputError, match="no kernel of h100-sxm takes"):
        choose_kernel(H100, None, workload(head_dim=512))
