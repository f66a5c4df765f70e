"""How evenly attention is spread: per rank and step, and what published partitions should give."""

from __future__ import annotations

import numpy as np
import pytest

import attnsim
from simulator.engines.balance import Balance, pairs_by_step
from simulator.program.program import Program
from tests.simulator.workloads import small_program, small_setup


def balance_of(program: Program) -> Balance:
    balance = Balance(program.setup.n_ranks)
    program.replay(balance)
    return balance


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_contiguous_causal_rings_leave_early_ranks_idle(ranks: int) -> None:
    """Rank r has (2 r + 1) c^2 / 2 + c / 2 pairs: most over mean tends to 2 - 1/P; steps wait for a whole block."""
    c = 240 // ranks
    program = small_program("ring:partition=contiguous", small_setup(ranks), "forward")
    pairs = pairs_by_step(program)
    assert pairs.sum(axis=0).tolist() == [(2 * r + 1) * c * c // 2 + c // 2 for r in range(ranks)]
    balance, mean = balance_of(program), 240 * 241 / 2 / ranks
    assert balance.ranks == pytest.approx(((2 * ranks - 1) * c * c / 2 + c / 2) / mean)
    assert balance.steps == pytest.approx((c * (c + 1) / 2 + (ranks - 1) * c * c) / mean)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_zigzag_balances_every_step(ranks: int) -> None:
    program = small_program("ring", small_setup(ranks), "forward")
    pairs, c = pairs_by_step(program), 240 // ranks
    assert (pairs == pairs[:, :1]).all()
    assert pairs[0, 0] == c * c // 2 + c // 2
    assert set(pairs[1:, 0].tolist()) == {c * c // 2}
    balance = balance_of(program)
    assert (balance.ranks, balance.steps) == (1.0, 1.0)


def test_striped_is_even_to_one_row() -> None:
    pairs = pairs_by_step(small_program("ring:partition=striped", small_setup(4), "forward"))
    assert set(pairs.ravel().tolist()) == {60 * 61 // 2, 60 * 59 // 2}


@pytest.mark.parametrize(("ranks", "idle"), [(3, 0.0), (5, 0.0), (4, 1 / 8), (8, 1 / 16)])
def test_lightseq_idles_as_published(ranks: int, idle: float) -> None:
    """DistFlashAttn section 3.2: nothing for odd P, 1 / 2P for even P; diagonal blocks count as whole ones there."""
    pairs = pairs_by_step(small_program("lightseq", small_setup(ranks), "forward"))
    busy = np.count_nonzero(pairs) / pairs.size
    steps = ranks // 2 + 1
    assert pairs.shape == (steps, ranks)
    if idle == 0.0:
        assert busy == 1.0
    else:
        assert 1 - busy == pytest.approx(1 / 2 / steps)
        assert pairs[:-1].all()


DOCUMENTS = "document:lengths=8+104+16+80+32,causal=true"


def test_a_partition_per_document_balances_what_one_of_the_stream_does_not() -> None:
    by_stream, by_document, dealt = [
        balance_of(small_program(f"ring:partition={name}", small_setup(4, mask=DOCUMENTS), "forward"))
        for name in ("zigzag", "document-zigzag", "area-balanced")
    ]
    assert by_stream.ranks > 1.2
    assert (by_document.ranks, by_document.steps) == (1.0, 1.0)
    assert dealt.ranks < 1.05
    assert by_stream.pairs.sum() == by_document.pairs.sum() == dealt.pairs.sum()


def test_padding_unbalances_short_documents() -> None:
    """9 tokens in 8 chunks of 2: the last ones are empty."""
    setup = small_setup(4, mask="document:lengths=" + "+".join(["9"] * 26 + ["6"]) + ",causal=true")
    assert balance_of(small_program("ring:partition=document-zigzag", setup, "forward")).ranks > 1.1


def test_without_pairs_nothing_is_uneven() -> None:
    balance = Balance(2)
    assert (balance.ranks, balance.steps) == (1.0, 1.0)


def test_pairs_of_very_long_sequences_do_not_overflow() -> None:
    result = attnsim.simulate(heads=64, head_dim=128, seq_len="1G", gpus=1, topology="dgx-h100", schedule="flash")
    assert (result.rank_imbalance, result.step_imbalance) == (1.0, 1.0)
