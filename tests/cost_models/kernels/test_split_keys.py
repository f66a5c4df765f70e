"""Calls of few queries: heads packed into a tile, keys split over multiprocessors, memory's rate as the bound."""

from dataclasses import replace

import pytest

from cost_models.hardware import load_hardware
from cost_models.kernels import AttentionShape, estimate_attention_s
from cost_models.kernels.split_keys import count_splits, estimate_combine_s, split_launch
from cost_models.masks import KernelCall, Segment

SHAPE = AttentionShape(1, 32, 8, 128, 128, "bf16")
H100 = load_hardware("h100-sxm")
SPLITTING = ("cudnn", "flash3", "flash2", "flex")


def token_s(kernel, keys, shape=SHAPE, queries=1, profile=H100, right=0):
    call = KernelCall((Segment(0, queries, 0, keys),), None, right)
    return estimate_attention_s(profile, kernel, call, shape, "forward")


def memory_s(keys, shape=SHAPE):
    """Time to read K and V at the datasheet's bandwidth."""
    return shape.batch * shape.kv_heads * keys * 2 * shape.head_dim * 2 / H100.hbm_bytes_per_s


@pytest.mark.parametrize("kernel", SPLITTING)
@pytest.mark.parametrize("batch, keys", [(1, 8192), (1, 2**17), (8, 8192), (64, 8192)])
def test_decoding_is_bounded_by_memory(kernel, batch, keys):
    shape = replace(SHAPE, batch=batch)
    least = memory_s(keys, shape)
    assert least < token_s(kernel, keys, shape) < 1.7 * least + 20e-6


def test_a_token_of_llama_8b_at_8k_takes_a_layer_some_20_microseconds():
    assert 12e-6 < token_s("cudnn", 8192) < 30e-6


def test_a_kernel_that_does_not_split_is_bound_by_its_pieces():
    assert token_s("triton", 2**17) > 10 * memory_s(2**17)


@pytest.mark.parametrize("kernel", SPLITTING)
def test_query_heads_of_a_group_cost_nothing_while_they_fit_into_a_tile(kernel):
    alone, grouped = (token_s(kernel, 2**17, replace(SHAPE, heads=heads)) for heads in (8, 32))
    assert grouped == pytest.approx(alone, rel=0.03)


def test_splitting_ends_where_queries_fill_more_than_a_tile():
    many, few = (token_s("flex", 2**17, replace(SHAPE, heads=8), queries=queries) for queries in (129, 128))
    assert many > 4 * few


def test_kernels_pack_and_split_few_queries_as_they_were_measured_to():
    """cuDNN does it for one query only; flash-attention 2 packs the heads of one, and splits the keys of several."""
    one, two = (token_s("cudnn", 2**17, queries=queries) for queries in (1, 2))
    assert two > 3 * one
    one, two = (token_s("flash2", 2**17, queries=queries) for queries in (1, 2))
    assert 1.5 * one < two < 4 * one


@pytest.mark.parametrize("kernel", ["cudnn", "flash2", "flex"])
def test_more_keys_take_no_less_time(kernel):
    seconds = [token_s(kernel, keys) for keys in (128, 512, 1024, 4096, 8192, 2**17, 2**20)]
    assert seconds == sorted(seconds)


def test_parts_fill_the_multiprocessors_as_flash_attention_counts_them():
    # One block: 125 parts (8 tiles each) fill 0.947; from 0.85 of that, 106.3, the next way to split is 112 (9).
    # 48 blocks on 108 multiprocessors: 2 parts fill 0.89, 3 parts 0.67 (the comment in flash_api.cpp).
    assert [count_splits(48, 108, 1000), count_splits(1, 132, 1000), count_splits(106, 132, 1000)] == [2, 112, 1]
    assert count_splits(8, 132, 5) == 5


def test_flash2_splits_short_calls_of_many_queries_by_its_own_rule():
    """Records of an H100, `validators/records`: 1536 tokens of 8 heads of dim 64 take 39 us full, 33 us causal."""
    h8 = AttentionShape(1, 8, 8, 64, 64, "bf16")
    causal, documents = (
        KernelCall(segments, None, 0)
        for segments in ((Segment(0, 1536, 0, 1536),), (Segment(0, 768, 0, 768), Segment(768, 1536, 768, 1536)))
    )
    assert split_launch("flash2", [causal], h8, 132) == 6
    assert split_launch("flash2", [documents], h8, 132) == split_launch("cudnn", [causal], h8, 132) == 1
    assert split_launch("flash2", [causal], replace(h8, heads=32), 132) == 1
    full = KernelCall((Segment(0, 1536, 0, 1536),), None, None)
    assert estimate_attention_s(H100, "flash2", full, h8, "forward") == pytest.approx(39e-6, rel=0.15)


def test_combining_reads_what_every_part_wrote():
    rows, splits = 4, 16
    moved = 2 * splits * rows * 32 * (4 * 128 + 4) + rows * 32 * 128 * 2
    rate = H100.elementwise.efficiency["reduce"] * H100.hbm_bytes_per_s
    small = H100.model_copy(update={"l2_bytes": 1 << 20})
    assert estimate_combine_s(small, rows, splits, SHAPE) == pytest.approx(H100.elementwise.overhead_s + moved / rate)
    cached = estimate_combine_s(H100, rows, splits, SHAPE) - H100.elementwise.overhead_s
    assert cached == pytest.approx(moved / rate / 2, rel=0.02)
    assert estimate_combine_s(H100, rows, 1, SHAPE) == 0.0
