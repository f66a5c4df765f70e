"""Attention kernels: work by the mask, bounds of physics, and each term of the model by what it changes."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cost_models.hardware import HARDWARE_NAMES, load_hardware
from cost_models.hardware.power import PowerTerms
from cost_models.kernels import (
    AttentionShape,
    AttentionTimes,
    estimate_attention_s,
    estimate_calls_s,
    estimate_elementwise_s,
    split_call,
)
from cost_models.kernels.split_keys import split_launch
from cost_models.masks import KernelCall, Segment, TokenRange, lower, parse_mask
from traces.errors import InputError

SHAPE = AttentionShape(1, 32, 8, 128, 128, "bf16")
H100 = load_hardware("h100-sxm")
directions = st.sampled_from(["forward", "backward"])


def square(n, left=None, right=None):
    return KernelCall((Segment(0, n, 0, n),), left, right)


def with_pass(profile, kernel, direction, **terms):
    """The profile with other terms of one pass."""
    curve = profile.kernels[kernel]
    changed = curve.model_copy(update={direction: curve.direction(direction).model_copy(update=terms)})
    return profile.model_copy(update={"kernels": {**profile.kernels, kernel: changed}})


def rate_of_peak(profile, kernel, call, shape, direction, pairs):
    seconds = estimate_attention_s(profile, kernel, call, shape, direction)
    return pairs * shape.problems * shape.flop_per_pair(direction) / seconds / profile.peak(shape.dtype)


@pytest.mark.parametrize("name", HARDWARE_NAMES)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_long_full_attention_reaches_the_curves_efficiency(name, direction):
    profile = load_hardware(name)
    for kernel, curve in profile.kernels.items():
        chosen = curve.direction(direction)
        kept = 1 - chosen.sustained_loss if chosen.sustained_s < 1 else 1
        kept *= 1 - profile.power.later_loss
        share = rate_of_peak(profile, kernel, square(2**17), SHAPE, direction, 2**34)
        most = kept * chosen.efficiency_at(128)
        assert 0.97 * most / (1 + chosen.l2_miss_cost) <= share <= 1.03 * most, kernel


@settings(deadline=None)
@given(n=st.integers(1, 4096), heads=st.sampled_from([1, 3, 32]), direction=directions, causal=st.booleans())
def test_never_faster_than_peak_or_memory(n, heads, direction, causal):
    shape = AttentionShape(1, heads, 1, 128, 128, "bf16")
    seconds = estimate_attention_s(H100, "flash3", square(n, None, 0 if causal else None), shape, direction)
    pairs = n * (n + 1) // 2 if causal else n * n
    least_bytes = 2 * 2 * n * 128 * (heads + 1)
    assert seconds >= pairs * heads * shape.flop_per_pair(direction) / H100.peak("bf16")
    assert seconds >= least_bytes / H100.hbm_bytes_per_s


@settings(deadline=None)
@example(n=1, more=1, direction="forward", kernel="flash2", right=None)
@given(
    n=st.integers(1, 3000), more=st.integers(0, 500), direction=directions,
    kernel=st.sampled_from(["flash2", "flash3", "cudnn", "flex"]), right=st.sampled_from([None, 0]),
)  # fmt: skip
def test_more_tokens_and_heads_take_no_less_time(n, more, direction, kernel, right):
    # flash-attention 2 splits keys by a rule that does not ask whether that is faster: its laws are `test_split_keys`'.
    short = (square(n, None, right),), SHAPE, H100.sm_count
    assume(direction == "backward" or split_launch(kernel, *short) == 1)
    base = estimate_attention_s(H100, kernel, square(n, None, right), SHAPE, direction)
    longer = estimate_attention_s(H100, kernel, square(n + more, None, right), SHAPE, direction)
    wider = estimate_attention_s(
        H100, kernel, square(n, None, right), AttentionShape(2, 32, 8, 128, 128, "bf16"), direction
    )
    # PyTorch copies what flash-attention 2 returns for one query, whose heads it packs.
    copies_s = 2 * H100.elementwise.overhead_s if (kernel, direction, n) == ("flash2", "forward", 1) else 0.0
    if kernel != "flash3":  # its bound of list scheduling is no sum of waves: pieces may even out
        assert longer >= (base - copies_s) * (1 - 1e-12)
    assert wider >= base * (1 - 1e-12)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kernel", ["flash2", "flash3", "cudnn", "triton"])
def test_masks_cost_what_they_leave(kernel, direction):
    n = 32768
    full, causal, window = (
        estimate_attention_s(H100, kernel, call, SHAPE, direction)
        for call in (square(n), square(n, None, 0), square(n, 1023, 0))
    )
    assert causal / full == pytest.approx(0.5, rel=0.05)
    assert 1024 / n < window / full < 2.2 * 1024 / n


def test_packed_documents_cost_their_own_pairs():
    mask, n = parse_mask("document:lengths=8k+8k+8k+8k", 32768), 32768
    lowering = lower(mask, [TokenRange(0, n)], [TokenRange(0, n)], n)
    packed = estimate_calls_s(H100, "cudnn", lowering.calls, SHAPE, "forward")
    assert len(lowering.calls) == 1
    one = estimate_attention_s(H100, "cudnn", square(8192), SHAPE, "forward")
    assert packed == pytest.approx(4 * one, rel=0.05)


def test_empty_calls_take_no_time():
    assert estimate_attention_s(H100, "flash2", KernelCall((Segment(0, 8, 0, 0),), None, None), SHAPE, "forward") == 0
    assert estimate_calls_s(H100, "flash2", (), SHAPE, "forward") == 0


def test_a_given_delta_saves_the_kernel_that_computes_it_or_needs_an_output_that_has_it():
    n, call = 8192, square(8192, None, 0)
    saved = {}
    for kernel in ("triton", "flash2"):
        plain, given = (
            estimate_attention_s(H100, kernel, call, SHAPE, "backward", precomputed_delta=delta)
            for delta in (False, True)
        )
        saved[kernel] = plain - given
    delta = estimate_elementwise_s(H100, n * 32 * 4 * 128, n * 32 * 4, "copy") - H100.elementwise.overhead_s
    output = estimate_elementwise_s(H100, n * 32 * (2 * 128 + 4), n * 32 * 2 * 128, "reduce")
    assert saved == pytest.approx({"triton": delta, "flash2": -output}, rel=1e-6)


def test_grouped_heads_add_a_sum_of_gradients():
    grouped, plain = (
        estimate_attention_s(H100, "flash2", square(8192), AttentionShape(1, 32, k, 128, 128, "bf16"), "backward")
        for k in (8, 32)
    )
    assert grouped > plain


def test_mask_cost_falls_on_cut_tiles_alone_unless_windows_are_masked_throughout():
    slow = with_pass(H100, "flash2", "forward", masked_tile_cost=3.0, masks_window_tiles=False)
    fast = with_pass(H100, "flash2", "forward", masked_tile_cost=1.0, masks_window_tiles=False)
    window = {"masked_tile_cost": 3.0, "masks_window_tiles": True}
    everywhere = with_pass(H100, "flash2", "forward", **window, window_tile_cost=None)
    cheaper = with_pass(H100, "flash2", "forward", **window, window_tile_cost=2.0)

    def ratio(profile, call):
        return estimate_attention_s(profile, "flash2", call, SHAPE, "forward") / estimate_attention_s(
            fast, "flash2", call, SHAPE, "forward"
        )

    assert ratio(slow, square(8192)) == 1
    assert 1 < ratio(slow, square(8192, None, 0)) < 1.1
    assert 1.1 < ratio(slow, square(8192, 4096, 0)) < 2
    assert ratio(everywhere, square(8192, 4096, 0)) > 2.8
    assert 1.8 < ratio(cheaper, square(8192, 4096, 0)) < ratio(everywhere, square(8192, 4096, 0)) - 0.5


def test_varlen_cost_falls_on_pieces_of_calls_of_several_segments():
    slow = with_pass(H100, "flash3", "forward", varlen_s=50e-6)
    two = KernelCall((Segment(0, 4096, 0, 4096), Segment(4096, 8192, 4096, 8192)), None, None)
    prices = [
        estimate_attention_s(p, "flash3", call, SHAPE, "forward") for call in (square(8192), two) for p in (H100, slow)
    ]
    assert prices[0] == prices[1]
    assert prices[3] - prices[2] == pytest.approx(64 * 32 / 132 * (50e-6 - 2.5e-6), rel=0.2)


def test_long_calls_lose_rate_under_the_power_limit():
    cool = H100.model_copy(update={"power": PowerTerms()})
    hot = with_pass(cool, "flash3", "forward", sustained_loss=0.2, sustained_s=10e-3)
    ratios = [
        estimate_attention_s(hot, "flash3", square(n), SHAPE, "forward")
        / estimate_attention_s(cool, "flash3", square(n), SHAPE, "forward")
        for n in (1024, 16384, 262144)
    ]
    assert ratios[0] < 1.01 < ratios[1] < 1.2 < ratios[2] < 1.25


def test_keys_beyond_the_l2_cache_slow_the_kernel_down():
    none, missing = (with_pass(H100, "cudnn", "forward", l2_miss_cost=cost, sustained_loss=0.0) for cost in (0.0, 0.5))
    ratios = [
        estimate_attention_s(missing, "cudnn", square(n), SHAPE, "forward")
        / estimate_attention_s(none, "cudnn", square(n), SHAPE, "forward")
        for n in (32768, 131072, 2**20)
    ]  # K and V of a head: 16, 64, 512 MiB; half of the L2 cache: 25 MiB
    assert ratios == pytest.approx([1, 1 + 0.5 * (1 - 25 / 64), 1 + 0.5 * (1 - 25 / 512)], rel=1e-3)


def test_block_sparse_masks_are_one_launch_of_a_kernel_for_general_masks():
    n = 8192
    mask = parse_mask("block-sparse:block=128,keep=0.25,seed=1", n)
    calls = lower(mask, [TokenRange(0, n)], [TokenRange(0, n)], n).calls
    assert len(calls) > 64 or sum(len(call.segments) for call in calls) > 64
    launches = [KernelCall((segment,), call.left, call.right) for call in calls for segment in call.segments]
    sparse = estimate_calls_s(H100, "flex", launches, SHAPE, "forward")
    full = estimate_attention_s(H100, "flex", square(n), SHAPE, "forward")
    assert sparse == pytest.approx(0.25 * full, rel=0.35)
    assert estimate_calls_s(H100, "flash2", launches, SHAPE, "forward") > 5 * sparse


def test_bad_arguments():
    with pytest.raises(InputError, match="no kernel flash9"):
        estimate_attention_s(H100, "flash9", square(8), SHAPE, "forward")
    with pytest.raises(InputError, match="no matrix units for int8"):
        estimate_attention_s(H100, "flash2", square(8), AttentionShape(1, 1, 1, 64, 64, "int8"), "forward")
    with pytest.raises(InputError, match="unknown direction"):
        estimate_attention_s(H100, "flash2", square(8), SHAPE, "up")


def test_work_before_a_call_counts_against_the_power_limit():
    terms = {"boost_s": 0.02, "sustained_loss": 0.1, "sustained_s": 1e-6, "overhead_s": 0.0}
    slowed = with_pass(H100.model_copy(update={"power": PowerTerms()}), "cudnn", "forward", **terms)
    call = square(16384)
    rested, tired = (
        estimate_attention_s(slowed, "cudnn", call, SHAPE, "forward", worked_s=worked) for worked in (0.0, 0.5)
    )
    assert rested < 0.02 and tired == pytest.approx(rested / 0.9, rel=1e-3)
    half = estimate_attention_s(slowed, "cudnn", call, SHAPE, "forward", worked_s=0.02 - rested / 2)
    assert half == pytest.approx((rested + tired) / 2, rel=1e-3)


def test_calls_of_one_lowering_follow_each_other_without_a_rest():
    call = square(40960)
    alone = estimate_attention_s(H100, "cudnn", call, SHAPE, "forward")
    three = estimate_calls_s(H100, "cudnn", (call,) * 3, SHAPE, "forward")
    assert H100.kernels["cudnn"].forward.boost_s < 2 * alone
    assert three > 3 * alone * 1.02


DOCUMENTS = KernelCall((Segment(0, 4096, 0, 4096), Segment(4096, 8192, 4096, 8192)), None, 0)


def test_a_kernel_without_segments_launches_each_and_says_what_it_joins():
    """cuDNN: documents are launches of their own, and causal attention to more keys is a full and a square one."""
    each = KernelCall(DOCUMENTS.segments[:1], None, 0)
    apart = estimate_calls_s(H100, "cudnn", (DOCUMENTS,), SHAPE, "forward")
    assert apart == pytest.approx(2 * estimate_calls_s(H100, "cudnn", (each,), SHAPE, "forward"), rel=1e-6)
    together = estimate_calls_s(H100, "flash2", (DOCUMENTS,), SHAPE, "forward")
    assert together < 2 * estimate_calls_s(H100, "flash2", (each,), SHAPE, "forward")
    longer = KernelCall((Segment(0, 4096, 0, 8192),), None, 0)
    parts = split_call(longer, varlen=False, top_left=True)
    assert [(part.right, part.segments[0].k_start) for part in parts] == [(None, 0), (0, 4096)]
    alone = sum(estimate_attention_s(H100, "cudnn", part, SHAPE, "forward") for part in parts)
    assert estimate_calls_s(H100, "cudnn", (longer,), SHAPE, "forward") > alone * 1.02


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_copies_of_parts_of_several_batch_rows_are_priced(direction: str):
    one, two = AttentionShape(1, 64, 8, 128, 128, "bf16"), AttentionShape(2, 32, 8, 128, 128, "bf16")
    extra = estimate_calls_s(H100, "cudnn", (DOCUMENTS,), two, direction) - estimate_calls_s(
        H100, "cudnn", (DOCUMENTS,), one, direction
    )
    assert (extra > 1e-5) == (direction == "backward")


@given(
    launches=st.lists(
        st.tuples(st.integers(1, 700), st.integers(1, 700), st.integers(0, 999), st.integers(0, 999)), max_size=8
    ),
    kernel=st.sampled_from(["cudnn", "flash2", "flash3", "flex"]),
    direction=directions,
    worked_s=st.sampled_from([0.0, 0.3]),
    delta=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_of_launches_is_what_looking_anew_gives(launches, kernel, direction, worked_s, delta):
    """Of equal lengths somewhere else, too: on a grid over all rows (flex) it matters where they lie, else not."""
    calls = tuple(
        KernelCall((Segment(q, q + rows, k, k + columns),), None, None) for rows, columns, q, k in 2 * launches
    )
    times = AttentionTimes(H100, kernel, SHAPE, direction, delta)
    for part in (calls[:1], calls, calls[::-1]):
        anew = estimate_calls_s(H100, kernel, part, SHAPE, direction, precomputed_delta=delta, worked_s=worked_s)
        assert times.calls_s(part, worked_s) == anew
    if kernel != "flex" and launches:
        moved = calls[0].segments[0]
        at_origin = KernelCall((Segment(0, moved.q_stop - moved.q_start, 0, moved.k_stop - moved.k_start),), None, None)
        assert times.calls_s((at_origin,)) == estimate_attention_s(
            H100, kernel, calls[0], SHAPE, direction, precomputed_delta=delta
        )
