"""The power limit: work is never faster for what was done before, its pieces add up, each term does what it says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.hardware import load_hardware
from cost_models.hardware.power import PowerTerms
from cost_models.kernels import estimate_gemm_s
from cost_models.kernels.power import slowed_s

LIMIT = SimpleNamespace(boost_s=0.05, sustained_loss=0.1, sustained_s=1e-3)
FREE = SimpleNamespace(boost_s=0.05, sustained_loss=0.0, sustained_s=1e-3)
CONTROL = PowerTerms(overshoot=1.5, overshoot_s=0.1, deep_from_s=0.8, deep_for_s=0.2, deep_loss=0.2, later_loss=0.05)
seconds = st.floats(0.0, 3.0)


@given(busy=seconds, worked=seconds, more=seconds)
def test_pieces_add_up_and_nothing_is_faster_than_at_the_highest_clock(busy, worked, more):
    whole = slowed_s(LIMIT, CONTROL, busy + more, worked)
    assert whole == pytest.approx(
        slowed_s(LIMIT, CONTROL, busy, worked) + slowed_s(LIMIT, CONTROL, more, worked + busy)
    )
    assert whole >= (busy + more) * (1 - 1e-12) - 1e-12


def test_each_term():
    assert slowed_s(LIMIT, CONTROL, 0.05) == 0.05
    settled = SimpleNamespace(boost_s=0.0, sustained_loss=0.1, sustained_s=0.0)
    early, late = (slowed_s(settled, CONTROL, 0.01, worked) / 0.01 for worked in (0.0, 0.2))
    assert early == pytest.approx(1 / (1 - 0.15)) and late == pytest.approx(1 / (1 - 0.1))
    assert slowed_s(FREE, CONTROL, 0.8) == 0.8
    deep, later = slowed_s(FREE, CONTROL, 0.08, 0.8), slowed_s(FREE, CONTROL, 0.1, 1.5)
    assert deep == pytest.approx(0.1) and later == pytest.approx(0.1 / 0.95)


@given(worked=st.floats(0.0, 2.0))
def test_a_gpu_that_has_worked_begins_where_that_ends(worked):
    after = slowed_s(FREE, CONTROL.after_work(worked), 0.05)
    # There worked is time, here work at the highest clock: a fifth more of it where the slow control acts.
    within = sorted(slowed_s(FREE, CONTROL, 0.05, at) for at in (worked, max(0.0, worked - 0.05)))
    assert within[0] * 0.999 <= after <= within[1] * 1.001


def test_an_h100_takes_a_tenth_from_products_after_a_while_and_more_after_most_of_a_second():
    """Trains of 2.4 s of 16384 x 8192 x 8192, `validators/records/h100-sxm`: 1.11 to 1.12, then 1.2 to 1.4."""
    h100 = load_hardware("h100-sxm")
    rested, soon, late = (estimate_gemm_s(h100, 8192, 8192, 8192, "bf16", worked_s=w) for w in (0.0, 0.4, 0.85))
    assert 1.08 < soon / rested < 1.15 < late / rested < 1.4


def test_attention_beside_products_loses_at_least_what_they_do():
    profile = load_hardware("h100-sxm")
    beside = profile.beside_products()
    assert beside.beside_products() == beside
    assert beside.gemm == profile.gemm
    for name, curve in beside.kernels.items():
        alone = profile.kernels[name].backward
        assert curve.backward.sustained_loss == max(alone.sustained_loss, profile.gemm.sustained_loss)
